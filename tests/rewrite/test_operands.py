"""Shape operands and frozen values: each case is pruned, proven, and run at sizes that the witness did not have."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import graphprune
from models.small import Net, attention
from tests import helpers

SIZES = {"batch": 2, "sequence": 6, "length": 6}


def prune(model: ModelProto, ratio: float = 0.5) -> ModelProto:
    """Prune; compare with a mask made by hand, at sizes of our own."""
    helpers.check(model)
    result = graphprune.prune(model, ratio=ratio)
    assert result.plan.groups and result.proof is not None and result.proof.worst < 1e-4
    pruned = result.model.proto
    helpers.check(pruned)
    feeds = helpers.random_feeds(model, SIZES)
    masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)
    for expected, found in zip(masked, helpers.run(pruned, feeds), strict=True):
        assert helpers.relative(expected, found) < 1e-4
    return pruned


def head_net(reshape: Callable[[Net, str, str], str], heads: int = 4, size: int = 6) -> ModelProto:
    """A projection, reshaped to heads by the case, weighted per head dim, and projected back."""
    net = Net()
    x = net.input("x", ["batch", "length", 5])
    y = net.linear(x, 5, heads * size)
    y = reshape(net, y, x)
    y = net.op("Mul", y, net.weight(1, 1, heads, size))
    y = net.op("Reshape", y, net.ints(0, 0, -1))
    return net.model(net.op("MatMul", y, net.weight(heads * size, 3)))


def test_literal_entries_follow() -> None:
    pruned = prune(head_net(lambda net, y, x: net.op("Reshape", y, net.ints(0, 0, 4, 6))))
    assert [n.op_type for n in pruned.graph.node].count("Reshape") == 2


def test_minus_one_goes_on_being_inferred() -> None:
    pruned = prune(head_net(lambda net, y, x: net.op("Reshape", y, net.ints(0, 0, 4, -1))))
    reshape = next(n for n in pruned.graph.node if n.op_type == "Reshape")
    assert helpers.constants(pruned)[reshape.input[1]].tolist() == [0, 0, 2, -1]


def test_computed_entries_stay_computed() -> None:
    def reshape(net: Net, y: str, x: str) -> str:
        lead = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2))
        return net.op("Reshape", y, net.op("Concat", lead, net.ints(4), net.ints(6), axis=0))

    model = head_net(reshape)
    assert len(prune(model).graph.node) == len(model.graph.node), "the Concat takes new constants; nothing is added"


def test_entries_cut_from_one_vector_are_written_out() -> None:
    def reshape(net: Net, y: str, x: str) -> str:
        whole = net.op("Add", net.op("Concat", net.op("Shape", x, end=2), net.ints(4, 6), axis=0), net.ints(0, 0, 0, 0))
        return net.op("Reshape", y, whole)

    prune(head_net(reshape))


def test_sizes_divided_from_the_width_are_frozen_and_then_follow() -> None:
    """``y.view(b, s, heads, width // heads)`` with the width read from the tensor: 24 / 4, not 12 / 4."""

    def reshape(net: Net, y: str, x: str) -> str:
        width = net.op("Shape", y, start=2)
        size = net.op("Div", width, net.ints(4))
        lead = net.op("Shape", x, end=2)
        return net.op("Reshape", y, net.op("Concat", lead, net.ints(4), size, axis=0))

    prune(head_net(reshape))


def test_an_attention_scale_computed_from_the_head_size_stays() -> None:
    pruned = prune(attention(heads=4, size=8, scale_from_shape=True))
    divide = next(n for n in pruned.graph.node if n.op_type == "Div")
    assert helpers.constants(pruned)[divide.input[1]] == pytest.approx(8**0.5)


def test_attention_with_literal_scale() -> None:
    prune(attention(heads=4, size=8), ratio=0.25)


def test_a_free_size_times_a_pruned_one() -> None:
    """A flat view of sequence times width: the product depends on both."""
    net = Net()
    x = net.input("x", ["batch", "length", 5])
    y = net.linear(x, 5, 8)
    shape = net.op("Shape", y)
    product = net.op(
        "Mul", net.op("Slice", shape, net.ints(1), net.ints(2)), net.op("Slice", shape, net.ints(2), net.ints(3))
    )
    flat = net.op("Reshape", y, net.op("Concat", net.ints(0), product, axis=0))
    back = net.op("Reshape", net.op("Relu", flat), net.op("Concat", net.op("Shape", x, end=2), net.ints(-1), axis=0))
    prune(net.model(net.op("MatMul", back, net.weight(8, 3))))


def test_a_mean_over_a_frozen_count() -> None:
    net = Net()
    x = net.input("x", ["batch", "length", 5])
    y = net.op("Relu", net.linear(x, 5, 8))
    count = net.op("Cast", net.op("Shape", y, start=2), to=TensorProto.FLOAT)
    mean = net.op("Div", net.op("ReduceSum", y, net.ints(2), keepdims=1), count)
    prune(net.model(net.op("MatMul", net.op("Add", y, mean), net.weight(8, 3))))


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_split(opset: int) -> None:
    net = Net(opset=opset)
    y = net.linear(net.input("x", ["batch", 5]), 5, 12)
    attributes = {"num_outputs": 2} if opset == 18 else {}
    a, b = net.op("Split", y, outputs=2, axis=1, **attributes)
    model = net.model(net.op("Add", net.op("MatMul", a, net.weight(6, 3)), net.op("MatMul", b, net.weight(6, 3))))
    pruned = prune(model, 0.34)
    assert {n.op_type for n in pruned.graph.node} == {"MatMul", "Add", "Split"}


def test_a_split_whose_outputs_come_to_differ_gets_explicit_sizes() -> None:
    net = Net(opset=18)
    y = net.linear(net.input("x", ["batch", 5]), 5, 12)
    a, b = net.op("Split", y, outputs=2, axis=1, num_outputs=2)
    model = net.model(net.op("Add", net.op("MatMul", a, net.weight(6, 3)), net.op("MatMul", b, net.weight(6, 3))))
    result = graphprune.prune(model, ratio=0.5, include=[graphprune.analyze(model).groups[0].id])
    split = next(n for n in result.model.graph.node if n.op_type == "Split")
    assert helpers.constants(result.model.proto)[split.input[1]].tolist() == [3, 6]
    assert not [a for a in split.attribute if a.name == "num_outputs"]
    helpers.check(result.model.proto)


def test_slices_with_one_step_and_with_many() -> None:
    net = Net()
    y = net.linear(net.input("x", ["batch", 5]), 5, 12)
    halves = [net.op("Slice", y, net.ints(a), net.ints(b), net.ints(1)) for a, b in ((0, 6), (6, 2**31))]
    strided = [net.op("Slice", y, net.ints(a), net.ints(12), net.ints(1), net.ints(2)) for a in (0, 1)]
    reverse = net.op("Slice", y, net.ints(-1), net.ints(-(2**31)), net.ints(1), net.ints(-1))
    outputs = [net.op("MatMul", part, net.weight(6, 3)) for part in halves + strided]
    prune(net.model(*outputs, net.op("MatMul", reverse, net.weight(12, 3))), 0.4)


def test_gathers_expands_tiles_and_pads() -> None:
    net = Net()
    x = net.input("x", ["batch", 5])
    y = net.linear(x, 5, 6)
    picked = net.op("Gather", y, net.ints(5, 0, 3, -3), axis=1)
    tiled = net.op("Tile", y, net.ints(1, 3))
    padded = net.op("Pad", y, net.ints(0, 1, 0, 2))
    wide = net.op(
        "Expand",
        net.op("Unsqueeze", y, net.ints(1)),
        net.op("Concat", net.op("Shape", x, end=1), net.ints(4, 6), axis=0),
    )
    outputs = [net.op("MatMul", t, net.weight(n, 3)) for t, n in ((picked, 4), (tiled, 18), (padded, 9), (wide, 6))]
    prune(net.model(*outputs))


def test_a_size_that_the_model_reports_is_not_changed_in_silence() -> None:
    net = Net()
    y = net.linear(net.input("x", ["batch", 5]), 5, 6)
    out, size = net.op("MatMul", y, net.weight(6, 3)), net.op("Shape", y)
    model = net.model(out)
    model.graph.output.append(helper.make_tensor_value_info(size, TensorProto.INT64, [2]))
    with pytest.raises(graphprune.InputError, match="reports a size"):
        graphprune.prune(model, ratio=0.5)


def test_resize_keeps_its_channels() -> None:
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 6)
    sizes = net.op("Concat", net.op("Shape", y, end=2), net.ints(8, 8), axis=0)
    up = net.op("Resize", y, "", "", sizes, mode="nearest")
    prune(net.model(net.conv(up, 6, 2)))


