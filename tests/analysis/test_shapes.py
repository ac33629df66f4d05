import numpy as np
import pytest
from onnx import helper

from graphprune.analysis import shapes
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.run import sizing
from graphprune.run.runtime import generate
from models.small import Net, attention


def test_free_dims_get_primes_that_nothing_else_has() -> None:
    witness = shapes.find_witness(load(attention()))
    batch, length, width = witness.inputs["x"]
    assert width == 24 and len({batch, length, width}) == 3
    second = witness.second.inputs["x"]
    assert second[0] != batch and second[1] != length and second[2] == width


def test_dims_of_every_kind_from_the_wild_are_free() -> None:
    net = Net()
    x = net.input("x", [0, 3, "?", None])
    model = net.model(net.op("Relu", x))
    dim = model.graph.input[0].type.tensor_type.shape.dim
    dim[0].dim_value = -1
    assert sizing.free_dims(load(model))["x"] == ["x.0", 3, "x.2", "x.3"]


def test_values_that_depend_on_free_dims_are_told_from_those_that_do_not() -> None:
    model = load(attention(heads=4, size=8))
    witness = shapes.find_witness(model)
    target = next(n.input[1] for n in model.nodes if n.op_type == "Reshape")
    value, static = witness.value(target), witness.static(target)
    assert value is not None and static is not None
    assert static.tolist() == [False, False, True, True]
    assert value.tolist() == [*witness.inputs["x"][:2], 4, 8]


def test_sizes_are_found_where_primes_do_not_run() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, "height", "width"])
    y = net.conv(x, 3, 4)
    down = net.op(
        "MaxPool", net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), kernel_shape=[2, 2], strides=[2, 2]
    )
    up = net.op("Resize", down, "", net.constant(np.array([1, 1, 4, 4], np.float32)))
    witness = shapes.find_witness(load(net.model(net.op("Add", y, up))))
    assert witness.inputs["x"][2] % 4 == 0 and witness.inputs["x"][3] % 4 == 0


def test_a_model_that_runs_at_no_size_asks_for_one() -> None:
    net = Net()
    x = net.input("x", ["batch", "length"])
    model = load(net.model(net.op("MatMul", x, net.weight(1234, 2))))
    with pytest.raises(InputError, match=r"--input-shape x=NxN") as error:
        shapes.find_witness(model)
    assert "node_MatMul" in str(error.value)
    assert shapes.find_witness(model, {"x": (2, 1234)}).inputs["x"] == (2, 1234)


def test_given_shapes_are_the_witness_and_their_free_dims_still_vary() -> None:
    witness = shapes.find_witness(load(attention()), {"x": (1, 10, 24)})
    assert witness.inputs["x"] == (1, 10, 24)
    assert witness.second.inputs["x"] == (2, 20, 24)


@pytest.mark.parametrize(("given", "message"), [({"y": (1,)}, "names 'y'"), ({"x": (1, 2, 3)}, "does not fit")])
def test_given_shapes_that_do_not_fit(given: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shapes.find_witness(load(attention()), given)


def test_what_inference_leaves_open_is_recorded_from_a_run() -> None:
    net = Net()
    x = net.input("x", ["batch", 8])
    # ONNX knows no com.microsoft operators, so only a run can tell
    y = net.op("BiasGelu", x, net.weight(8), domain="com.microsoft")
    out = net.op("MatMul", y, net.weight(8, 3))
    witness = shapes.find_witness(load(net.model(out, domains=["com.microsoft"])))
    assert witness.shape(y) == (witness.inputs["x"][0], 8)
    assert witness.shape(out) == (witness.inputs["x"][0], 3)
    assert not witness.first.holes


def test_a_hole_that_no_run_can_fill_is_explained() -> None:
    net = Net()
    y = net.op("Strange", net.input("x", [2, 8]), domain="com.example")
    witness = shapes.find_witness(load(net.model(net.op("Relu", y), domains=["com.example"])))
    assert witness.shape(y) is None
    first, second = witness.first.holes.values()
    assert "com.example:Strange is unknown to shape inference" in first and "ONNX Runtime cannot run it" in first
    assert y in second


def test_inputs_that_are_no_tensors_pin_what_reads_them() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", 1, [None])
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["s"], ["n"])], "g", [sequence], [helper.make_tensor_value_info("n", 7, [])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    witness = shapes.find_witness(load(model))
    assert witness.shape("n") is None and witness.shape("s") is None
    with pytest.raises(InputError, match="input 's' is no tensor"):
        generate(load(model), witness.inputs)
