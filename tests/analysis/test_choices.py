"""Choices: what a softmax shares out over, and what a top-k picks, can go; positions lead to what is picked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import graphprune
import models
from graphprune.analysis import Group, analyze
from graphprune.errors import InputError, ProofError
from graphprune.proof.proof import prove
from graphprune.rewrite.rewrite import rewrite
from models.small import Net
from tests import helpers

WAYS = [f"moe-{how}-{exporter}" for how in ("lookup", "onehot", "scatter") for exporter in ("ts14", "dynamo18")]
DECODERS = ["moe-gpt-oss-dynamo18", "moe-mixtral-dynamo18", "moe-qwen-dynamo18"]


def experts(analysis: graphprune.Analysis) -> Group:
    (found,) = (g for g in analysis.groups if g.kind == "expert")
    return found


def never(model: onnx.ModelProto, gone: list[int]) -> onnx.ModelProto:
    """The original whose router has a bias that no expert of these is chosen with; knows nothing of graphprune."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    (bias,) = (t for t in masked.graph.initializer if t.name == "router.bias")
    value = np.array(numpy_helper.to_array(bias))
    value[gone] = -1e9
    bias.CopyFrom(numpy_helper.from_array(value, bias.name))
    return masked


@pytest.mark.parametrize("name", WAYS)
def test_removed_experts_are_as_if_never_chosen(name: str) -> None:
    model = models.export(name)
    group = experts(analyze(model))
    assert (group.size, group.least, group.statistical, bool(group.pinned.any())) == (8, 2, False, False)
    owned = 8 * (24 * 32 + 32 * 24 + 32 + 24 + 1)
    assert owned <= group.parameters.sum() <= owned + 8  # numbers that positions are held against, too
    result = graphprune.prune(model, ratio=0.7, include=[group.id])
    gone = result.plan.groups[0].removed
    assert len(gone) == 5
    assert result.proof is not None
    assert result.proof.worst < 1e-5
    feeds = helpers.random_feeds(model, {"batch": 50})
    for expected, found in zip(
        helpers.run(never(model, gone), feeds), helpers.run(result.model.proto, feeds), strict=True
    ):
        assert helpers.relative(expected, found) < 1e-5
    assert helpers.relative(helpers.run(model, feeds)[0], found) > 1e-2  # they were in use


@pytest.mark.parametrize("name", DECODERS)
def test_experts_of_decoders_go_with_everything_else(name: str) -> None:
    result = graphprune.prune(models.export(name), ratio=0.4, align=1)
    removed = {g.kind: len(g.removed) for g in result.plan.groups}
    assert removed["expert"] == 3
    assert result.proof is not None
    assert result.proof.worst < 1e-4


def test_as_many_stay_as_are_picked() -> None:
    model = models.export("moe-lookup-ts14")
    analysis = analyze(model)
    group = experts(analysis)
    result = graphprune.prune(model, ratio=0.95, include=[group.id])
    assert len(result.plan.groups[0].removed) == 6
    with pytest.raises(InputError, match=r"1 of 8 would be left for node '/TopK', which picks 2 at once; remove fewer"):
        rewrite(analysis, {group.id: range(7)})


def test_the_proof_sees_a_wrong_expert() -> None:
    analysis = analyze(models.export("moe-lookup-ts14"))
    group = experts(analysis)
    right, wrong = rewrite(analysis, {group.id: [0, 1]}), rewrite(analysis, {group.id: [0, 2]})
    shapes = [{"x": (5, 16)}]
    prove(analysis.model, right.model, right.plan, right.removal, shapes)
    with pytest.raises(ProofError, match="off by"):
        prove(analysis.model, wrong.model, right.plan, right.removal, shapes)


def routed(*ways: str) -> onnx.ModelProto:
    """Rows of a table looked up by what a top-k picks of 6, its positions gone through some operators before."""
    net = Net(3)
    x = net.linear(net.input("x", ["batch", 4]), 4, 6)
    _, places = net.op("TopK", x, net.ints(2), outputs=2, axis=1)
    for way in ways:
        places = net.op(way, places, net.constant(np.array(1))) if way == "Mod" else net.op(way, places)
    y = net.op("ReduceSum", net.op("Gather", net.weight(6, 5), places, axis=0), net.ints(1), keepdims=0)
    return net.model(net.op("Add", y, net.constant(np.zeros(5, np.float32))))


def test_positions_may_be_moved_and_not_computed_with() -> None:
    assert {g.size: g.kind for g in analyze(routed("Identity", "Identity")).groups} == {6: "expert"}
    analysis = analyze(routed("Mod"))
    (group,) = (g for g in analysis.fixed if g.size == 6 and g.choices)
    assert "(Mod) computes with positions on it" in group.reasons[0].text


def test_positions_that_leave_the_graph_hold_it() -> None:
    net = Net()
    index = net.op("ArgMax", net.linear(net.input("x", ["batch", 4]), 4, 6), axis=1)
    model = net.model(index)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    analysis = analyze(model)
    assert not analysis.groups
    assert any("holds positions on it" in g.reasons[0].text for g in analysis.fixed)


def shared_out() -> onnx.ModelProto:
    net = Net(4)
    x = net.op("Softmax", net.linear(net.input("x", ["batch", 4]), 4, 8), axis=-1)
    return net.model(net.op("Add", net.op("MatMul", x, net.weight(8, 5)), net.constant(np.zeros(5, np.float32))))


def test_what_a_softmax_shares_out_over_goes_where_it_is_named() -> None:
    model = shared_out()
    (group,) = analyze(model).groups
    assert (group.size, group.statistical, group.least) == (8, False, 1)
    result = graphprune.prune(model, ratio=0.5, include=[group.id], align=1)
    assert result.proof is not None
    assert result.proof.worst < 1e-5
    assert len(result.plan.groups[0].removed) == 4
    feeds = helpers.random_feeds(model, {"batch": 9})
    assert helpers.relative(helpers.run(model, feeds)[0], helpers.run(result.model.proto, feeds)[0]) > 1e-2
    with pytest.raises(InputError, match="a softmax shares out over has a meaning of its own; name it by --include"):
        graphprune.prune(model, ratio=0.5)
