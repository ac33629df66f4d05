"""Which weights follow 2:4, and which sparse kernels could read, with the reason for those that they could not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from graphprune.analysis import shapes, web
from graphprune.analysis.sparsity import Layer, layers
from graphprune.model import load
from graphprune.model.canonical import canonicalize
from models.small import Net


def found(model: ModelProto, half: bool = True) -> list[Layer]:
    flat = canonicalize(load(model))
    witness = shapes.find_witness(flat)
    return layers(flat, witness, web.build(flat, witness), half)


def sparse(value: np.ndarray, axis: int) -> np.ndarray:
    """Two of every four zero along an axis."""
    index = np.arange(value.shape[axis]) % 4 < 2
    return np.where(np.expand_dims(index, tuple(a for a in range(value.ndim) if a != axis)), value, 0).astype(
        value.dtype
    )


def zeroed(model: ModelProto, name: str, axis: int) -> ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name.startswith(name):
            tensor.CopyFrom(numpy_helper.from_array(sparse(numpy_helper.to_array(tensor), axis), tensor.name))
    return model


def conv(i: int = 16, o: int = 16, group: int = 1) -> ModelProto:
    net = Net()
    return net.model(net.conv(net.input("x", ["batch", i, 8, 8]), i, o, group=group))


def gemm(transposed: bool) -> ModelProto:
    net = Net()
    weight = net.weight(*((16, 32) if transposed else (32, 16)))
    return net.model(net.op("Gemm", net.input("x", ["batch", 32]), weight, transB=int(transposed)))


def behind(*operators: tuple[str, dict[str, Any]]) -> ModelProto:
    """A product with a weight that is computed."""
    net = Net(dtype=np.float32)
    weight = net.weight(16, 32)
    for kind, attributes in operators:
        weight = net.op(kind, weight, **attributes)
    return net.model(net.op("MatMul", net.input("x", ["batch", 32]), weight))


@pytest.mark.parametrize(
    ("model", "weight", "axis"),
    [
        (conv(), "conv", 1),
        (gemm(True), "w", 1),
        (gemm(False), "w", 0),
        (behind(("Transpose", {"perm": [1, 0]})), "w", 1),
        (behind(("Transpose", {"perm": [1, 0]}), ("Cast", {"to": TensorProto.FLOAT})), "w", 1),
    ],
)
def test_the_axis_is_the_one_that_is_summed_over(model: ModelProto, weight: str, axis: int) -> None:
    (dense,) = found(model)
    assert dense.eligible and not dense.sparse
    (right,) = found(zeroed(model, weight, axis))
    assert right.sparse and right.eligible


def test_zeros_along_the_other_axis_are_named() -> None:
    (wrong,) = found(zeroed(conv(), "conv", 0))
    assert not wrong.sparse and [r.text for r in wrong.reasons] == [
        "its zeros lie along axis 0, and the sum runs along axis 1"
    ]


@pytest.mark.parametrize(
    ("model", "half", "reason"),
    [
        (conv(), False, "its type is float32, and sparse kernels want float16, bfloat16 or 8 bits"),
        (conv(12), True, "it sums over 12, no multiple of 16"),
        (conv(16, 12), True, "it has 12 outputs, no multiple of 8"),
        (conv(32, 32, 2), True, "it has 2 groups"),
    ],
)
def test_why_not(model: ModelProto, half: bool, reason: str) -> None:
    (layer,) = found(model, half)
    assert [r.text for r in layer.reasons] == [reason]


def test_products_of_activations_are_no_layers_and_recurrent_ones_are_said_to_be() -> None:
    net = Net()
    x = net.input("x", ["batch", 16, 16])
    assert found(net.model(net.op("MatMul", x, x))) == []
    net = Net()
    y = net.op("LSTM", net.input("x", [3, "batch", 16]), net.weight(1, 64, 16), net.weight(1, 64, 16), hidden_size=16)
    assert all(any("several products" in r.text for r in layer.reasons) for layer in found(net.model(y)))


def test_eight_bits_want_wider_sums() -> None:
    net = Net()
    weight = net.constant(np.random.default_rng(0).integers(-9, 9, (48, 16)).astype(np.int8))
    w = net.op("DequantizeLinear", weight, net.constant(np.float32(0.1)), net.constant(np.int8(3)))
    model = net.model(net.op("MatMul", net.input("x", ["batch", 48]), w))
    (layer,) = found(model, False)
    assert [r.text for r in layer.reasons] == ["it sums over 48, no multiple of 32"] and not layer.sparse


def test_quantised_zero_is_the_zero_point() -> None:
    """A weight of int8 that is sparse once it is dequantised."""
    net = Net()
    value = sparse(np.random.default_rng(0).integers(4, 9, (64, 16)).astype(np.int8), 0)
    weight = net.constant(np.where(value == 0, 3, value).astype(np.int8))
    w = net.op("DequantizeLinear", weight, net.constant(np.float32(0.1)), net.constant(np.int8(3)))
    (layer,) = found(net.model(net.op("MatMul", net.input("x", ["batch", 64]), w)), False)
    assert layer.sparse and layer.eligible
