"""How long a job may take: what of it a pass may have, and how many samples it can afford.

What phases cost beside each other was measured (``tests/benchmarks/bench_calibration.py``), in forward passes of the
calibration inputs; passes say what depends on their options. One forward pass of some of them, and one product of
matrices, are timed before anything else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.products import find_products
from graphprune.errors import InputError
from graphprune.run.calibration import Batches
from graphprune.run.runtime import run, session
from graphprune.run.samples import count

if TYPE_CHECKING:
    from graphprune.passes.contract import Pass
    from graphprune.passes.state import State

COSTS = {
    "load": 0.1,
    "analyze": 0.2,
    "centre": 1.5,
    "rotate": 3.0,
    "observe": 6.0,
    "rank": 9.0,
    "weigh": 6.0,
    "select": 0.1,
    "cut": 0.1,
    "prove": 1.0,
    "fit": 14.0,
    "sparsify": 16.0,
    "distill": 420.0,
    "permute": 2.0,
    "validate": 1.0,
    "write": 0.1,
}
"""What phases cost, in forward passes; others are taken for one."""
LEAST = 8
"""Samples that are looked at however short the time is."""
_RUNS, _CUBES, _SPARED, _LOOKED = 12.0, 6.0, 0.8, 0.25
"""Forward passes of all phases of a round, multiply-accumulates of its linear algebra for the cube of a sum's length,
the share of the time that is planned for, and of that what looking at samples has, whatever passes spend."""


@dataclass(frozen=True)
class Budget:
    """The time of a job.

    Attributes:
        seconds: in all.
        begun: when the job began, by ``time.monotonic``.
        samples: how many calibration samples it can afford; None for all.
    """

    seconds: float
    begun: float
    samples: int | None = None

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 when there are none."""
        return self.begun + self.seconds - time.monotonic()

    def share(self, one: Pass, state: State) -> float:
        """Seconds that a pass may take, with those ahead of it in view."""
        own = sum(costs(one, state).values())
        ahead = sum(cost for other in state.ahead for cost in costs(other, state).values())
        return max(self.left, 0.0) * own / max(own + ahead, 1e-9)


def costs(one: Pass, state: State) -> dict[str, float]:
    """What the phases of a pass cost, in forward passes."""
    known = {**COSTS, **one.costs(state)}
    return {phase: known.get(phase, 1.0) for phase in one.phases(state)}


def seconds(text: str | float, option: str = "--time") -> float:
    """A time as ``90``, ``90s``, ``5m``, ``1h30m``.

    Raises:
        InputError: it is none, or not above 0.
    """
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", str(text).strip())
    total = sum(float(n) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True) if n) if found else 0.0
    if not total:
        raise InputError(f"{option} {text}: is no time; give seconds, or something like 90s, 5m or 1h30m")
    return total


@dataclass(frozen=True)
class Measured:
    """What a job can afford.

    Attributes:
        samples: how many are used.
        there: how many there are.
        each: seconds that one takes to run.
    """

    samples: int
    there: int
    each: float

    def told(self, budget: Budget) -> str:
        """The choice in words."""
        short = "; fewer would say too little, so the time may not do" if self.samples == LEAST < self.there else ""
        took = f"one takes {1e3 * self.each:.0f} ms to run, and all may take {budget.seconds:.0f} s"
        return f"{self.samples} of {self.there} samples are used: {took}{short}"


def measure(
    analysis: Analysis, batches: Batches, budget: Budget, passes: Sequence[Pass] = (), rounds: int = 1
) -> Measured:
    """How many samples the time is enough for.

    Args:
        analysis: of the model.
        batches: its inputs.
        budget: the time.
        passes: those of the job, of which some take time that samples do not decide about.
        rounds: how often samples are looked at for a choice and a fit.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    feeds = next(iter(batches()))
    with session(analysis.model.runnable) as active:
        run(active, feeds)
        begun = time.perf_counter()
        run(active, feeds)
    each = (time.perf_counter() - begun) / max(count(feeds), 1)
    there = sum(count(one) for one in batches())
    planned = _SPARED * budget.left
    spent = sum(one.spends(planned, each) for one in passes)
    left = max(planned - spent, _LOOKED * planned) - rounds * _algebra(analysis)
    return Measured(min(there, max(LEAST, int(left / (_RUNS * rounds * each)))), there, each)


def _algebra(analysis: Analysis) -> float:
    """Seconds of linear algebra, however many samples there are."""
    size = 512
    matrix = np.ones((size, size))
    begun = time.perf_counter()
    np.matmul(matrix, matrix)
    pace = size**3 / max(time.perf_counter() - begun, 1e-6)
    widths: Sequence[tuple[int, int]] = [p.widths for p in find_products(analysis.model, analysis.rulings)]
    return sum(_CUBES * groups * float(sums) ** 3 for groups, sums in widths) / pace
