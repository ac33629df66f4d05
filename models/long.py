"""Long graphs of several shapes, with tiny weights: for what must be linear in the number of nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from models.small import Net


def _finished(net: Net, output: str, rank: int) -> ModelProto:
    """The model; shapes are not inferred, which would take longer than to prune it."""
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(net.nodes, "long", net.inputs, [value], net.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", net.opset)], ir_version=net.ir_version)


def chain(nodes: int) -> ModelProto:
    """Convolutions with ReLUs between: a group for each."""
    net = Net()
    y = net.input("x", ["batch", 4, 4, 4])
    for _ in range(nodes // 2):
        y = net.op("Relu", net.conv(y, 4, 4, k=1))
    return _finished(net, y, 4)


def residual(nodes: int) -> ModelProto:
    """Residual blocks on one stream, which is one group that all of them reach."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8, k=1))
    for _ in range(nodes // 4):
        z = net.op("Relu", net.conv(y, 8, 8, k=1))
        y = net.op("Add", y, net.conv(z, 8, 8, k=1))
    return _finished(net, net.conv(y, 8, 2, k=1), 4)


def transformer(nodes: int) -> ModelProto:
    """Layers of attention with two heads and a feed-forward part, each behind a norm."""
    net, width, heads = Net(), 8, 2
    y = net.op("MatMul", net.input("x", ["batch", 5, 3]), net.weight(3, width))
    apart, whole = net.ints(0, 0, heads, width // heads), net.ints(0, 0, width)

    def normed(of: str) -> str:
        return str(net.op("LayerNormalization", of, net.weight(width), net.weight(width), axis=-1))

    for _ in range(nodes // 24):
        z = normed(y)
        q, k, v = (net.op("Reshape", net.linear(z, width, width), apart) for _ in range(3))
        q, v = (net.op("Transpose", one, perm=[0, 2, 1, 3]) for one in (q, v))
        shares = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 3, 1])), axis=-1)
        z = net.op("Transpose", net.op("MatMul", shares, v), perm=[0, 2, 1, 3])
        y = net.op("Add", y, net.linear(net.op("Reshape", z, whole), width, width))
        z = net.op("Relu", net.linear(normed(y), width, 16))
        y = net.op("Add", y, net.linear(z, 16, width))
    return _finished(net, net.op("MatMul", y, net.weight(width, 3)), 3)


def elementwise(nodes: int) -> ModelProto:
    """One group of 8 channels that passes through all nodes."""
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8, k=1)
    for k in range(nodes):
        y = net.op(("Relu", "Sigmoid", "Tanh", "Neg")[k % 4], y)
    return _finished(net, net.conv(y, 8, 2, k=1), 4)


def constants(nodes: int) -> ModelProto:
    """The same with tiny constants, each made by a node."""
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8, k=1)
    for k in range(nodes // 2):
        value = numpy_helper.from_array(np.full((8, 1, 1), 1 + k * 1e-6, np.float32))
        y = net.op("Mul" if k % 2 else "Add", y, net.op("Constant", value=value))
    return _finished(net, net.conv(y, 8, 2, k=1), 4)


def sums(nodes: int) -> ModelProto:
    """One Sum of as many branches as there are."""
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    ends = [net.op("Relu", net.conv(x, 3, 4, k=1)) for _ in range(nodes // 2)]
    return _finished(net, net.conv(net.op("Sum", *ends), 4, 2, k=1), 4)


def concat(nodes: int) -> ModelProto:
    """One Concat of as many branches as there are."""
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    ends = [net.op("Relu", net.conv(x, 3, 4, k=1)) for _ in range(nodes // 2)]
    return _finished(net, net.conv(net.op("Concat", *ends, axis=1), 4 * len(ends), 2, k=1), 4)


def identities(nodes: int) -> ModelProto:
    """A chain of nothing."""
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8, k=1)
    for _ in range(nodes):
        y = net.op("Identity", y)
    return _finished(net, net.conv(y, 8, 2, k=1), 4)


LONG: dict[str, Callable[[int], ModelProto]] = {
    one.__name__: one for one in (chain, residual, transformer, elementwise, constants, sums, concat, identities)
}
"""Each takes about how many nodes there are to be."""
