"""Sparse weights: along the right axis whatever holds them, as asked for, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphprune
import models
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.passes.results import Result
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.targets import Scope
from graphprune.verdict import half
from models.small import Net
from tests.helpers import bare, check, command, constants, random_feeds, relative, run
from tests.helpers_sparse import follows, weights


def stem(net: Net, width: int = 64) -> str:
    """An input and a first layer, so that what comes behind is not one."""
    return str(net.op("Relu", net.conv(net.input("x", ["batch", 3, 8, 8]), 3, width)))


def convolutions(group: int = 1, width: int = 64) -> ModelProto:
    net = Net()
    x = net.op("Relu", net.conv(stem(net, width), width, width, group=group))
    return net.model(net.conv(x, width, width))


def dense(*layers: Any, width: int = 64) -> ModelProto:
    """A product in front, those that are given, and one behind."""
    net = Net()
    x = net.linear(net.input("x", ["batch", 5, width]), width, width)
    for layer in layers:
        x = layer(net, x)
    return net.model(net.linear(x, width, width))


def gemm(transposed: bool) -> ModelProto:
    net = Net()
    x = net.op("Gemm", net.input("x", ["batch", 64]), net.weight(64, 64))
    x = net.op("Gemm", net.op("Relu", x), net.weight(32, 64) if transposed else net.weight(64, 32), transB=transposed)
    return net.model(net.op("Gemm", net.op("Relu", x), net.weight(32, 8)))


def on_the_left(net: Net, x: str) -> str:
    """A product with the weight as its left operand."""
    turned = net.op("MatMul", net.weight(64, 64), net.op("Transpose", x, perm=[0, 2, 1]))
    return str(net.op("Transpose", turned, perm=[0, 2, 1]))


def batched(net: Net, x: str) -> str:
    return str(net.op("MatMul", x, net.weight(1, 64, 64)))


def transposed(net: Net, x: str) -> str:
    return str(net.op("MatMul", x, net.op("Transpose", net.weight(64, 64), perm=[1, 0])))


def quantised(net: Net, x: str) -> str:
    value = net.constant(np.random.default_rng(3).integers(-99, 99, (64, 64)).astype(np.int8))
    zero = net.constant(np.arange(64).astype(np.int8))
    return str(
        net.op("MatMul", x, net.op("DequantizeLinear", value, net.constant(np.full(64, 0.01, np.float32)), zero))
    )


def fake_quantised(net: Net, x: str) -> str:
    """A weight of floats with a quantiser and a dequantiser behind it."""
    how = net.constant(np.float32(0.01)), net.constant(np.int8(0))
    weight = net.op("DequantizeLinear", net.op("QuantizeLinear", net.weight(64, 64), *how), *how)
    return str(net.op("MatMul", x, weight))


def of_a_node(net: Net, x: str) -> str:
    value = (net.rng.standard_normal((64, 64)) * 0.3).astype(np.float32)
    return str(net.op("MatMul", x, net.op("Constant", value=numpy_helper.from_array(value))))


def middle(model: ModelProto) -> list[str]:
    """Nodes that are neither first nor last."""
    return list(weights(model))[1:-1]


FORMS = {
    "conv": convolutions(),
    "gemm": gemm(False),
    "gemm, transposed": gemm(True),
    "left": dense(on_the_left),
    "batched": dense(batched),
    "transposed": dense(transposed),
    "quantised": dense(quantised),
    "fake-quantised": dense(fake_quantised),
    "constant node": dense(of_a_node),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_sum_is_sparse_whatever_holds_the_weight(name: str) -> None:
    model = FORMS[name]
    result = graphprune.sparsify(model)
    assert [n for t in result.sparse.thinned for n in t.target.nodes] == middle(model)
    found, before = weights(result.model.proto), weights(model)
    for node, (value, axis) in found.items():
        old = before[node][0]
        if node in middle(model):
            assert follows(value, axis) and not follows(value, axis, 1)
            real, was = np.abs(value.astype(np.float64)), np.abs(old.astype(np.float64))
            blocks = np.moveaxis(was, axis, -1).reshape(-1, 4)
            assert np.isclose(np.sort(blocks, 1)[:, 2:].sum(), real.sum())  # the largest two stay
            np.testing.assert_array_equal(value[value != 0], old[value != 0])
        else:
            np.testing.assert_array_equal(value, old)
    check(result.model.proto)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_halves_by_their_real_magnitude(kind: int) -> None:
    proto = half.converted(load(convolutions())).proto
    if kind == TensorProto.BFLOAT16:
        net = Net(opset=22)
        x = net.op("Cast", net.input("x", ["batch", 64]), to=kind)
        for _ in range(3):
            name = net.weight(64, 64)
            value = numpy_helper.to_array(net.initializers[-1])
            held = onnx.helper.make_tensor(name, kind, value.shape, value.reshape(-1))
            net.initializers[-1].CopyFrom(held)
            x = net.op("MatMul", x, name)
        proto = net.model(net.op("Cast", x, to=TensorProto.FLOAT))
    result = graphprune.sparsify(proto)
    (one,) = result.sparse.thinned
    before, after = (np.asarray(constants(m)[one.target.weight], np.float32) for m in (proto, result.model.proto))
    assert result.model.initializers[one.target.weight].data_type == kind
    assert follows(after, one.target.layers[0].axis or 0)
    axis = one.target.layers[0].axis or 0
    blocks = np.moveaxis(np.abs(before), axis, -1).reshape(-1, 4)
    assert np.isclose(np.sort(blocks, 1)[:, 2:].sum(), np.abs(after).sum())


def test_everything_else_is_left_as_it_was(tmp_path: Path) -> None:
    model = dense(transposed)
    model.metadata_props.add(key="author", value="somebody")
    model.opset_import.add(domain="com.example", version=3)
    model.graph.doc_string = "a graph"
    model.graph.initializer[0].doc_string = "a weight"
    onnx.save(model, tmp_path / "m.onnx")
    result = graphprune.sparsify(tmp_path / "m.onnx", tmp_path / "s.onnx")
    made, names = onnx.load(tmp_path / "s.onnx"), {t.target.weight for t in result.sparse.thinned}
    for proto in (made, model):
        for tensor in proto.graph.initializer:
            if tensor.name in names:
                tensor.ClearField("raw_data")
    assert bare(made) == bare(model)


def reasons(result: Result) -> dict[str, str]:
    return {s.node: str(s) for s in result.sparse.skipped}


def test_why_a_layer_stays_dense() -> None:
    net = Net()
    x = stem(net)
    x = net.op("Relu", net.conv(x, 64, 64))
    x = net.op("Relu", net.conv(x, 64, 64, group=64))
    x = net.op("Relu", net.conv(x, 64, 64, group=2))
    x = net.op("Relu", net.conv(x, 64, 12))
    x = net.op("Relu", net.conv(x, 12, 64))
    x = net.op("Relu", net.conv(net.op("Relu", net.conv(x, 64, 8)), 8, 64))
    x = net.op("Reshape", x, net.ints(64, -1, 64))
    states = net.op("LSTM", x, net.weight(1, 256, 64), net.weight(1, 256, 64), outputs=3, hidden_size=64)
    model = net.model(net.op("MatMul", net.op("Squeeze", states[1], net.ints(0)), net.weight(64, 64)))
    result = graphprune.sparsify(model)
    assert list(reasons(result).values()) == [
        "it sums over 3, less than one block of 2:4",
        "it has 64 groups",
        "it has 2 groups",
        "it has 12 outputs, no multiple of 8",
        "it sums over 12, no multiple of 16",
        "it is small: 8 outputs and sums of 64 are less than a tile, 16 by 32",
        "it sums over 8, no multiple of 16",
        "it makes several products (a recurrent or fused layer)",
        "it is a last layer: nothing with a weight lies behind it",
    ]
    also = graphprune.sparsify(model, also=["*"])
    assert list(reasons(also).values()) == [
        "it sums over 3, less than one block of 2:4",
        "it has 64 groups",  # there is nothing to choose from
        "it makes several products (a recurrent or fused layer)",  # its states are summed by the gates' own dim
    ]
    (recurrent,) = [t.target.weight for t in also.sparse.thinned if t.target.layers[0].node.startswith("node_LSTM")]
    assert follows(constants(also.model.proto)[recurrent], 2)
    for node, (value, axis) in weights(also.model.proto).items():
        assert follows(value, axis) == (node not in reasons(also))
    check(also.model.proto)


def test_an_embedding_lies_before_what_reads_it() -> None:
    net = Net()
    ids = net.input("ids", ["batch", 5], TensorProto.INT64)
    x = net.op("Gather", net.weight(100, 64), ids)
    model = net.model(net.linear(net.linear(x, 64, 64), 64, 64))
    assert len(graphprune.sparsify(model).sparse.thinned) == 1  # the last alone stays


def test_a_shared_weight_is_sparse_for_all_or_none() -> None:
    net = Net()
    weight = net.weight(64, 64)
    x = net.linear(net.input("x", ["batch", 64]), 64, 64)
    both = net.op("MatMul", net.op("Relu", net.op("MatMul", x, weight)), weight)
    result = graphprune.sparsify(net.model(net.linear(both, 64, 8)))
    (one,) = result.sparse.thinned
    assert len(one.target.nodes) == 2
    turned = net.op("MatMul", net.linear(both, 64, 64), net.op("Transpose", weight, perm=[1, 0]))
    result = graphprune.sparsify(net.model(net.linear(turned, 64, 8)))
    assert sum("which sums along another axis of it" in why for why in reasons(result).values()) == 3


def test_a_tied_embedding_stays_unless_it_is_named() -> None:
    net = Net()
    table = net.weight(96, 64)
    x = net.op("Gather", table, net.input("ids", ["batch", 5], TensorProto.INT64))
    x = net.linear(net.linear(x, 64, 64), 64, 64)
    model = net.model(net.op("MatMul", net.op("MatMul", x, net.op("Transpose", table, perm=[1, 0])), net.weight(96, 8)))
    result = graphprune.sparsify(model)
    assert "its weight is also read by a node that is no product" in reasons(result).values()
    named = graphprune.sparsify(model, also=[table])
    assert table in {t.target.weight for t in named.sparse.thinned}


def test_only_and_never() -> None:
    model = convolutions()
    names = list(weights(model))
    only = graphprune.sparsify(model, include=[names[2]])  # the last, by name
    assert [t.target.nodes for t in only.sparse.thinned] == [[names[2]]]
    assert reasons(only)[names[1]] == "not included"
    with pytest.raises(InputError, match="stays because excluded"):
        graphprune.sparsify(model, exclude=[names[1]])
    with pytest.raises(InputError, match="'nothing_like_it' matches no product with a weight"):
        graphprune.sparsify(model, exclude=["nothing_like_it"])


@pytest.mark.parametrize(("pattern", "n", "m"), [("1:4", 1, 4), ("4:8", 4, 8), ("1:2", 1, 2), ("3:32", 3, 32)])
def test_other_patterns(pattern: str, n: int, m: int) -> None:
    result = graphprune.sparsify(convolutions(), pattern=pattern)
    ((node,),) = [t.target.nodes for t in result.sparse.thinned]
    value, axis = weights(result.model.proto)[node]
    assert follows(value, axis, n, m) and (value != 0).mean() == n / m
    assert result.notes == [f"TensorRT and sparse tensor cores read 2:4 alone, not {pattern}"]


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_vectors_that_go_as_one(method: str, tmp_path: Path) -> None:
    given = {"calibration": "generated"} if method != "magnitude" else {}
    result = graphprune.sparsify(convolutions(), tmp_path / "s.onnx", pattern="1x4", amount=0.5, method=method, **given)
    ((node,),) = [t.target.nodes for t in result.sparse.thinned]
    value, axis = weights(result.proto)[node]
    vectors = np.moveaxis(value, axis, -1).reshape(*(n for a, n in enumerate(value.shape) if a != axis), -1, 4) != 0
    assert (vectors.all(-1) | ~vectors.any(-1)).all() and vectors.mean() == 0.5
    assert result.plan.sparsity[0]["pattern"] == "1x4" and result.plan.sparsity[0]["amount"] == 0.5
    assert result.notes == ["TensorRT and sparse tensor cores read 2:4 alone, not 1x4"]
    if method == "magnitude":
        again = graphprune.apply(tmp_path / "s.plan.json", convolutions())
        np.testing.assert_array_equal(weights(again.proto)[node][0], value)


def test_single_weights_by_what_inputs_are_like() -> None:
    result = graphprune.sparsify(
        convolutions(), pattern="unstructured", amount=0.7, method="sparsegpt", calibration="generated"
    )
    ((node,),) = [t.target.nodes for t in result.sparse.thinned]
    assert abs((weights(result.proto)[node][0] == 0).mean() - 0.7) < 1e-3
    assert result.sparse.thinned[0].method == "sparsegpt"


def test_single_weights_by_magnitude(tmp_path: Path) -> None:
    model = models.export("resnext-ts9")
    onnx.save(model, tmp_path / "m.onnx")
    result = graphprune.sparsify(tmp_path / "m.onnx", tmp_path / "s.onnx", pattern="unstructured", amount=0.7)
    before, after = constants(model), constants(onnx.load(tmp_path / "s.onnx"))
    names = [t.target.weight for t in result.sparse.thinned]
    gone = sum((after[n] == 0).sum() for n in names)
    assert abs(gone / sum(after[n].size for n in names) - 0.7) < 1e-3
    for name in names:  # of each weight the smallest
        zero = after[name] == 0
        assert np.abs(before[name])[zero].max() <= np.abs(before[name])[~zero].min()
    assert result.compressed is not None and result.compressed[1] < 0.65 * result.compressed[0]
    assert {e["amount"] for e in result.plan.sparsity} == {0.7}


def test_permuted_models_keep_more_and_did_the_same_before_the_mask() -> None:
    model = models.export("vit-ts16")
    plain, permuted = (graphprune.sparsify(model, permute=p) for p in (False, True))
    assert permuted.proof is not None and permuted.proof.worst < 1e-5 and plain.proof is None
    kept = [sum(t.kept_magnitude for t in r.sparse.thinned) for r in (plain, permuted)]
    assert kept[1] > kept[0] * 1.005
    for ordered in permuted.sparse.ordered:
        assert ordered.after > ordered.before
    assert permuted.plan.orders and all(not g.removed for g in permuted.plan.groups)


def test_external_weights_are_masked_as_they_are_written(tmp_path: Path) -> None:
    onnx.save(convolutions(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    result = graphprune.sparsify(tmp_path / "m.onnx", tmp_path / "s.onnx")
    assert (tmp_path / "s.onnx.data").is_file()
    ((node,),) = [t.target.nodes for t in result.sparse.thinned]
    value, axis = weights(onnx.load(tmp_path / "s.onnx"))[node]
    inside = weights(graphprune.sparsify(convolutions()).model.proto)[node][0]
    assert follows(value, axis)
    np.testing.assert_array_equal(value, inside)


def test_weights_in_bodies_and_functions() -> None:
    """A weight in each branch of an If, and one in a function of the model's own."""
    net = Net()
    x = net.linear(net.input("x", ["batch", 64]), 64, 64)
    flag = net.op("Greater", net.op("ReduceSum", x, keepdims=0), net.constant(np.float32(0)))
    bodies = []
    for name in ("then", "else"):
        inner = Net(seed=len(bodies))
        inner.count = 100 * (len(bodies) + 1)
        y = inner.linear(x, 64, 64)
        out = onnx.helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        bodies.append(onnx.helper.make_graph(inner.nodes, name, [], [out], inner.initializers))
    x = net.op("If", flag, then_branch=bodies[0], else_branch=bodies[1])
    held = numpy_helper.from_array((net.rng.standard_normal((64, 64)) * 0.3).astype(np.float32))
    nodes = [
        onnx.helper.make_node("Constant", [], ["w"], value=held),
        onnx.helper.make_node("MatMul", ["a", "w"], ["b"], name="inside"),
    ]
    function = onnx.helper.make_function("here", "Inner", ["a"], ["b"], nodes, [onnx.helper.make_opsetid("", 17)])
    model = net.model(net.linear(net.op("Inner", x, domain="here"), 64, 8), domains=["here"], rank=2)
    model.functions.append(function)
    result = graphprune.sparsify(model)
    assert len(result.sparse.thinned) == 3  # both branches, and what the function held
    made = result.model.proto
    feeds = {"x": np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)}
    assert relative(run(model, feeds)[0], run(made, feeds)[0]) > 0
    (branching,) = (n for n in made.graph.node if n.op_type == "If")
    for graph in (a.g for a in branching.attribute):
        (weight,) = (numpy_helper.to_array(t) for t in graph.initializer if list(t.dims) == [64, 64])
        assert follows(weight, 0)


