"""Classes that change places: every axis follows, and nothing changes in what a model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import ModelProto

import graphprune
import models
from graphprune.analysis import Analysis, analyze
from graphprune.analysis.ordering import kinds, moved, sources
from graphprune.errors import InputError
from graphprune.passes.choose import ratio
from graphprune.passes.choose.magnitude import score
from graphprune.proof import proof
from graphprune.rewrite.rewrite import Rewritten, rewrite
from models.small import Net
from tests.helpers import bare, constants, run
from tests.random_graphs import convolutional
from tests.random_sequences import sequential


def orders(analysis: Analysis, selection: dict[str, list[int]], seed: int = 0) -> dict[str, list[int]]:
    """Every group in a random order, as far as its classes can change places."""
    rng, found = np.random.default_rng(seed), {}
    for group in analysis.groups:
        kind = kinds(analysis.web, group.labels, group.size, group.pinned)
        kept = np.setdiff1d(np.arange(group.size), selection.get(group.id, []))
        if kind is None:
            continue
        order = kept.copy()
        for one in np.unique(kind[kept]):
            own = np.flatnonzero(kind[kept] == one)
            order[own] = kept[rng.permutation(own)]
        if (order != kept).any():
            found[group.id] = order.tolist()
    return found


def reordered(model: ModelProto, share: float = 0.0) -> tuple[Analysis, Rewritten]:
    analysis = analyze(model)
    selection: dict[str, list[int]] = {}
    if share:
        groups = ratio.candidates(analysis)[0]
        selection = ratio.select(analysis, groups, score(analysis, groups), share).selection
    return analysis, rewrite(analysis, selection, orders(analysis, selection))


def proven(model: ModelProto, share: float = 0.0) -> Rewritten:
    analysis, done = reordered(model, share)
    shapes = [analysis.witness.first.inputs, analysis.witness.second.inputs]
    shapes += [{n: (1, *s[1:]) for n, s in shapes[0].items()}]
    found = proof.prove(analysis.model, done.model, done.plan, done.removal, shapes)
    assert found.worst < 1e-5
    return done


def mlp() -> ModelProto:
    net = Net()
    x = net.op("Relu", net.op("Gemm", net.input("x", ["batch", 8]), net.weight(8, 6), net.weight(6)))
    return net.model(net.op("Gemm", x, net.weight(6, 4)))


def test_elements_go_where_their_class_goes() -> None:
    labels = np.array([0, 1, 2, -1, 0, 1, 2])
    assert moved(labels, np.array([2, 1, 0])).tolist() == [2, 1, 0, 3, 6, 5, 4]
    assert sources([3, 1, 0], 4).tolist() == [3, 1, 2, 0]  # class 2 is gone, and stays where it is


def test_weights_on_both_sides_follow() -> None:
    analysis = analyze(mlp())
    done = rewrite(analysis, {analysis.groups[0].id: [1]}, {analysis.groups[0].id: [5, 0, 2, 3, 4]})
    before, after = constants(mlp()), constants(done.model.proto)
    first, bias, second = (s.source for s in done.plan.slices)
    kept = [5, 0, 2, 3, 4]
    np.testing.assert_array_equal(after[first], before[first][:, kept])
    np.testing.assert_array_equal(after[bias], before[bias][kept])
    np.testing.assert_array_equal(after[second], before[second][kept])
    assert done.plan.slices[0].order == {"1": kept} and done.plan.slices[0].removed == {"1": [1]}


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(
    "name",
    ["bert-ts11", "bloom-dynamo18", "densenet-ts11", "gemma-dynamo18", "gru-tagger-ts13", "shufflenet-v2-dynamo18",
     "swin-ts14", "vit-dynamo23", "yolo-ts12"],
)  # fmt: skip
def test_exports_do_what_they_did(name: str, share: float) -> None:
    done = proven(models.export(name), share)
    assert done.plan.orders


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(convolutional() | sequential())
def test_random_graphs_do_what_they_did(model: ModelProto) -> None:
    if analyze(model).groups:
        proven(model, 0.3)


def test_places_that_a_node_tells_apart_are_kept() -> None:
    net = Net()
    x = net.op("Gemm", net.input("x", ["batch", 8]), net.weight(8, 6))
    whole = net.op("Gemm", x, net.weight(6, 4))
    part = net.op("Gemm", net.op("Slice", x, net.ints(0), net.ints(2), net.ints(1)), net.weight(2, 4))
    analysis = analyze(net.model(net.op("Add", whole, part)))
    (group,) = analysis.groups
    kind = kinds(analysis.web, group.labels, group.size, group.pinned)
    assert kind is not None and len(set(kind[:2])) == 1 and len(set(kind[2:])) == 1 and kind[0] != kind[2]
    rewrite(analysis, {}, {group.id: [1, 0, 5, 4, 3, 2]})
    with pytest.raises(InputError, match="cannot change places"):
        rewrite(analysis, {}, {group.id: [5, 1, 2, 3, 4, 0]})


def test_an_order_must_name_what_stays() -> None:
    analysis = analyze(mlp())
    with pytest.raises(InputError, match="not one of the 6 classes that stay"):
        rewrite(analysis, {analysis.groups[0].id: [1]}, {analysis.groups[0].id: [5, 0, 1, 2, 3, 4]})


def test_a_plan_with_an_order_is_replayed(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx")
    analysis = analyze(tmp_path / "m.onnx")
    done = rewrite(analysis, {}, {analysis.groups[0].id: [5, 4, 3, 2, 1, 0]})
    again = graphprune.apply(done.plan, tmp_path / "m.onnx", tmp_path / "o.onnx")
    assert bare(again.model.proto) == bare(done.model.proto)
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    for a, b in zip(run(mlp(), {"x": x}), run(again.model.proto, {"x": x}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
