"""Work grows with the number of nodes and not faster: calls are counted, no time is taken."""

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import graphprune
from graphprune.analysis import analyze
from graphprune.analysis.blocks import find_blocks
from graphprune.analysis.ordering import kinds
from graphprune.analysis.patterns import SPARSE
from graphprune.passes.sparse import channel_swaps, permutation, sparse
from graphprune.passes.sparse.targets import Scope
from graphprune.progress import Progress
from graphprune.rewrite.rewrite import rewrite
from models import long

MOST = 2.3
"""How much more work twice the nodes may be; what grows with their square comes to 4."""
LINEAR = [name for name in long.LONG if name != "concat"]  # its classes are told on an axis as wide as there are nodes


class Counted(Progress):
    """Calls of Python functions, steps of generators and calls of C functions in each phase."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.of = 0, dict[str, int]()

    def seen(self, frame: FrameType, event: str, argument: Any) -> None:
        self.calls += event in ("call", "c_call")

    def end(self, phase: str) -> None:
        self.of[phase] = self.of.get(phase, 0) + self.calls
        self.calls = 0
        super().end(phase)

    def count(self, job: Callable[[], object]) -> dict[str, int]:
        before = sys.getprofile()
        sys.setprofile(self.seen)
        threading.setprofile(self.seen)
        try:
            job()
        finally:
            sys.setprofile(before)
            threading.setprofile(None)
        return self.of


def _pruned(shape: str, nodes: int, folder: Any) -> dict[str, int]:
    model, seen = long.LONG[shape](nodes), Counted()
    return seen.count(lambda: graphprune.prune(model, folder / "small.onnx", ratio=0.3, prove=False, progress=seen))


@pytest.mark.parametrize("shape", LINEAR)
def test_pruning_is_linear_in_nodes_in_every_phase(shape: str, tmp_path: Any) -> None:
    _pruned(shape, 24, tmp_path)  # what is imported and read once is no part of it
    once, twice = (_pruned(shape, nodes, tmp_path) for nodes in (120, 240))
    assert {"load", "analyze", "select", "cut", "write"} <= once.keys()
    grown = {phase: twice[phase] / once[phase] for phase in once if twice[phase] > 1000}
    assert all(ratio < MOST for ratio in grown.values()), grown


@pytest.mark.parametrize("shape", ["chain", "residual", "transformer"])
def test_blocks_are_found_in_linear_work(shape: str) -> None:
    def done(nodes: int) -> int:
        analysis, seen = analyze(long.LONG[shape](nodes)), Counted()
        seen.count(lambda: find_blocks(analysis))
        return seen.calls

    done(24)
    once, twice = done(240), done(480)
    assert twice / once < MOST


@pytest.mark.parametrize("shape", ["chain", "residual", "transformer"])
def test_orders_are_sought_and_made_in_linear_work(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_swaps, "ESCAPES", 0)  # how much is tried depends on the weights
    monkeypatch.setattr(permutation.os, "cpu_count", lambda: 1)
    request = sparse.Request("2:4", "magnitude", scope=Scope(also=["*"]))

    def done(nodes: int) -> tuple[int, int]:
        analysis, sought, made = analyze(long.LONG[shape](nodes)), Counted(), Counted()
        targets = sparse.find_targets(analysis, request)[0]
        assert len(targets) > nodes / 5
        sought.count(lambda: permutation.permute(analysis, targets, {}, SPARSE))
        movable = [g for g in analysis.groups if kinds(analysis.web, g.labels, g.size, g.pinned) is not None]
        orders = {g.id: np.roll(np.arange(g.size), 1).tolist() for g in movable if g.kind != "head_dim"}
        assert len(orders) > nodes / 50
        made.count(lambda: rewrite(analysis, {}, orders))
        return sought.calls, made.calls

    done(24)
    once, twice = done(192), done(384)
    assert [b / a < MOST for a, b in zip(once, twice, strict=True)] == [True, True], (once, twice)