def test_a_plan_is_replayed(tmp_path: Path) -> None:
    onnx.save(models.export("bert-ts11"), tmp_path / "m.onnx")
    graphprune.sparsify(tmp_path / "m.onnx", tmp_path / "s.onnx", permute=True)
    again = graphprune.apply(tmp_path / "s.plan.json", tmp_path / "m.onnx", tmp_path / "a.onnx")
    assert bare(tmp_path / "a.onnx") == bare(tmp_path / "s.onnx") and not again.notes
    plan = json.loads((tmp_path / "s.plan.json").read_text())
    plan["sparsity"][0]["method"] = "sparsegpt"
    (tmp_path / "s.plan.json").write_text(json.dumps(plan))
    again = graphprune.apply(tmp_path / "s.plan.json", tmp_path / "m.onnx")
    assert again.sparse is None and "they stay dense here" in again.notes[0]


def test_cut_and_sparse_in_one_run(tmp_path: Path) -> None:
    model = models.export("vit-ts16")
    onnx.save(model, tmp_path / "m.onnx")
    result = graphprune.prune(
        tmp_path / "m.onnx", tmp_path / "s.onnx", ratio=0.3, sparsity=sparse.Request(permute=True)
    )
    made = onnx.load(tmp_path / "s.onnx")
    whole = graphprune.sparsify(model)
    assert len(result.sparse.thinned) == len(whole.sparse.thinned)  # widths stay what the pattern wants
    found, before = weights(made), weights(model)
    for node in (n for t in result.sparse.thinned for n in t.target.nodes):
        value, axis = found[node]
        assert follows(value, axis) and value.shape[axis] % 16 == 0
    assert any(found[n][0].size < before[n][0].size for n in found)
    assert result.proof is not None and result.proof.worst < 1e-4
    assert any(g.removed and g.order for g in result.plan.groups)
    again = graphprune.apply(tmp_path / "s.plan.json", tmp_path / "m.onnx", tmp_path / "a.onnx")
    assert bare(tmp_path / "a.onnx") == bare(tmp_path / "s.onnx") and again.proof is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern": "4:2"}, "choose from N:M"),
        ({"method": "wanda"}, "works on activations"),
        ({"method": "nonsense"}, "there is none of this name"),
        ({"amount": 0.5}, "--amount goes with --pattern 1xW or unstructured"),
        ({"pattern": "unstructured"}, "wants --amount"),
        ({"pattern": "unstructured", "amount": 1.5}, "out of range"),
        (
            {"pattern": "unstructured", "amount": 0.5, "permute": True},
            "--permute: orders of channels are sought",
        ),
        ({"pattern": "unstructured", "amount": 0.5, "packed": "p.safetensors"}, "--packed holds weights of an N:M"),
        ({"packed": "not/there/p.safetensors"}, "its folder does not exist"),
        ({"compensate": "fold"}, "about removed channels"),
    ],
)
def test_what_makes_no_sense_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        graphprune.sparsify(convolutions(), **given)


