"""Bodies of If, Loop and Scan are pruned with what they read and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper

import graphprune
from graphprune.model import load
from graphprune.model.canonical import canonicalize
from models.small import Net
from tests import helpers


def value(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(net: Net, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[str], name: str) -> GraphProto:
    """What a net has so far, as a graph of its own."""
    return helper.make_graph(net.nodes, name, inputs, [value(o) for o in outputs], net.initializers)


def within(seed: int) -> Net:
    """A net whose names are none of the outer one's, but those of any other body."""
    net = Net(seed)
    net.count = 100
    return net


def branching() -> ModelProto:
    """A hidden layer, two branches with weights of their own and the same names, a reader."""
    net = Net(1)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 5]), 5, 8))
    graphs = []
    for seed in (2, 3):
        inner = within(seed)
        z = inner.op("Tanh", inner.op("Add", inner.op("MatMul", y, inner.weight(8, 12)), inner.weight(12)))
        graphs.append(body(inner, [], [z], "branch"))
    positive = net.op("Greater", net.op("ReduceMax", "x", keepdims=0), net.constant(np.float32(-100)))
    z = net.op("If", positive, then_branch=graphs[0], else_branch=graphs[1])
    return net.model(net.linear(z, 12, 3), rank=2)


def looping(scan: bool = False) -> ModelProto:
    """A recurrence: a state of 8 through a body with a hidden layer, whose steps are collected."""
    net = Net(1)
    x = net.input("x", ["batch", 5])
    state = net.linear(x, 5, 8)
    inner = within(2)
    y = inner.op("Relu", inner.op("Add", inner.op("MatMul", "state", inner.weight(8, 12)), inner.weight(12)))
    fresh = inner.op("Tanh", inner.op("MatMul", y, inner.weight(12, 8)))
    if scan:
        given = net.op("Transpose", net.op("Reshape", net.linear(x, 5, 24), net.ints(0, 3, 8)), perm=[1, 0, 2])
        fresh = inner.op("Add", fresh, "slice")
        kept = inner.op("Identity", fresh)
        graph = body(inner, [value("state"), value("slice")], [fresh, kept], "body")
        last, every = net.op("Scan", state, given, outputs=2, body=graph, num_scan_inputs=1)
    else:
        kept, go = inner.op("Identity", fresh), inner.op("Identity", "cond")
        inputs = [value("step", TensorProto.INT64, []), value("cond", TensorProto.BOOL, []), value("state")]
        graph = body(inner, inputs, [go, fresh, kept], "body")
        graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
        steps, on = net.constant(np.array(3)), net.constant(np.array(True))
        last, every = net.op("Loop", steps, on, state, outputs=2, body=graph)
    y = net.op("ReduceSum", net.linear(every, 8, 3), net.ints(0), keepdims=0)
    return net.model(net.op("Add", net.linear(last, 8, 3), y), rank=2)


@pytest.mark.parametrize("make", [branching, looping, lambda: looping(scan=True)], ids=["if", "loop", "scan"])
def test_bodies_are_pruned(make: object) -> None:
    model: ModelProto = make()  # type: ignore[operator]
    onnx.checker.check_model(model)
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.worst < 1e-5
    assert {g.size for g in result.plan.groups} == {8, 12}
    onnx.checker.check_model(result.model.proto)
    assert result.after.parameters < 0.55 * result.before.parameters
    for seed in (0, 1):  # another batch, and for the branches another way
        feeds = {n: v - 50.0 * seed for n, v in helpers.random_feeds(model, {"batch": 4}, seed).items()}
        assert all(np.isfinite(v).all() for v in helpers.run(result.model.proto, feeds))


def test_both_branches_are_cut_alike() -> None:
    """The proof goes one way; the other branch must fit as well."""
    model = branching()
    result = graphprune.prune(model, ratio=0.5)
    (node,) = (n for n in result.model.graph.node if n.op_type == "If")
    shapes = [[tuple(t.dims) for t in a.g.initializer] for a in node.attribute]
    assert shapes == [[(4, 6), (6,)]] * 2
    assert [n.op_type for n in node.attribute[0].g.node] == ["MatMul", "Add", "Tanh"]
    low = {"x": np.full((2, 5), -1e3, np.float32)}
    assert helpers.run(result.model.proto, low)[0].shape == (2, 3)


