from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.model.files import save
from graphprune.rewrite.rewrite import rewrite
from models.small import Net, chain, residual
from tests import helpers


def test_nothing_selected_changes_nothing() -> None:
    model = residual()
    model.graph.doc_string, model.producer_version = "words", "7"
    model.metadata_props.add(key="author", value="somebody")
    model.graph.node[0].doc_string = "a node"
    model.graph.value_info.append(helper.make_tensor_value_info("stale", 1, ["batch"]))
    before = model.SerializeToString(deterministic=True)
    assert rewrite(graphprune.analyze(model), {}).model.proto.SerializeToString(deterministic=True) == before
    assert graphprune.prune(model, ratio=0).model.proto.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


def test_what_is_not_cut_is_kept() -> None:
    model = chain()
    model.metadata_props.add(key="author", value="somebody")
    model.graph.node[0].doc_string = "a node"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unused"))
    model.graph.initializer[0].doc_string = "a weight"
    pruned = graphprune.prune(model, ratio=0.5).model.proto
    assert pruned.metadata_props[0].value == "somebody" and pruned.graph.node[0].doc_string == "a node"
    assert [n.name for n in pruned.graph.node] == [n.name for n in model.graph.node]
    assert [t.name for t in pruned.graph.initializer] == [t.name for t in model.graph.initializer]
    assert pruned.graph.initializer[0].doc_string == "a weight"
    assert pruned.graph.input == model.graph.input and pruned.graph.output == model.graph.output


def test_the_selection_of_the_user_is_what_goes() -> None:
    model = chain()
    analysis = graphprune.analyze(model)
    pruned = rewrite(analysis, {analysis.groups[0].id: [0, 3]}).model.proto
    before, after = helpers.constants(model), helpers.constants(pruned)
    first = next(n for n in model.graph.node if n.op_type == "Conv").input[1]
    assert (after[first] == before[first][[1, 2, 4, 5, 6, 7]]).all()


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (lambda g: {"nobody": [0]}, "no group 'nobody'"),
        (lambda g: {g: [8]}, "classes 0 to 7, not 8"),
        (lambda g: {g: list(range(8))}, "would leave nothing"),
    ],
)
def test_selections_that_cannot_be(selection: object, message: str) -> None:
    analysis = graphprune.analyze(chain())
    with pytest.raises(InputError, match=message):
        rewrite(analysis, selection(analysis.groups[0].id))  # type: ignore[operator]


def test_pinned_classes_cannot_be_selected() -> None:
    analysis = graphprune.analyze(chain())
    with pytest.raises(InputError, match="cannot be removed: it is the input"):
        rewrite(analysis, {next(g.id for g in analysis.fixed if "input" in g.reasons[0].text): [0]})


def shared() -> ModelProto:
    """Two layers that share a zero bias through Identity nodes, and of which only the first can be pruned."""
    net = Net()
    x = net.input("x", ["batch", 6])
    zero = net.constant(np.zeros(6, np.float32), "zero")
    y = net.op("Add", net.op("MatMul", x, net.weight(6, 6)), net.op("Identity", zero))
    return net.model(net.op("Add", net.op("MatMul", net.op("Relu", y), net.weight(6, 6)), net.op("Identity", zero)))


def test_a_shared_constant_parts_where_its_readers_do() -> None:
    result = graphprune.prune(shared(), ratio=0.5)
    shapes = sorted(v.shape for n, v in helpers.constants(result.model.proto).items() if "zero" in n)
    assert shapes == [(3,), (6,)]
    entry = next(s for s in result.plan.slices if "zero" in s.source)
    assert entry.source != entry.result


def test_readers_that_lose_the_same_go_on_sharing() -> None:
    net = Net()
    table = net.weight(20, 6)
    y = net.op("Gather", table, net.input("ids", ["batch", "length"], kind=7))
    y = net.linear(
        net.op("Relu", net.op("Mul", y, net.op("Gather", table, net.input("more", ["batch", "length"], kind=7)))), 6, 3
    )
    result = graphprune.prune(net.model(y), ratio=0.5)
    cut = {s.result for s in result.plan.slices if s.source == table}
    assert cut == {table}
    assert helpers.constants(result.model.proto)[table].shape == (20, 3)