def test_resize_to_literal_sizes() -> None:
    net = Net()
    y = net.conv(net.input("x", [2, 3, 4, 4]), 3, 6)
    up = net.op("Resize", y, "", "", net.ints(2, 6, 8, 8), mode="nearest")
    pruned = prune(net.model(net.conv(up, 6, 2)))
    resize = next(n for n in pruned.graph.node if n.op_type == "Resize")
    assert helpers.constants(pruned)[resize.input[3]].tolist() == [2, 3, 8, 8]


def test_values_of_other_types_stay_what_they_are() -> None:
    pruned = prune(attention(scale_from_shape=True))
    assert all(v.dtype in (np.float32, np.int64) for v in helpers.constants(pruned).values())


def heads_in_batch(entry: Callable[[Net, str], str]) -> ModelProto:
    """Attention with heads folded into the batch: an axis of batch times heads, as some exporters compute it."""
    net = Net()
    x = net.input("x", ["batch", "length", 5])
    batch, length = net.op("Shape", x, end=1), net.op("Shape", x, start=1, end=2)
    y = net.op("Reshape", net.linear(x, 5, 24), net.ints(0, 0, 4, 6))
    y = net.op("Transpose", y, perm=[0, 2, 1, 3])
    folded = net.op("Concat", entry(net, batch), length, net.ints(6), axis=0)
    y = net.op("Softmax", net.op("Reshape", y, folded), axis=1)
    y = net.op("Expand", y, folded)
    y = net.op("Reshape", y, net.op("Concat", batch, net.ints(4), length, net.ints(6), axis=0))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 24))
    return net.model(net.op("MatMul", y, net.weight(24, 3)))


