"""Where the elements of a weight come from that nodes compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from graphprune.analysis import shapes, web
from graphprune.analysis.origins import Lost, Origin, origin, readers
from graphprune.analysis.web import Web
from graphprune.model import Model, load
from graphprune.model.canonical import canonicalize
from graphprune.run.runtime import fold_constants
from models.small import Net


def reader(model: ModelProto) -> tuple[Model, Web, int]:
    """The model, and the node that reads the weight: the last."""
    flat = canonicalize(load(model))
    return flat, web.build(flat, shapes.find_witness(flat)), len(flat.nodes) - 1


def found(model: ModelProto) -> Origin:
    flat, net, node = reader(model)
    return origin(flat, net.relations, node, 1)


def read(model: ModelProto) -> np.ndarray:
    flat, _, node = reader(model)
    name = flat.nodes[node].input[1]
    return np.asarray(flat.array(name) if name in flat.sources else fold_constants(flat, [name])[name])


def behind(*operators: tuple[str, dict[str, Any]], shape: tuple[int, ...] = (16, 32)) -> ModelProto:
    net = Net()
    weight = net.weight(*shape)
    for kind, given in operators:
        attributes, operands = dict(given), []
        for value in attributes.pop("operands", []):
            operands.append(net.constant(value))
        weight = net.op(kind, weight, *operands, **attributes)
    return net.model(net.op("MatMul", net.input("x", ["batch", 32]), weight))


def quantised(zero: Any, scale: Any, axis: int = 1, move: bool = False) -> ModelProto:
    net = Net()
    value = np.random.default_rng(0).integers(-99, 99, (16, 32) if move else (32, 16)).astype(np.int8)
    weight = net.constant(value)
    if move:
        weight = net.op("Transpose", weight, perm=[1, 0])
    weight = net.op("DequantizeLinear", weight, net.constant(scale), net.constant(zero), axis=axis)
    return net.model(net.op("MatMul", net.input("x", ["batch", 32]), weight))


CHAINS = {
    "direct": behind(shape=(32, 16)),
    "transposed": behind(("Transpose", {"perm": [1, 0]})),
    "converted": behind(("Cast", {"to": TensorProto.FLOAT16}), ("Cast", {"to": TensorProto.FLOAT}), shape=(32, 16)),
    "reshaped": behind(("Reshape", {"operands": [np.array([32, 16])]}), shape=(4, 8, 16)),
    "squeezed": behind(("Squeeze", {"operands": [np.array([0])]}), shape=(1, 32, 16)),
    "turned, then reshaped": behind(
        ("Transpose", {"perm": [2, 0, 1]}), ("Reshape", {"operands": [np.array([32, 16])]}), shape=(4, 4, 32)
    ),
    "scaled": behind(("Mul", {"operands": [np.float32(2) * np.ones((1, 16), np.float32)]}), shape=(32, 16)),
    "part of it": behind(
        ("Slice", {"operands": [np.array([0]), np.array([32]), np.array([0])]}), shape=(40, 16)
    ),
    "quantised": quantised(np.int8(3), np.float32(0.1)),
    "quantised by column": quantised(
        np.arange(16).astype(np.int8), np.linspace(0.1, 1, 16).astype(np.float32)
    ),
    "quantised, transposed": quantised(
        np.arange(16).astype(np.int8), np.linspace(0.1, 1, 16).astype(np.float32), move=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_written_as_zero_is_read_as_zero_and_nothing_else_changes(name: str) -> None:
    model = CHAINS[name]
    held, before = found(model), read(model)
    flat = reader(model)[0]
    gone = np.random.default_rng(1).random(before.shape) < 0.4
    written = held.write(np.asarray(flat.array(held.source)), gone)
    for tensor in model.graph.initializer:
        if tensor.name == held.source:
            assert written.dtype == numpy_helper.to_array(tensor).dtype
            changed = ModelProto()
            changed.CopyFrom(model)
            place = [t.name for t in model.graph.initializer].index(held.source)
            changed.graph.initializer[place].CopyFrom(numpy_helper.from_array(written, held.source))
    after = read(changed)
    assert (after[gone] == 0).all()
    np.testing.assert_array_equal(after[~gone], before[~gone])


def test_alike_layouts_need_no_order() -> None:
    assert found(CHAINS["direct"]).order is None and found(CHAINS["quantised"]).order is None
    assert found(CHAINS["transposed"]).order is not None


@pytest.mark.parametrize(
    "operator", [("Add", {"operands": [np.ones((32, 16), np.float32)]}), ("Softmax", {}), ("Exp", {})]
)  # fmt: skip
def test_what_makes_more_of_a_weight_is_named(operator: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(Lost, match=operator[0]):
        found(behind(operator, shape=(32, 16)))


@pytest.mark.parametrize("op", ["Reciprocal", "Log"])
def test_a_constant_that_only_divides_is_lost_in_words(op: str) -> None:
    """Zeros of such a constant are zeros of nothing; it was an error of the program."""
    with pytest.raises(Lost, match=rf"\({op}\) computes it in a way that cannot be followed"):
        found(behind((op, {}), shape=(32, 16)))


def test_readers_of_a_constant_are_found_by_all_its_names() -> None:
    net = Net()
    x = net.input("x", ["batch", 4])
    weight = net.weight(4, 4)
    again = net.op("Identity", weight)
    y = net.op("MatMul", net.op("MatMul", x, weight), net.op("Identity", again))
    model = load(net.model(y))
    found, beyond = readers(model, weight)
    assert [(model.nodes[use.node].op_type, use.input) for use in found] == [("MatMul", 1)] * 2 and not beyond
    model = load(net.model(y, again))
    assert readers(model, weight)[1], "the graph gives it out"