def test_fills_stay_fills() -> None:
    model = onnx.load(models.packaged("squeezenet-light"))
    pruned = graphprune.prune(model, ratio=0.3).model.proto
    assert pruned.ByteSize() <= model.ByteSize()
    assert [t.name for t in pruned.graph.initializer] == [t.name for t in model.graph.initializer]
    fills = [n for n in pruned.graph.node if n.op_type == "ConstantOfShape"]
    assert len(fills) == sum(n.op_type == "ConstantOfShape" for n in model.graph.node)
    helpers.check(pruned)


def test_constant_nodes_stay_constant_nodes() -> None:
    path = models.packaged("ppocr-v4-cls")
    before, after = onnx.load(path), graphprune.prune(path, ratio=0.3).model.proto
    assert not after.graph.initializer or all(t.data_type == onnx.TensorProto.INT64 for t in after.graph.initializer)
    weights = [{n for n, v in helpers.constants(m).items() if v.ndim > 1} for m in (before, after)]
    assert weights[0] == weights[1] and len(weights[0]) > 50


def test_old_files_that_list_initializers_as_inputs() -> None:
    net = Net(ir_version=3, opset=9)
    y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8))
    model = net.model(net.conv(y, 8, 2))
    pruned = graphprune.prune(model, ratio=0.5).model.proto
    assert [i.name for i in pruned.graph.input] == [i.name for i in model.graph.input]
    helpers.check(pruned)


def test_group_counts_follow() -> None:
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 12)
    model = net.model(net.conv(net.conv(y, 12, 12, group=12), 12, 2))
    result = graphprune.prune(model, ratio=0.25, align=1)
    (change,) = result.plan.attributes
    assert (change.name, change.before, change.after) == ("group", 12, 9)


def test_declared_shapes_follow() -> None:
    model = onnx.shape_inference.infer_shapes(chain())
    pruned = graphprune.prune(model, ratio=0.5).model.proto
    inner = pruned.graph.value_info[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in inner] == ["batch", 4, 8, 8]


def test_declared_shapes_of_constants_behind_aliases_follow() -> None:
    net = Net()
    y = net.op(
        "Add", net.op("MatMul", net.input("x", ["batch", 4]), net.weight(4, 6)), net.op("Identity", net.weight(6))
    )
    model = onnx.shape_inference.infer_shapes(net.model(net.op("MatMul", net.op("Relu", y), net.weight(6, 2))))
    alias = next(n.output[0] for n in model.graph.node if n.op_type == "Identity")
    assert alias in [v.name for v in model.graph.value_info]
    pruned = graphprune.prune(model, ratio=0.5).model.proto
    helpers.check(pruned)
    (shape,) = (v.type.tensor_type.shape for v in pruned.graph.value_info if v.name == alias)
    assert [d.dim_value for d in shape.dim] == [3]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16], ids=str)
def test_other_precisions(dtype: type) -> None:
    net = Net(dtype=dtype)
    y = net.op("Relu", net.op("MatMul", net.input("x", ["batch", 8]), net.weight(8, 12)))
    model = net.model(net.op("MatMul", y, net.weight(12, 4)))
    runs = dtype is not ml_dtypes.bfloat16  # ONNX Runtime's CPU provider has no bfloat16 MatMul
    result = graphprune.prune(model, ratio=0.5, prove=runs)
    assert {v.dtype for v in helpers.constants(result.model.proto).values()} == {np.dtype(dtype)}
    assert [len(v) for v in helpers.constants(result.model.proto).values()] == [8, 6]


