"""Searches over allocations keep budgets, are never worse than their start, and correct what was foreseen wrongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from graphprune.analysis import Analysis, analyze, cost
from graphprune.analysis.contractions import observe
from graphprune.errors import InputError
from graphprune.passes.choose import allocation, meters
from graphprune.passes.choose.allocation import Allocated, Asked, Budget, Terms
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.refitted import Refitted
from graphprune.passes.choose.search import Effort, Search
from graphprune.rewrite.removal import Removal
from graphprune.run.runtime import run, session
from models.small import Net

SHARE = 0.5
Judge = Callable[[Mapping[str, Sequence[int]]], float]


def chain(*widths: int, twice: bool = False) -> ModelProto:
    """Convolutions in a row; with ``twice`` the second half of what each makes is a mixture of the first."""
    net, before = Net(), 4
    y = net.input("x", ["batch", 4, 8, 8])
    for width in widths:
        y, before = net.conv(y, before, width), width
    model = net.model(net.conv(y, before, 4))
    if twice:
        for tensor in [t for t in model.graph.initializer if t.dims[0] == widths[0]]:
            half = widths[0] // 2
            mixing = np.random.default_rng(1).standard_normal((half, half)).astype(np.float32) / half
            value = np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims).copy()
            value[half:] = np.tensordot(mixing, value[:half], 1)
            tensor.raw_data = value.tobytes()
    return model


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(chain(32, 32, 32, 32))


def error(size: int, gone: int) -> float:
    return (gone / size) ** 2


def searched(analysis: Analysis, judge: Judge, effort: Effort, seed: int = 0) -> tuple[Allocated, Search]:
    """All groups are foreseen to lose alike."""
    errors = np.array([error(32, k) for k in range(33)])
    rankings = {g.id: Ranking(errors[1:], errors) for g in analysis.groups}
    limit = SHARE * cost.macs(analysis)
    search = Search(effort, judge, seed)
    asked = Asked([Budget("macs", limit, meters.macs)], Terms(align=2), depth=0.8)
    return allocation.allocate(analysis, analysis.groups, rankings, asked, search), search


def truth(analysis: Analysis, *weights: float, seen: list[Mapping[str, Sequence[int]]] | None = None) -> Judge:
    """A judge by whom groups lose other than foreseen."""

    def judge(selection: Mapping[str, Sequence[int]]) -> float:
        if seen is not None:
            seen.append(selection)
        lost = [
            weight * error(32, len(selection.get(group.id, ())))
            for group, weight in zip(analysis.groups, weights, strict=True)
        ]
        return float(np.sqrt(sum(lost)))

    return judge


def test_every_candidate_keeps_the_budget_closely_and_is_new(analysis: Analysis) -> None:
    seen: list[Mapping[str, Sequence[int]]] = []
    searched(analysis, truth(analysis, 1, 2, 4, 8, seen=seen), Effort(20))
    left = [cost.macs(analysis, Removal(analysis, one).sizes()) / cost.macs(analysis) for one in seen]
    assert max(left) <= SHARE and min(left) > 0.95 * SHARE
    assert len({tuple((id, tuple(c)) for id, c in one.items()) for one in seen}) == len(seen) == 20


def test_a_group_that_was_foreseen_wrongly_is_corrected(analysis: Analysis) -> None:
    judge = truth(analysis, 0.05, 1, 1, 20)
    start, _ = searched(analysis, judge, Effort(1))
    found, search = searched(analysis, judge, Effort(40))
    first, last = (analysis.groups[k].id for k in (0, -1))
    assert search.distances[0] == judge(start.selection)
    assert judge(found.selection) == min(search.distances) < 0.6 * search.distances[0]
    assert len(found.selection[first]) > len(start.selection[first])
    assert len(found.selection.get(last, ())) < len(start.selection[last])


def test_what_was_found_is_never_worse_than_the_start(analysis: Analysis) -> None:
    start, _ = searched(analysis, lambda selection: 1.0, Effort(1))
    calls = iter([1.0, *[2.0] * 9])
    found, _ = searched(analysis, lambda selection: next(calls), Effort(10))
    assert found.selection == start.selection
    broken = iter([1.0, *[np.inf] * 9])  # what a candidate makes may overflow
    assert searched(analysis, lambda selection: next(broken), Effort(10))[0].selection == start.selection


def test_the_same_seed_finds_the_same_and_another_looks_elsewhere(analysis: Analysis) -> None:
    judge = truth(analysis, 1, 2, 4, 8)
    one, other, third = (searched(analysis, judge, Effort(8), seed)[1].distances for seed in (0, 0, 1))
    assert one == other != third


def test_of_a_time_the_best_so_far_is_kept(analysis: Analysis) -> None:
    found, search = searched(analysis, truth(analysis, 1, 2, 4, 8), Effort(seconds=0.0))
    assert len(search.distances) == 1 and found.selection


def test_readers_of_all_groups_make_up_at_once_for_what_the_rest_can_say() -> None:
    analysis = analyze(chain(16, 16, twice=True))
    x = np.random.default_rng(0).standard_normal((16, 4, 8, 8), dtype=np.float32)
    refitted = Refitted(analysis, observe(analysis, analysis.groups, lambda: iter([{"x": x}])))
    made = refitted.without({group.id: list(range(8, 16)) for group in analysis.groups})
    with session(analysis.model) as whole, session(made) as small:
        wanted, found = (run(active, {"x": x})[0] for active in (whole, small))
    assert np.linalg.norm(found - wanted) < 1e-2 * np.linalg.norm(wanted)


def test_a_search_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    model = chain(16, 24, 16)
    inputs = {"x": np.random.default_rng(0).standard_normal((16, 4, 8, 8), dtype=np.float32)}
    given = {"target": "macs=0.5", "calibration": inputs, "compensate": "none", "align": 1, "resume": tmp_path}
    first = graphprune.prune(model, search=5, **given)
    counted = mock.Mock(side_effect=Refitted.without)
    with mock.patch.object(Refitted, "without", lambda *args: counted(*args)):
        again = graphprune.prune(model, search=5, **given)
        assert counted.call_count == 0
        more = graphprune.prune(model, search="7", **given)
        assert counted.call_count == 2
    assert again.plan.selection == first.plan.selection
    assert any("search: 7 candidates" in note for note in more.notes)
    assert more.after.macs <= 0.5 * more.before.macs


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"ratio": 0.5, "search": 4}, "give --calibration"),
        ({"ratio": 0.5, "search": "soon"}, "--search soon: give candidates"),
        ({"ratio": 0.5, "search": 0}, "candidates must be at least 1"),
        ({"search": 4, "blocks": 1}, "give one"),
        ({"ratio": 0.5, "search": 4, "uniform": True, "calibration": "generated"}, "no --uniform"),
    ],
)
def test_what_cannot_be_searched_is_told(options: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        graphprune.prune(chain(8), **options)