@pytest.mark.parametrize("make", [branching, looping], ids=["if", "loop"])
def test_nothing_removed_leaves_the_file_as_it_is(make: object) -> None:
    model: ModelProto = make()  # type: ignore[operator]
    same = graphprune.prune(model, ratio=0).model.proto
    assert same.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_a_state_that_a_mask_does_not_keep_at_zero_is_no_zero_inside() -> None:
    """The state starts at zero where its weights are masked, and is one half after a step: its sum is not exact."""
    net = Net(1)
    state = net.linear(net.input("x", ["batch", 5]), 5, 8)
    inner = within(2)
    total = inner.op("ReduceSum", "state", inner.ints(1), keepdims=1)
    fresh = inner.op("Sigmoid", inner.op("Mul", "state", inner.op("Tanh", total)))
    go = inner.op("Identity", "cond")
    inputs = [value("step", TensorProto.INT64, []), value("cond", TensorProto.BOOL, []), value("state")]
    graph = body(inner, inputs, [go, fresh], "body")
    graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    last = net.op("Loop", net.constant(np.array(3)), net.constant(np.array(True)), state, body=graph)
    model = net.model(net.linear(last, 8, 3), rank=2)
    assert all(g.statistical for g in graphprune.analyze(model).groups)
    result = graphprune.prune(model, ratio=0.5, allow_statistical=True)
    assert result.proof is not None and result.proof.worst < 1e-5 and result.proof.plain[0].max_rel > 1e-4


def test_a_loop_whose_state_changes_its_shape_keeps_it() -> None:
    net = Net(1)
    state = net.linear(net.input("x", [2, 5]), 5, 8)
    inner = within(2)
    fresh, go = inner.op("Concat", "state", "state", axis=1), inner.op("Identity", "cond")
    inputs = [value("step", TensorProto.INT64, []), value("cond", TensorProto.BOOL, []), value("state")]
    graph = body(inner, inputs, [go, fresh], "body")
    graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    last = net.op("Loop", net.constant(np.array(2)), net.constant(np.array(True)), state, body=graph)
    analysis = graphprune.analyze(net.model(net.op("ReduceMax", last, axes=[1]), rank=2))
    assert not analysis.groups


def test_a_branch_is_the_one_that_its_name_says() -> None:
    """Attributes come in any order: ONNX's own helper sorts them, so that the else branch is first."""
    net = Net(1)
    y = net.linear(net.input("x", ["batch", 4]), 4, 6)
    graphs = []
    for seed in (2, 3):
        inner = within(seed)
        inner.op("Constant", value=onnx.numpy_helper.from_array(inner.rng.standard_normal(6).astype(np.float32)))
        graphs.append(body(inner, [], [inner.nodes[-1].output[0]], "branch"))
        graphs[-1].output[0].CopyFrom(value(inner.nodes[-1].output[0], shape=[6]))
    z = net.op("If", net.constant(np.array(False)), then_branch=graphs[0], else_branch=graphs[1])
    model = net.model(net.linear(net.op("Mul", y, z), 6, 3), rank=2)
    assert [a.name for a in model.graph.node[2].attribute] == ["else_branch", "then_branch"]
    result = graphprune.prune(model, ratio=0.5)
    helpers.check(result.model.proto)
    assert {6} == {g.size for g in result.plan.groups} and result.proof is not None and result.proof.worst < 1e-5


def summing(opset: int) -> ModelProto:
    """A Scan over a constant, with a state; of opset 8 it runs over batches and may be told their lengths."""
    net = Net(1, opset=opset)
    y = net.linear(net.input("x", [1, 4] if opset < 9 else [4]), 4, 6, bias=False)
    inner = within(2)
    z = inner.op("Identity", inner.op("Add", "state", "item"))
    graph = body(inner, [value("state", shape=[6]), value("item", shape=[6])], [inner.nodes[0].output[0], z], "body")
    for output in graph.output:
        output.type.tensor_type.shape.dim.add().dim_value = 6
    given = ["", y, net.weight(1, 3, 6)] if opset < 9 else [y, net.weight(3, 6)]
    total, steps = net.op("Scan", *given, outputs=2, body=graph, num_scan_inputs=1)
    return net.model(net.op("MatMul", total, net.weight(6, 2)), net.op("MatMul", steps, net.weight(6, 2)))


def test_what_a_scan_runs_over_is_cut_as_its_slices_are() -> None:
    result = graphprune.prune(summing(9), ratio=0.5)
    assert [g.size for g in result.plan.groups] == [6] and result.proof is not None and result.proof.worst < 1e-5


def test_a_scan_over_batches_stays_as_it_is() -> None:
    with pytest.raises(graphprune.InputError, match="the subgraphs of Scan are not looked into"):
        graphprune.prune(summing(8), ratio=0.5)


def test_functions_of_the_model_are_inlined() -> None:
    """Two calls of one function: each layer is pruned on its own."""
    net = Net(1, opset=18)
    x = net.input("x", ["batch", 5])
    for width, wide in ((5, 8), (8, 12)):
        x = net.op("Layer", x, net.weight(width, wide), net.weight(wide), domain="own")
    model = net.model(net.linear(x, 12, 3), domains=["own"], rank=2)
    inside = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["out"]),
    ]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Layer", ["x", "w", "b"], ["out"], inside, opsets))
    result = graphprune.prune(model, ratio=0.5)
    assert {g.size for g in result.plan.groups} == {8, 12}
    onnx.checker.check_model(result.model.proto)
    assert graphprune.prune(model, ratio=0).model.proto.functions[0].name == "Layer"