def test_external_data_is_cut_and_written_one_tensor_at_a_time(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir(), target.mkdir()
    onnx.save(residual(), source / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    inside = graphprune.prune(residual(), ratio=0.5).model.proto
    result = graphprune.prune(source / "m.onnx", target / "m.onnx", ratio=0.5)
    assert result.model.lazy
    written = onnx.load(target / "m.onnx")
    assert sorted(p.name for p in target.iterdir()) == ["m.onnx", "m.onnx.data", "m.plan.json"]
    expected = helpers.constants(inside)
    assert expected.keys() == helpers.constants(written).keys()
    assert all((v == expected[n]).all() for n, v in helpers.constants(written).items())
    assert result.after.parameters == sum(v.size for v in expected.values())


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        graphprune.prune(residual(), tmp_path / name, ratio=0.4)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a.plan.json").read_bytes() == (tmp_path / "b.plan.json").read_bytes()


def test_a_pruned_model_can_be_pruned_again(tmp_path: Path) -> None:
    first = graphprune.prune(residual(), tmp_path / "a.onnx", ratio=0.5)
    second = graphprune.prune(tmp_path / "a.onnx", ratio=0.5)
    assert second.after.parameters < first.after.parameters
    save(Model(first.model.proto), tmp_path / "c.onnx")
    assert load(tmp_path / "c.onnx").sha256 == load(tmp_path / "a.onnx").sha256


def agrees_with_a_mask_by_hand(model: ModelProto, result: graphprune.Result) -> bool:
    feeds = helpers.random_feeds(model, {"batch": 3})
    masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)
    pairs = zip(masked, helpers.run(result.model.proto, feeds), strict=True)
    return all(helpers.relative(a, b) < 1e-5 for a, b in pairs)


def test_weights_behind_cast_and_transpose_are_cut_where_they_are_kept() -> None:
    net = Net()
    half = net.constant((net.rng.standard_normal((4, 8)) * 0.3).astype(np.float16), "half")
    y = net.op("Relu", net.op("MatMul", net.input("x", ["batch", 4]), net.op("Cast", half, to=1)))
    wide = net.weight(3, 8)
    model = net.model(net.op("MatMul", y, net.op("Transpose", wide)))
    result = graphprune.prune(model, ratio=0.5)
    after = helpers.constants(result.model.proto)
    assert after[half].dtype == np.float16 and after[half].shape == (4, 4) and after[wide].shape == (3, 4)
    assert [n.op_type for n in result.model.graph.node] == [n.op_type for n in model.graph.node]
    assert agrees_with_a_mask_by_hand(model, result)


def test_readers_of_one_transposed_weight_need_not_agree() -> None:
    """Both layers read the same transpose; the first loses inputs, the second outputs."""
    net = Net()
    turned = net.op("Transpose", net.weight(8, 8))
    x = net.input("x", ["batch", 4])
    first = net.op("MatMul", net.op("Relu", net.op("MatMul", x, net.weight(4, 8))), turned)
    second = net.op("MatMul", net.op("Relu", net.op("MatMul", first, turned)), net.weight(8, 2))
    model = net.model(second, net.op("Relu", first))
    with pytest.raises(InputError, match="removal would add a copy"):
        graphprune.prune(model, ratio=0.5)
    analysis = graphprune.analyze(model)
    done = rewrite(analysis, {g.id: [0, 2, 4, 6] for g in analysis.groups if g.size == 8})
    shapes = sorted(helpers.constants(done.model.proto)[s.result].shape for s in done.plan.slices)
    assert shapes == [(4, 2), (4, 4), (4, 8), (8, 4)]
    helpers.check(done.model.proto)
    feeds = helpers.random_feeds(model, {"batch": 2})
    masked = helpers.run(helpers.mask_by_hand(model, done.plan.to_json()), feeds)
    for expected, found in zip(masked, helpers.run(done.model.proto, feeds), strict=True):
        assert helpers.relative(expected, found) < 1e-5


def test_readers_of_one_transposed_weight_may_agree() -> None:
    net = Net()
    turned = net.op("Transpose", net.weight(5, 8))
    hidden = net.op("MatMul", net.input("x", ["batch", 4]), net.weight(4, 8))
    model = net.model(*(net.op("MatMul", net.op(op, hidden), turned) for op in ("Relu", "Tanh")))
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.worst < 1e-5
    assert [s.consumer for s in result.plan.slices if "transpose" in s.consumer][1].startswith(f"{turned}@")
    assert [n.op_type for n in result.model.graph.node].count("Transpose") == 1
    assert agrees_with_a_mask_by_hand(model, result)
    helpers.check(result.model.proto)


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    for node in model.graph.node:
        for side in (node.input, node.output):
            for k, name in enumerate(side):
                side[k] = names.get(name, name)
    for value in model.graph.output:
        value.name = names.get(value.name, value.name)
    return model


def test_outputs_that_are_alike_and_named_like_copies_both_stay() -> None:
    net = Net()
    y = net.linear(net.op("Relu", net.linear(net.input("x", ["batch", 4]), 4, 8)), 8, 3)
    first, second = net.op("Tanh", y), net.op("Tanh", y)
    model = renamed(net.model(first, second), {first: "y@0", second: "y@1"})
    result = graphprune.prune(model, ratio=0.5, prove=False)
    helpers.check(result.model.proto)
    assert [n.output[0] for n in result.model.graph.node][-2:] == ["y@0", "y@1"]
    assert agrees_with_a_mask_by_hand(model, result)


def test_copies_take_no_name_that_the_model_has() -> None:
    """Two readers of one transpose lose different elements, and what a copy would be called is there already."""
    net = Net()
    turned = net.op("Transpose", net.weight(5, 8))
    hidden = [net.linear(net.input(name, ["batch", 4]), 4, 8) for name in ("x", "z")]
    outputs = [net.op("MatMul", net.op("Relu", y), turned) for y in hidden]
    taken = f"{turned}@{outputs[1]}:1"
    last = net.op("Tanh", outputs[1])
    model = renamed(net.model(outputs[0], last), {last: taken})
    analysis = graphprune.analyze(model)
    names = [o for n in analysis.model.nodes for o in n.output]
    assert len(names) == len(set(names)) == len(model.graph.node) + 1
    assert analysis.model.copies == {f"{taken}#2": turned}
    done = rewrite(analysis, {g.id: [k, k + 1] for k, g in enumerate(g for g in analysis.groups if g.size == 8)})
    helpers.check(done.model.proto)
    assert [o.name for o in done.model.graph.output] == [outputs[0], taken]
    assert len([n for n in done.model.graph.node if n.op_type == "Transpose"]) == 2


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_states_of_recurrent_layers_go_with_their_gates(op: str, gates: int, direction: str) -> None:
    net = Net()
    x = net.input("x", [7, "batch", 5])
    y = net.linear(x, 5, 6)  # the input size of the layer is a group as well
    sides = 2 if direction == "bidirectional" else 1
    w, r, b = net.weight(sides, gates * 8, 6), net.weight(sides, gates * 8, 8), net.weight(sides, 2 * gates * 8)
    y = net.op(op, y, w, r, b, hidden_size=8, direction=direction)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, -1))
    model = net.model(net.op("MatMul", y, net.weight(sides * 8, 3)), rank=3)
    analysis = graphprune.analyze(model)
    assert sorted((g.kind, g.size, g.statistical) for g in analysis.groups) == [
        ("state", 6, False),
        ("state", 8, False),
    ]
    result = graphprune.prune(model, ratio=0.5)
    shapes = {n: v.shape for n, v in helpers.constants(result.model.proto).items()}
    assert (shapes[w], shapes[r]) == ((sides, gates * 4, 3), (sides, gates * 4, 4))
    assert [a.name for a in result.plan.attributes] == ["hidden_size"]
    assert agrees_with_a_mask_by_hand(model, result)
    batch = analysis.witness.inputs["x"][1]
    steps = 7 * batch * sides * gates
    assert result.before.macs == 7 * batch * (5 * 6 + sides * 8 * 3) + steps * 8 * (6 + 8)
    assert result.after.macs == 7 * batch * (5 * 3 + sides * 4 * 3) + steps * 4 * (3 + 4)


