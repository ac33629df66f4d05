"""Ridges chosen by what is held out beside those that shrinkage of second moments gives: scores of what comes of each.

    python tests/benchmarks/bench_shrinkage.py ["digits CNN" ...]

OAS (Chen, Wiesel, Eldar and Hero, IEEE TSP 2010) shrinks a covariance towards a multiple of the identity, by a share
that follows from it and from the number of rows; in least squares that is a ridge. Rows of one sample are correlated:
what they are worth lies between the number of samples and that of rows; both are tried.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import graphprune
from graphprune.passes.fit import least_squares, reconstruct
from graphprune.passes.fit.least_squares import RIDGES, Split
from tests.benchmarks import tasks
from tests.benchmarks.tasks import TASKS, at_hand

SHARES = {"digits CNN": (0.4, 0.25), "digits transformer": (0.6, 0.36), "PP-OCR cls": (0.5,)}
SAMPLES = (16, 64)


def shrunk(gram: np.ndarray, count: float) -> float:
    """The ridge beside the mean diagonal that OAS comes to, for second moments ``[groups, p, p]`` of so many rows."""
    p = gram.shape[1]
    trace, square = np.einsum("gii->g", gram), np.einsum("gij,gij->g", gram, gram)
    wide = (1 - 2 / p) * square + trace**2
    share = np.minimum(wide / np.maximum((count + 1 - 2 / p) * (square - trace**2 / p), 1e-30), 1 - 1e-6)
    return float(np.mean(share / (1 - share)))


def by(count: Callable[[Split], float], also: tuple[float, ...] = ()) -> Any:
    """Least squares with the ridge of OAS, beside others."""
    plain = least_squares.solve

    def solve(sums: Split, first: np.ndarray, bias: np.ndarray | None) -> Any:
        ridge = shrunk(sums.fitting.rows.centred, count(sums))
        with mock.patch.object(least_squares, "RIDGES", tuple(sorted((*also, ridge)))):
            return plain(sums, first, bias)

    return mock.patch.object(reconstruct, "solve", solve)


def main(names: list[str]) -> None:
    """A line for each model, number of inputs, and way."""
    tasks.SCORED = 400
    for name in at_hand(names or list(SHARES)):
        task = TASKS[name]
        for samples in SAMPLES:
            ways = {
                "held out chooses": nullcontext,
                "OAS by rows": lambda: by(lambda sums: sums.fitting.rows.count),
                "OAS by samples": lambda n=samples: by(lambda _: 0.75 * n),
                "both offered": lambda n=samples: by(lambda _: 0.75 * n, RIDGES),
            }
            for label, way in ways.items():
                scores = []
                for share in SHARES[name]:
                    with way():
                        made = graphprune.prune(
                            task.path,
                            target=f"macs={share}",
                            calibration=task.inputs(samples),
                            input_shapes=task.shapes,
                            prove=False,
                        )
                    scores.append(f"{100 * task.score(made.model.proto):.1f}")
                print(f"{name}, {samples} inputs, {label}: {', '.join(scores)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
