"""What pruning costs a language model: ``python tests/benchmarks/bench_language.py [steps] [sparse] [distilled]``.

The small decoder of ``models/make_lm.py``, 64 unlabelled texts of 128 bytes that it was trained on; scored on 256 texts
of held-out modules by the bits that a byte costs, which are the logarithm of its perplexity. Behind each score stands
by how many per cent it is above the original's, and in brackets the MACs that are left. Relative costs in bits can be
compared between models whose tokens differ, as perplexities cannot.

- ``steps``: each step alone, and together, at ratios of every group;
- ``sparse``: 2:4, alone and on top of removal;
- ``distilled``: 100 steps of training towards the original behind the fit, at the largest ratio.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
from graphprune.passes.sparse.sparse import Request  # noqa: E402
from models import prose  # noqa: E402
from tests.benchmarks.tasks import TASKS  # noqa: E402

SAMPLES, RATIOS = 64, (0.1, 0.2, 0.3)
Options = dict[str, Any]
STEPS: dict[str, Options] = {
    "magnitude": {},
    "obs": {"data": True, "uniform": True, "compensate": "none"},
    "obs, allocation": {"data": True, "compensate": "none"},
    "magnitude, refit": {"data": True, "criterion": "magnitude"},
    "obs, allocation, refit": {"data": True},
}
SPARSE: dict[str, Options] = {
    "2:4, magnitude": {"sparsity": Request(method="magnitude"), "compensate": "none"},
    "2:4, sparsegpt": {"data": True, "sparsity": Request(method="sparsegpt"), "compensate": "none"},
    "2:4, sparsegpt, refit": {"data": True, "sparsity": Request()},
}
DISTILLED: dict[str, Options] = {"obs, allocation, refit, distilled": {"data": True, "distill": 100}}


def row(label: str, options: Options, ratios: tuple[float, ...]) -> None:
    """One line of the table."""
    task = TASKS["tiny LM"]
    whole = prose.bits(task.path)
    cells = []
    for ratio in ratios:
        own = {k: v for k, v in options.items() if k != "data"}
        given = {"calibration": task.inputs(SAMPLES)} if options.get("data") else {}
        made = graphprune.prune(task.path, ratio=ratio, prove=False, **given, **own)
        bits = prose.bits(made.proto)
        cells.append(f"{bits:.3f} +{100 * (bits / whole - 1):.1f} % ({made.after.macs / made.before.macs:.2f})")
    print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main(parts: list[str]) -> None:
    """Print what is asked for, line by line."""
    print(f"untouched: {prose.bits(TASKS['tiny LM'].path):.3f} bits a byte", flush=True)
    tables = (("steps", STEPS, RATIOS), ("sparse", SPARSE, (0.0, 0.1, 0.3)), ("distilled", DISTILLED, (0.3,)))
    for name, ways, ratios in tables:
        for label, options in ways.items() if not parts or name in parts else ():
            row(label, options, ratios)


if __name__ == "__main__":
    main(sys.argv[1:])
