"""Scores of blocks, and the choice by them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import models
from graphprune.analysis import analyze, blocks
from graphprune.errors import InputError
from graphprune.passes.depth import influence
from graphprune.passes.depth.depth import Request, choose, take_out
from graphprune.run.runtime import exposing, generate, run, session
from models.small import Net
from tests import helpers


def stack(gains: tuple[float, ...], width: int = 16) -> ModelProto:
    """Residual layers whose branches are scaled, so that some matter more than others."""
    net = Net(3)
    y = net.linear(net.input("x", ["batch", 8]), 8, width)
    for gain in gains:
        z = net.linear(net.op("Tanh", net.linear(y, width, width)), width, width, bias=False)
        y = net.op("Add", y, net.op("Mul", z, net.constant(np.float32(gain))))
    return net.model(net.linear(y, width, 4))


def feeds(model: ModelProto, count: int = 2) -> list[dict[str, np.ndarray]]:
    analysis = analyze(model)
    return [generate(analysis.model, analysis.witness.inputs, seed) for seed in range(count)]


@pytest.mark.parametrize("score", influence.SCORES)
def test_what_does_little_scores_low(score: str) -> None:
    model = stack((1.0, 0.01, 0.5, 0.1))
    analysis = analyze(model)
    every = influence.units(analysis, blocks.find_blocks(analysis).blocks)
    values = influence.score_all(analysis, every, score, feeds(model))
    assert np.argsort(values).tolist() == [1, 3, 2, 0]


def test_influence_is_one_minus_the_cosine_along_features() -> None:
    model = stack((0.7,))
    analysis = analyze(model)
    (block,) = influence.units(analysis, blocks.find_blocks(analysis).blocks)
    (given,) = feeds(model, 1)
    with session(exposing(analysis.model, [block.by, block.output])) as active:
        before, after = run(active, given, [block.by, block.output])
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert influence.influence(analysis, [block], [given])[0][0] == pytest.approx(1 - cosine.mean(), abs=1e-6)


@pytest.mark.parametrize("name", ["vit-ts16", "resnext-dynamo18", "bert-ts11", "yolo-dynamo18"])
def test_effect_is_what_removal_does(name: str) -> None:
    """Whatever shares a run, the change of the outputs is that of the model with the block taken out."""
    model = models.export(name)
    analysis = analyze(model)
    every = blocks.find_blocks(analysis).blocks
    (given,) = feeds(model, 1)
    (expected,) = helpers.run(model, given)
    values = influence.effect(analysis, every, [given])
    for block, (value,) in zip(every, values, strict=True):
        taken = choose(analysis, Request([block.id]))
        (found,) = helpers.run(take_out(analysis, taken, prove=False).analysis.model.proto, given)
        assert value == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected), rel=1e-3, abs=1e-6)


def test_two_blocks_at_once() -> None:
    """One behind the other, and side by side: what is left is what both removals leave."""
    model = stack((1.0, 0.4, 0.5, 0.3))
    analysis = analyze(model)
    every = influence.units(analysis, blocks.find_blocks(analysis).blocks)
    (given,) = feeds(model, 1)
    (expected,) = helpers.run(model, given)
    pairs = list(combinations(every, 2))
    for pair, (value,) in zip(pairs, influence.without(analysis, pairs, [given]), strict=True):
        taken = choose(analysis, Request([block.id for block in pair]))
        (found,) = helpers.run(take_out(analysis, taken, prove=False).analysis.model.proto, given)
        assert value == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected), rel=1e-3, abs=1e-6)


def test_runs_are_shared_and_cut_where_they_grow_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack((1.0, 0.01, 0.5, 0.1))
    analysis = analyze(model)
    every = influence.units(analysis, blocks.find_blocks(analysis).blocks)
    assert len(list(influence._chunks(analysis.model, [[block] for block in every]))) == 1
    whole = influence.effect(analysis, every, feeds(model))
    monkeypatch.setattr(influence, "_MOST_NODES", 10)
    assert len(list(influence._chunks(analysis.model, [[block] for block in every]))) == 3
    assert np.allclose(influence.effect(analysis, every, feeds(model)), whole)


def test_blocks_are_scored_again_after_each() -> None:
    """Two layers that do the same: once one has gone, the other matters."""
    model = stack((0.3, 0.3, 0.35))
    weights = {t.name: t for t in model.graph.initializer}
    names = [n for n in weights if n.startswith("w_")]
    # the second layer takes off what the first has added: each alone matters, together they do nothing
    first, second = names[1:3], names[3:5]
    for a, b in zip(first, second, strict=True):
        weights[b].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[a]), b))
    analysis = analyze(model)
    taken = choose(analysis, Request(count=2, score="influence"))
    every = influence.units(analysis, blocks.find_blocks(analysis).blocks)
    before = dict(
        zip((b.output for b in every), influence.score_all(analysis, every, "influence", feeds(model)), strict=True)
    )
    second_score = taken.scores[1]
    assert second_score is not None and second_score != pytest.approx(before[taken.entries[1].output])


def test_features_are_found_by_the_weights() -> None:
    for name, axis in (("resnext-dynamo18", 1), ("vit-ts16", 2), ("bert-ts11", 2), ("mixer-ts13", 2)):
        analysis = analyze(models.export(name))
        block = blocks.find_blocks(analysis).blocks[-1]
        assert influence.features(analysis, block.output) == axis, name


def test_what_can_be_chosen_from() -> None:
    analysis = analyze(models.export("vit-ts16"))
    every = blocks.find_blocks(analysis).blocks
    assert {b.kind for b in influence.units(analysis, every)} == {"branch"} and len(
        influence.units(analysis, every)
    ) == 4
    assert [len(b.parts) for b in influence.units(analysis, every, ["layer:*"])] == [2, 2]
    assert len(influence.units(analysis, every, ["*layers.0*"])) == 2


def test_requests_that_cannot_be_met() -> None:
    analysis = analyze(models.export("vit-ts16"))
    with pytest.raises(InputError, match="5 blocks are to go, and only 4 can"):
        choose(analysis, Request(count=5))
    with pytest.raises(InputError, match="no block matches 'nothing'"):
        choose(analysis, Request(["nothing"]))
    for wrong in (Request(count=-1), Request(count=1, score="taste")):
        with pytest.raises(InputError, match="--block"):
            wrong.check()


def test_nodes_need_no_names() -> None:
    model = stack((1.0, 0.01, 1.0))
    named = analyze(model)
    for node in model.graph.node:
        node.ClearField("name")
    bare = analyze(model)
    scores = [influence.score_all(a, blocks.find_blocks(a).blocks, "effect", feeds(model)) for a in (named, bare)]
    assert len(scores[0]) > 1 and scores[0] == pytest.approx(scores[1])
