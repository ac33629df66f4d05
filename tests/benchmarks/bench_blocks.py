"""Accuracy against layers removed, and time against nodes: ``python tests/benchmarks/bench_blocks.py``.

The digits transformer (``models/trained``, eight layers) loses its layers one by one: by both scores, each with new
scores after every removal and without, at random (mean of ten orders), from the first to the last and the other way
round. Scores see 64 unlabelled training images; accuracy is of 450 held-out ones. Then the same for sublayers, and how
long finding blocks takes in residual nets of growing depth. Needs ``pip install scikit-learn``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import models  # noqa: E402
from graphprune.analysis import (  # noqa: E402
    Analysis,
    analyze,
    blocks,
)
from graphprune.passes.depth import influence  # noqa: E402
from graphprune.passes.depth.depth import Request, choose  # noqa: E402
from graphprune.rewrite.bypass import remove, resolve  # noqa: E402
from graphprune.rewrite.plan import BlockPlan  # noqa: E402
from models.digits import accuracy, images  # noqa: E402
from models.small import Net  # noqa: E402

SAMPLES = 64
ORDERS = 10


def curve(analysis: Analysis, entries: Sequence[BlockPlan]) -> list[float]:
    """Accuracy without the first block, the first two, and so on."""
    return [accuracy(remove(analysis, entries[: k + 1]).model.proto) for k in range(len(entries))]


def orders(analysis: Analysis, globs: Sequence[str], inputs: Path) -> dict[str, list[list[BlockPlan]]]:
    """Ways to take blocks one by one; several where chance decides."""
    every = influence.units(blocks.find_blocks(analysis).blocks, globs)
    count = len(every)
    ways: dict[str, list[list[BlockPlan]]] = {}
    feeds = [{"image": images("train")[0][:SAMPLES]}]

    def entries(order: Sequence[int]) -> list[BlockPlan]:
        return [e for k in order for e in resolve(analysis, [every[k]])]

    for score in influence.SCORES:
        ways[f"{score}, scored again"] = [choose(analysis, Request(globs, count, score, inputs)).entries]
        once = np.argsort(influence.score_all(analysis, every, score, feeds), kind="stable")
        ways[f"{score}, scored once"] = [entries([int(k) for k in once])]
    rng = np.random.default_rng(0)
    ways[f"random, mean of {ORDERS}"] = [entries([int(k) for k in rng.permutation(count)]) for _ in range(ORDERS)]
    ways["first to last"] = [entries(range(count))]
    ways["last to first"] = [entries(range(count - 1, -1, -1))]
    return ways


def scores_table(title: str, globs: Sequence[str]) -> Table:
    """A line for each way to choose."""
    analysis = analyze(models.trained("digits-transformer"))
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", image=images("train")[0][:SAMPLES])
        ways = orders(analysis, globs, Path(folder) / "in.npz")
    longest = max(len(e) for group in ways.values() for e in group)
    whole = accuracy(analysis.model.proto)
    table = Table(title=f"{title}: held-out accuracy, {100 * whole:.1f} % with all", title_justify="left", box=None)
    table.add_column("chosen by", no_wrap=True)
    shown = range(0, longest, max(1, longest // 8))
    for k in shown:
        table.add_column(f"-{k + 1}", justify="right")
    for name, group in ways.items():
        mean = np.mean([curve(analysis, e) for e in group], axis=0)
        table.add_row(name, *(f"{100 * mean[k]:.1f}" for k in shown))
    return table


def finding_table() -> Table:
    """Time of finding blocks in nets of growing depth, as a ratio to the first."""
    table = Table(title="finding blocks in a residual net of growing depth", title_justify="left", box=None)
    for title in ("nodes", "blocks", "s", "ms a node", "beside the first"):
        table.add_column(title, justify="right")
    first = None
    for depth in (1000, 4000, 14300):
        net = Net()
        y = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 16)
        for _ in range(depth):
            z = net.op("Relu", net.batch_norm(net.conv(y, 16, 12, bias=False), 12))
            y = net.op("Relu", net.op("Add", y, net.batch_norm(net.conv(z, 12, 16, bias=False), 16)))
        analysis = analyze(net.model(y, rank=4))
        seconds, found = timed(lambda known=analysis: blocks.find_blocks(known))
        each = 1e3 * seconds / len(analysis.model.nodes)
        first = first or each
        row = (len(analysis.model.nodes), len(found.blocks), f"{seconds:.1f}", f"{each:.3f}", f"{each / first:.2f}")
        table.add_row(*map(str, row))
    return table


def timed(function: Callable[[], blocks.Blocks]) -> tuple[float, blocks.Blocks]:
    """Seconds that a call takes, and what it gives."""
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def main() -> None:
    """Print the tables."""
    console = Console(width=140)
    console.print(scores_table("layers", ["layer:*"]))
    console.print(scores_table("attention and feed-forward blocks", ["branch:*"]))
    console.print(finding_table())


if __name__ == "__main__":
    main()
