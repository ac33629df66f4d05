"""Orders of whole groups, for all that sums over them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import models
from graphprune.analysis import Analysis, analyze, sparsity
from graphprune.analysis.patterns import OfEvery
from graphprune.passes.choose import ratio
from graphprune.passes.choose.magnitude import score
from graphprune.passes.sparse import permutation
from graphprune.passes.sparse.permutation import permute
from graphprune.passes.sparse.targets import Scope, choose
from graphprune.rewrite.rewrite import rewrite
from models.small import Net

PATTERN = OfEvery(2, 4)


def branches(concat: int = 0) -> ModelProto:
    """A layer that two products read, one of them behind a concatenation."""
    net = Net()
    x = net.linear(net.input("x", ["batch", 64]), 64, 64)
    a, b = net.linear(x, 64, 32), net.linear(net.op("Concat", x, net.linear(x, 64, 64), axis=1), 128, 32)
    if concat:
        b = net.linear(net.op("Concat", net.linear(x, 64, concat), x, axis=1), concat + 64, 32)
    return net.model(net.linear(net.op("Add", a, b), 32, 32))


def kept(analysis: Analysis) -> dict[str, float]:
    """Share of magnitude that the pattern keeps, by node."""
    return {
        n.node: n.kept or 0.0 for n in sparsity.layers(analysis.model, analysis.witness, analysis.web, True, PATTERN)
    }


def ordered(model: ModelProto, share: float = 0.0) -> tuple[Analysis, list[permutation.Ordered], Analysis]:
    analysis = analyze(model)
    targets, _ = choose(analysis, PATTERN, Scope(also=["*"]))
    selection: dict[str, list[int]] = {}
    if share:
        groups = ratio.candidates(analysis)[0]
        selection = ratio.select(analysis, groups, score(analysis, groups), share, 8).selection
    found = permute(analysis, targets, selection, PATTERN)
    done = rewrite(analysis, selection, {o.group: o.order for o in found})
    return analysis, found, analyze(done.model)


def test_all_that_sum_over_a_group_have_a_say() -> None:
    analysis, found, after = ordered(branches())
    assert found
    before = kept(analysis)
    assert sum(kept(after).values()) > sum(before.values()) + 0.02
    first = next(o for o in found if o.group == analysis.groups[0].id)
    readers = [n for n in kept(after) if n in list(before)[1:4]]
    assert np.isclose(first.after, _share(after, readers), atol=0.03) and first.after > first.before


def _share(analysis: Analysis, nodes: list[str]) -> float:
    found = kept(analysis)
    return float(np.mean([found[n] for n in nodes]))


@pytest.mark.parametrize("concat", [32, 30])
def test_blocks_that_hold_something_else_are_left_out(concat: int) -> None:
    analysis, found, after = ordered(branches(concat))
    assert found and sum(kept(after).values()) > sum(kept(analysis).values())


@pytest.mark.parametrize("name", ["llama-dynamo18", "resnext-ts9"])
def test_exports_keep_more(name: str) -> None:
    analysis, found, after = ordered(models.export(name))
    assert found and all(o.after > o.before for o in found)
    assert sum(kept(after).values()) > sum(kept(analysis).values())


def test_what_is_removed_beforehand_takes_no_part() -> None:
    analysis, found, after = ordered(models.export("vit-ts16"), 0.3)
    assert found
    for one in found:
        group = analysis.group(one.group)
        assert group is not None and len(one.order) == len(set(one.order)) <= group.size
    assert any(len(o.order) < analysis.group(o.group).size for o in found)  # type: ignore[union-attr]
    assert np.mean(list(kept(after).values())) > 0.75


def test_many_columns_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ordered(branches())[1]
    monkeypatch.setattr(permutation, "COLUMNS", 24)
    some = ordered(branches())[1]
    assert some and sum(o.after for o in some) < sum(o.after for o in whole)
    assert all(o.after > o.before for o in some)


def test_heads_of_many_dims_gain_nothing_and_stay() -> None:
    analysis, found, _ = ordered(models.export("bert-ts11"))
    heads = {g.id for g in analysis.groups if g.kind == "head"}
    assert heads and not heads & {o.group for o in found}