def test_a_free_size_times_a_literal_that_shrinks() -> None:
    pruned = prune(heads_in_batch(lambda net, batch: net.op("Mul", batch, net.ints(4))))
    assert {"Mul", "Div"} <= {n.op_type for n in pruned.graph.node}, "an Expand cannot infer a size"


def test_an_entry_that_can_be_inferred_is_left_to_the_others() -> None:
    pruned = prune(heads_in_batch(lambda net, batch: net.op("Mul", batch, net.ints(4))), 0.5)
    reshapes = [n for n in pruned.graph.node if n.op_type == "Reshape"]
    makers = {n.output[0]: n for n in pruned.graph.node}
    constants = helpers.constants(pruned)
    first = [constants[i].tolist() for i in makers[reshapes[1].input[1]].input if i in constants]
    assert [-1] in first


@pytest.mark.parametrize("scalar", [False, True])
def test_a_batch_divided_back_out_of_a_folded_axis(scalar: bool) -> None:
    """``x.shape[0] // heads`` of an axis of batch times heads: 4 * batch // 4, not 3 * batch // 4."""
    net = Net()
    x = net.input("x", ["batch", "length", 5])
    length = net.op("Shape", x, start=1, end=2)
    y = net.op("Transpose", net.op("Reshape", net.linear(x, 5, 24), net.ints(0, 0, 4, 6)), perm=[0, 2, 1, 3])
    y = net.op("Softmax", net.op("Reshape", y, net.op("Concat", net.ints(-1), length, net.ints(6), axis=0)), axis=1)
    if scalar:
        first = net.op("Gather", net.op("Shape", y), net.constant(np.int64(0)))
        batch = net.op("Unsqueeze", net.op("Div", first, net.constant(np.int64(4))), net.ints(0))
    else:
        batch = net.op("Div", net.op("Shape", y, end=1), net.ints(4))
    y = net.op("Reshape", y, net.op("Concat", batch, net.ints(4), length, net.ints(6), axis=0))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 24))
    prune(net.model(net.op("MatMul", y, net.weight(24, 3))), 0.25)