def test_nothing_to_make_sparse_is_said() -> None:
    net = Net()
    with pytest.raises(InputError, match="holds no product with a weight"):
        graphprune.sparsify(net.model(net.op("Relu", net.input("x", ["batch", 8]))))
    with pytest.raises(InputError, match=r"the largest, .*, stays because it sums over 3"):
        net = Net()
        graphprune.sparsify(net.model(net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8)))


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(convolutions(), tmp_path / "m.onnx")
    status, out, _ = command(capsys, "sparsify", tmp_path / "m.onnx", "-o", tmp_path / "s.onnx", "--permute")
    assert status == 0 and "2:4 by magnitude: 1 weight" in out and "permuted: 1 group" in out and "dense: 1" in out
    status, out, _ = command(capsys, "sparsify", tmp_path / "m.onnx", "--json")
    data = json.loads(out)["sparse"]
    assert data["pattern"] == "2:4" and len(data["weights"]) == 1 and len(data["dense"]) == 2
    status, out, _ = command(capsys, "inspect", tmp_path / "s.onnx", "--sparsity")
    assert status == 0 and "weights that follow 2:4: 1," in out and "100.0 %" in out
    status, out, _ = command(capsys, "inspect", tmp_path / "s.onnx", "--sparsity", "1:4", "--json")
    assert not any(e["follows"] for e in json.loads(out)["layers"])
    status, _, error = command(capsys, "sparsify", tmp_path / "m.onnx", "--pattern", "2:2")
    assert status == 2 and "choose from N:M" in error
    status, _, error = command(capsys, "prune", tmp_path / "m.onnx", "--ratio", "0.3", "--permute")
    assert status == 2 and "go with --pattern" in error
    status, out, _ = command(
        capsys,
        "sparsify",
        tmp_path / "m.onnx",
        "-o",
        tmp_path / "u.onnx",
        "--pattern",
        "unstructured",
        "--amount",
        "0.7",
    )
    assert status == 0 and "deflated: " in out and "not faster" in out


def test_sparse_models_run(tmp_path: Path) -> None:
    for name, model in FORMS.items():
        feeds = random_feeds(model, {"batch": 2})
        made = graphprune.sparsify(model).model.proto
        for a, b in zip(run(model, feeds), run(made, feeds), strict=True):
            assert a.shape == b.shape and 0 < relative(a, b) < 2, name


def test_scope_is_plain_data() -> None:
    assert sparse.Request(scope=Scope(also=("a",))).resolved(False).method == "magnitude"
    assert sparse.Request().resolved(True).method == "sparsegpt"