def silero() -> list[Path]:
    try:
        package = distribution("silero-vad")  # it brings PyTorch along, so the tests do not ask for it
    except PackageNotFoundError:
        return []
    return [Path(str(package.locate_file(f))) for f in package.files or () if f.suffix == ".onnx"]


def test_canonical_form_and_back_is_the_same_model() -> None:
    from graphprune.model.editor import Editor

    for make in (branching, looping, lambda: looping(scan=True)):
        model = make()
        back = Editor(canonicalize(load(model))).finish().proto
        onnx.checker.check_model(back)
        feeds = helpers.random_feeds(model, {"batch": 2})
        for a, b in zip(helpers.run(model, feeds), helpers.run(back, feeds), strict=True):
            assert (a == b).all()


def test_names_that_look_like_those_of_the_flat_form_are_told_apart() -> None:
    model = branching()
    holder = next(n for n in model.graph.node if n.op_type == "If")
    graph = next(a.g for a in holder.attribute if a.name == "then_branch")
    product, total = (next(n for n in graph.node if n.op_type == op) for op in ("MatMul", "Add"))
    old, like = product.output[0], f"{holder.output[0]}/then_branch/{total.output[0]}"
    product.output[0] = like
    total.input[:] = [like if n == old else n for n in total.input]
    made = [o for n in canonicalize(load(model)).nodes for o in n.output]
    assert len(made) == len(set(made))
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.worst < 1e-5 and result.plan.groups
    onnx.checker.check_model(result.model.proto)


def choosing() -> ModelProto:
    """Two networks, of which an input chooses one; the second takes inputs of one column alone."""
    net, wide, narrow = Net(1), within(2), within(3)
    x = net.input("x", [1, 4, 6, "columns"])
    mean = wide.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    y = wide.op("MatMul", wide.op("Relu", wide.op("MatMul", mean, wide.weight(4, 8))), wide.weight(8, 5))
    line = narrow.op("Squeeze", x, narrow.ints(3))
    z = narrow.op("Relu", narrow.op("Conv", line, narrow.weight(8, 4, 3)))
    z = narrow.op("MatMul", narrow.op("ReduceMean", z, axes=[2], keepdims=0), narrow.weight(8, 5))
    graphs = [body(wide, [], [y], "wide"), body(narrow, [], [z], "narrow")]
    net.inputs.append(value("wide", TensorProto.BOOL, []))
    return net.model(net.op("If", "wide", then_branch=graphs[0], else_branch=graphs[1]), rank=2)


def test_a_branch_that_does_not_run_at_the_witness_keeps_what_is_not_known() -> None:
    model = choosing()
    result = graphprune.prune(model, ratio=0.5, input_shapes={"x": (1, 4, 6, 2)})
    assert [(g.size, len(g.removed)) for g in result.plan.groups] == [(8, 4)]
    x = np.random.default_rng(1).standard_normal((1, 4, 6, 1)).astype(np.float32)
    feeds = {"wide": np.array(False), "x": x}
    np.testing.assert_array_equal(helpers.run(result.proto, feeds)[0], helpers.run(model, feeds)[0])


def test_what_is_not_observed_in_bodies_is_told() -> None:
    x = np.random.default_rng(1).standard_normal((16, 1, 4, 6, 1)).astype(np.float32)
    inputs = [{"wide": np.array(True), "x": one} for one in x]
    found = graphprune.prune(choosing(), ratio=0.5, calibration=inputs, input_shapes={"x": (1, 4, 6, 1)})
    assert not found.fits
    assert [n for n in found.notes if n.startswith("4 of 4 linear operators lie in bodies of If")]


@pytest.mark.parametrize("path", silero(), ids=lambda p: p.stem)
def test_a_trained_model_with_branches_in_branches(path: Path) -> None:
    """Voice activity detection: two rates in two branches, an LSTM whose states are squeezed by rank."""
    shapes = {"input": (1, 576), "state": (2, 1, 128)}
    chosen = shapes if "sequence" not in path.stem and "openvino" not in path.stem else {}
    result = graphprune.prune(path, ratio=0.3, input_shapes=chosen)
    assert result.proof is not None and result.proof.worst <= 1e-4
    if path.stem != "silero_vad":  # its LSTM's weights are also read, as a whole, where a branch is never taken
        assert result.after.parameters < 0.88 * result.before.parameters
    onnx.checker.check_model(result.model.proto)
    if "sr" in {i.name for i in result.proto.graph.input}:
        for rate, samples in ((16000, 576), (8000, 288)):  # the second fits no branch at the first's size
            x = np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
            given = {"input": x, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(rate)}
            if rate == 16000 or "16k" not in path.stem:
                assert np.isfinite(helpers.run(result.proto, given)[0]).all()