def test_a_size_that_a_subgraph_reports_stays_what_it_was() -> None:
    net = Net()
    y = net.linear(net.input("x", ["batch", 5]), 5, 6)
    out = net.op("MatMul", y, net.weight(6, 3))
    size = net.op("Shape", y)
    branch = helper.make_graph(
        [helper.make_node("Cast", [size], ["sizes"], to=TensorProto.FLOAT)],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("sizes")],
    )
    net.nodes.append(
        helper.make_node("If", [net.constant(np.array(True))], ["report"], then_branch=branch, else_branch=branch)
    )
    model = net.model(out, "report")
    result = graphprune.prune(model, ratio=0.5)
    assert result.plan.groups
    assert helpers.run(result.model.proto, helpers.random_feeds(model, {"batch": 2}))[1].tolist() == [2, 6]


@pytest.mark.parametrize("op", ["Split", "Slice"])
def test_an_empty_piece_goes_with_what_it_is_cut_from(op: str) -> None:
    """What is left of a head that is rotated as a whole; of a single element it is an axis that no dim describes."""
    net = Net(opset=18)
    y = net.linear(net.input("x", ["batch", 4]), 4, 6)
    if op == "Split":
        empty, y = net.op("Split", y, net.ints(0, 6), outputs=2, axis=1)
    else:
        empty = net.op("Slice", y, net.ints(-3), net.ints(3), net.ints(1))
    prune(net.model(net.linear(net.op("Concat", y, net.op("Relu", empty), axis=1), 6, 2)))


def test_a_constant_without_elements_keeps_its_zero() -> None:
    """A zero is no size to copy, as it is in Reshape."""
    net = Net(opset=18)
    y = net.linear(net.input("x", ["batch", 4]), 4, 8)
    rest = net.op("ConstantOfShape", net.op("Concat", net.ints(0), net.op("Shape", y, start=1), axis=0))
    prune(net.model(net.linear(net.op("Concat", y, rest, axis=0), 8, 2)))


def test_center_crop_keeps_the_width_that_is_left() -> None:
    net = Net(opset=18)
    y = net.linear(net.input("x", ["batch", 5, 4]), 4, 8)
    prune(net.model(net.linear(net.op("CenterCropPad", y, net.ints(3, 8), axes=[1, 2]), 8, 2)))


def test_sizes_that_are_read_as_numbers_are_no_channels() -> None:
    net = Net()
    y = net.linear(net.input("x", [2, 4]), 4, 8)
    sizes = net.op("Cast", net.op("Shape", y), to=TensorProto.FLOAT)
    pruned = prune(net.model(net.linear(y, 8, 2), net.op("MatMul", sizes, net.weight(2, 3))))
    assert sorted(tuple(t.dims) for t in pruned.graph.initializer if len(t.dims) == 2) == [(2, 3), (4, 2), (4, 4)]


def test_the_size_of_a_constant_that_is_cut_is_looked_at_as_it_is_read() -> None:
    net = Net()
    sizes = net.op("Shape", net.weight(6, 8))
    model = helper.make_model(
        helper.make_graph(
            net.nodes, "sizes", [], [helper.make_tensor_value_info(sizes, TensorProto.INT64, [2])], net.initializers
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(graphprune.InputError, match="reports a size that the removal changes"):
        graphprune.prune(model, ratio=0.5)
