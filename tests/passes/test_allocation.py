"""Of one ratio redundant groups give more: never more MACs than the same share of all would leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from graphprune.analysis import Analysis, Group, analyze, cost
from graphprune.errors import InputError
from graphprune.passes.choose import allocation, criteria
from graphprune.passes.choose.allocation import MOST, Allocated, Asked
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.ratio import Cause, counts, select
from graphprune.rewrite.removal import Removal
from models.small import Net, attention


def two(first: int = 32, second: int = 32) -> ModelProto:
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", ["batch", 8, 8, 8]), 8, first))
    return net.model(net.conv(net.op("Relu", net.conv(y, first, second)), second, 8))


def ranked(analysis: Analysis, *factors: float) -> dict[str, Ranking]:
    found = {}
    for group, factor in zip(analysis.groups, factors, strict=True):
        errors = factor * np.linspace(0, 1, group.size + 1) ** 2
        found[group.id] = Ranking(errors[1:], errors)
    return found


def allocate(
    analysis: Analysis, groups: list[Group], rankings: dict[str, Ranking], ratio: float, align: int | None = None
) -> Allocated:
    """As much as the same share of every group would free."""
    terms = allocation.Terms(align)
    even, budget = allocation.even(analysis, groups, ratio, terms)
    alike = {id: len(classes) for id, classes in even.selection.items()}
    asked = Asked((budget,), terms, max(MOST, ratio), ratio, holds=True, alike=alike)
    return allocation.allocate(analysis, groups, rankings, asked)


def left(analysis: Analysis, selection: dict[str, list[int]]) -> float:
    return cost.macs(analysis, Removal(analysis, selection).sizes()) / cost.macs(analysis)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8])
def test_no_more_is_left_than_uniformly_would_be(ratio: float) -> None:
    analysis = analyze(two())
    rankings = ranked(analysis, 1, 50)
    chosen = allocate(analysis, analysis.groups, rankings, ratio, 1).selection
    scores = {id: r.scores for id, r in rankings.items()}
    uniform = select(analysis, analysis.groups, scores, ratio, 1).selection
    assert left(analysis, chosen) <= left(analysis, uniform)
    gone = [len(chosen.get(g.id, [])) for g in analysis.groups]
    assert (gone[0] > gone[1] or ratio == 0.8) and max(gone) <= max(MOST, ratio) * 32


def test_equal_groups_give_equally() -> None:
    analysis = analyze(two())
    chosen = allocate(analysis, analysis.groups, ranked(analysis, 1, 1), 0.25, 1).selection
    first, second = (len(chosen[g.id]) for g in analysis.groups)
    assert abs(first - second) <= 2


def test_widths_stay_aligned() -> None:
    analysis = analyze(two(48, 64))
    chosen = allocate(analysis, analysis.groups, ranked(analysis, 1, 8), 0.3, 8).selection
    for group in analysis.groups:
        assert (group.size - len(chosen.get(group.id, []))) % 8 == 0


def test_what_gives_nothing_says_why() -> None:
    analysis = analyze(two())
    chosen = allocate(analysis, analysis.groups, ranked(analysis, 1, 1e9), 0.1, 1)
    assert [u.group for u in chosen.untouched] == [analysis.groups[1].id]
    assert chosen.untouched[0].cause is Cause.DEAR


def test_nothing_to_remove_is_nothing() -> None:
    analysis = analyze(two())
    assert not allocate(analysis, analysis.groups, ranked(analysis, 1, 1), 0.01, 1).selection


@pytest.mark.parametrize(("align", "expected"), [(1, 31), (8, 3), (16, 1), (None, 7)])
def test_aligned_numbers(align: int | None, expected: int) -> None:
    analysis = analyze(two())
    found = counts(analysis, analysis.groups[0], align)
    assert found[0] == 0 and len(found) - 1 == expected
    step = 4 if align is None else align
    assert all((32 - n) % step == 0 for n in found)


def test_heads_are_counted_by_the_width_of_their_projections() -> None:
    analysis = analyze(attention(heads=6, size=4))
    (heads,) = (g for g in analysis.groups if g.kind == "head")
    assert counts(analysis, heads, 8) == [0, 2, 4]


def test_criteria_that_need_inputs_say_so() -> None:
    for name in criteria.NEED_INPUTS:
        with pytest.raises(InputError, match="give inputs by --calibration"):
            graphprune.prune(two(), ratio=0.3, criterion=name)
    with pytest.raises(InputError, match="none of this name"):
        graphprune.prune(two(), ratio=0.3, criterion="nothing")
    for left_out in (None, "auto"):
        assert criteria.resolve_criterion(left_out, True) == "obs"
        assert criteria.resolve_criterion(left_out, False) == "magnitude"


@pytest.mark.parametrize("criterion", criteria.CRITERIA)
def test_every_criterion_prunes_what_uniform_asks_for(criterion: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", x=rng.standard_normal((16, 8, 8, 8), dtype=np.float32))
    given = {"calibration": tmp_path / "in.npz", "criterion": criterion, "uniform": True, "ratio": 0.25}
    result = graphprune.prune(two(), **given)
    assert [len(g.removed) for g in result.plan.groups] == [8, 8]
    again = graphprune.prune(two(), **given)
    assert result.model.proto.SerializeToString(deterministic=True) == again.model.proto.SerializeToString(
        deterministic=True
    )
    scores = [g.score for g in result.plan.groups]
    for entry, own in zip(result.plan.groups, scores, strict=True):
        assert own is not None and max(own[c] for c in entry.removed) <= min(
            s for c, s in enumerate(own) if c not in entry.removed
        )


def test_random_depends_on_the_seed_alone() -> None:
    chosen = [graphprune.prune(two(), ratio=0.25, criterion="random", seed=s).plan.selection for s in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