def test_sizes_that_are_whole_only_by_chance_are_not_divided() -> None:
    """``batch * heads * 4 / 3 / 4`` is the batch; of two heads ``batch * 2 * 4 / 3`` is whole where batch is 3."""
    net = Net()
    x = net.input("x", ["batch", 5, 6])
    split = net.op("Reshape", net.linear(x, 6, 12), net.ints(0, 5, 3, 4))
    merged = net.op("Reshape", net.op("Transpose", split, perm=[0, 2, 1, 3]), net.ints(-1, 5, 4))
    size = net.op("Gather", net.op("Shape", merged), net.constant(np.int64(0)), axis=0)
    for op, number in (("Mul", 4), ("Div", 3), ("Div", 4)):
        size = net.op(op, size, net.constant(np.int64(number)))
    times = net.op("Concat", net.op("Unsqueeze", size, net.ints(0)), net.ints(1, 1), axis=0)
    y = net.op("Add", merged, net.op("Tile", net.weight(3, 5, 4), times))
    y = net.op("Transpose", net.op("Reshape", y, net.ints(-1, 3, 5, 4)), perm=[0, 2, 1, 3])
    model = net.model(net.linear(net.op("Reshape", y, net.ints(0, 5, -1)), 12, 6), rank=3)
    result = graphprune.prune(model, ratio=0.34, input_shapes={"x": (3, 5, 6)})
    assert [(g.size, len(g.removed)) for g in result.plan.groups] == [(3, 1), (4, 1)]
    for batch in (1, 2, 7):
        feeds = helpers.random_feeds(model, {"batch": batch})
        assert helpers.run(result.model.proto, feeds)[0].shape == (batch, 5, 6)
