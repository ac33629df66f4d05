"""Groups that cut one shared weight go together where cutting it apart would add copies, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from graphprune.analysis import Analysis, analyze
from graphprune.errors import InputError
from graphprune.passes.choose import ratio, ties
from graphprune.passes.choose.criteria import Ranking
from graphprune.run import synthetic
from models.small import Net
from tests import helpers
from tests.passes.test_allocation import allocate


def table(readers: int = 3, rows: int = 40, alias: bool = False) -> ModelProto:
    """One large table that several small projections read."""
    net = Net()
    held, y = net.weight(rows, 16), net.input("x", ["batch", rows, 4])
    for _ in range(readers):
        y = net.op("Add", net.op("MatMul", net.op("Identity", held) if alias else held, net.weight(16, 4)), y)
    return net.model(net.op("MatMul", y, net.weight(4, 4)), rank=3)


def layers(shared: bool, bias: bool = False) -> ModelProto:
    """Two layers, with one pair of weights for both or with their own; with one bias for both, or none."""
    net = Net()
    y, zero = net.input("x", ["batch", 8]), net.constant(np.zeros(12, np.float32))
    pairs = [(net.weight(8, 12), net.weight(12, 8)) for _ in range(2)]
    for first, second in [pairs[0]] * 2 if shared else pairs:
        hidden = net.op("MatMul", y, first)
        made = net.op("MatMul", net.op("Relu", net.op("Add", hidden, zero) if bias else hidden), second)
        y = net.op("Add", y, made)
    return net.model(y)


def opposed(analysis: Analysis) -> dict[str, np.ndarray]:
    """Scores by which every second group would lose the classes that the others keep."""
    return {g.id: np.arange(g.size, dtype=float)[:: -1 if k % 2 else 1] for k, g in enumerate(analysis.groups)}


@pytest.mark.parametrize("readers", [2, 3, 5])
def test_a_table_that_several_read_is_cut_once(readers: int) -> None:
    model = table(readers)
    result = graphprune.prune(model, ratio=0.5, align=1)
    assert len(result.plan.groups) == readers and len({tuple(g.removed) for g in result.plan.groups}) == 1
    assert len({tuple(g.score or ()) for g in result.plan.groups}) == 1
    assert result.after.parameters == 40 * 8 + readers * 8 * 4 + 16
    assert result.proof is not None and result.proof.worst < 1e-5


def test_what_would_go_is_what_matters_least_to_all_together() -> None:
    analysis = analyze(layers(shared=True))
    scores = opposed(analysis)
    scores[analysis.groups[0].id] = scores[analysis.groups[0].id] * 3
    chosen = ratio.select(analysis, analysis.groups, scores, 0.5, 1).selection
    assert list(chosen.values()) == [[0, 1, 2, 3, 4, 5]] * 2


def test_layers_that_share_one_small_bias_stay_free_of_each_other() -> None:
    analysis = analyze(layers(shared=False, bias=True))
    chosen = ratio.select(analysis, analysis.groups, opposed(analysis), 0.5, 1).selection
    assert list(chosen.values()) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_an_allocation_takes_the_same_of_all() -> None:
    """What one of them could bear alone is not what both can."""
    analysis = analyze(layers(shared=True))
    errors = [factor * np.linspace(0, 1, 13) ** 2 for factor in (1, 1e6)]
    rankings = {g.id: Ranking(e[1:], e) for g, e in zip(analysis.groups, errors, strict=True)}
    first, second = allocate(analysis, analysis.groups, rankings, 0.5, 1).selection.values()
    assert first == second and len(first) == 6


def test_one_that_must_stay_keeps_all_that_are_tied_to_it() -> None:
    analysis = analyze(layers(shared=True))
    first, second = analysis.groups
    first.pinned[:3], second.pinned[9:] = True, True
    chosen = ratio.select(analysis, analysis.groups, opposed(analysis), 0.5, 1).selection
    assert list(chosen.values()) == [[3, 4, 5, 6, 7, 8]] * 2
    copied = ratio.Untouched(ratio.COPIED, group=first.id, cause=ratio.Cause.COPIES)
    assert ratio.candidates(analysis, exclude=[second.id])[1][-1] == copied


@pytest.mark.parametrize(("share", "left"), [(0.1, 0), (0.5, 2)])
def test_copies_must_pay(share: float, left: int) -> None:
    """The projections are read as a whole elsewhere, so that each is copied; the table makes up for it from 0.3 on."""
    net, outputs = Net(), []
    held, z = net.weight(40, 16), net.input("z", ["batch", 40, 16])
    for _ in range(2):
        own = net.weight(16, 8)
        outputs.append(net.op("Add", net.op("MatMul", held, own), net.op("MatMul", z, own)))
    analysis = analyze(net.model(*outputs, rank=3))
    groups, untouched = ratio.candidates(analysis, share=share)
    assert len(groups) == left and [u.text for u in untouched] == [ratio.COPIED] * (2 - left)
    (one,) = ties.together(analysis, analysis.groups, share)
    assert (one.whole, one.shared, one.pays(share)) == (40 * 16, 2 * 16 * 8, left == 2)


def test_removal_that_adds_parameters_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    model = table()
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    for k, entry in enumerate(plan.groups):
        entry.removed = [4 * k, 4 * k + 1]
    plan.slices = []
    with pytest.raises(InputError, match=r"848 parameters would be 1,864, .*'w_1' is cut in 3 ways.*--exclude"):
        graphprune.apply(plan, model)


def test_what_reads_constants_alone_needs_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SAMPLES", 8)
    model = table(alias=True)
    result = graphprune.prune(model, ratio=0.5, calibration="generated")
    assert result.after.parameters < result.before.parameters and result.fits
    helpers.check(result.model.proto)
