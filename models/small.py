"""Small graphs written by hand, and a builder for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference


class Net:
    """Builds a graph step by step; every method returns the name of the tensor that it makes.

    Args:
        seed: of the weights.
        opset: version of ONNX's operators.
        dtype: of the weights.
    """

    def __init__(self, seed: int = 0, opset: int = 17, dtype: Any = np.float32, ir_version: int = 8) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset, self.dtype, self.ir_version = opset, dtype, ir_version
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[Any] = []
        self.count = 0

    def name(self, stem: str) -> str:
        """A fresh name."""
        self.count += 1
        return f"{stem}_{self.count}"

    def input(self, name: str, shape: Sequence[int | str], kind: int | None = None) -> str:
        """An input; strings are free dims."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)) if kind is None else kind
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: Any, stem: str = "c") -> str:
        """An initializer with the given value."""
        name = self.name(stem)
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64), "i")

    def weight(self, *shape: int, stem: str = "w") -> str:
        """A random weight."""
        return self.constant(self.rng.standard_normal(shape).astype(self.dtype) * self.dtype(0.3), stem)

    def op(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Any node; a list of names where it has several outputs."""
        names = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), names, name=self.name(f"node_{kind}"), domain=domain, **attributes)
        )
        return names[0] if outputs == 1 else names

    def conv(self, x: str, i: int, o: int, k: int = 3, group: int = 1, bias: bool = True, **attributes: Any) -> str:
        """A convolution that keeps height and width."""
        inputs = [x, self.weight(o, i // group, k, k, stem="conv")]
        if bias:
            inputs.append(self.weight(o, stem="bias"))
        pads = [k // 2] * 4
        return str(self.op("Conv", *inputs, group=group, pads=pads, kernel_shape=[k, k], **attributes))

    def linear(self, x: str, i: int, o: int, bias: bool = True) -> str:
        """A MatMul with a weight, and a bias."""
        y = str(self.op("MatMul", x, self.weight(i, o)))
        return str(self.op("Add", y, self.weight(o, stem="bias"))) if bias else y

    def batch_norm(self, x: str, c: int) -> str:
        """A batch normalisation with statistics of its own."""
        scale, shift, mean = (self.weight(c, stem="bn") for _ in range(3))
        variance = self.constant(self.rng.random(c).astype(self.dtype) + self.dtype(0.5), "var")
        return str(self.op("BatchNormalization", x, scale, shift, mean, variance))

    def model(self, *outputs: str, domains: Sequence[str] = (), rank: int | None = None) -> ModelProto:
        """The finished model."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        values = [helper.make_tensor_value_info(o, kind, None if rank is None else [None] * rank) for o in outputs]
        inputs = list(self.inputs)
        if self.ir_version < 4:  # there, initializers must be inputs
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.initializers]
        graph = helper.make_graph(self.nodes, "small", inputs, values, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version, producer_name="models.small")
        for output, inferred in zip(made.graph.output, shape_inference.infer_shapes(made).graph.output, strict=True):
            for _ in inferred.type.tensor_type.shape.dim if rank is None else ():  # the checker asks for a rank
                output.type.tensor_type.shape.dim.add()
        return made


def chain() -> ModelProto:
    """Two convolutions with a ReLU between: one group of 8 channels."""
    net = Net()
    x = net.input("x", ["batch", 3, 8, 8])
    y = net.op("Relu", net.conv(x, 3, 8))
    return net.model(net.conv(y, 8, 4))


def residual() -> ModelProto:
    """A stem, two residual blocks on its stream, and a classifier."""
    net = Net(1)
    x = net.input("x", ["batch", 3, 8, 8])
    y = net.op("Relu", net.batch_norm(net.conv(x, 3, 16, bias=False), 16))
    for _ in range(2):
        z = net.op("Relu", net.batch_norm(net.conv(y, 16, 12, bias=False), 12))
        y = net.op("Relu", net.op("Add", y, net.batch_norm(net.conv(z, 12, 16, bias=False), 16)))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model(net.op("Gemm", y, net.weight(10, 16), net.weight(10), transB=1))


def attention(heads: int = 4, size: int = 8, width: int = 24, scale_from_shape: bool = False) -> ModelProto:
    """Self-attention with separate projections; the scale is computed from the head size where asked."""
    net = Net(2)
    x = net.input("x", ["batch", "sequence", width])
    batch = net.op("Shape", x, start=0, end=1)
    length = net.op("Shape", x, start=1, end=2)
    target = net.op("Concat", batch, length, net.ints(heads), net.ints(size), axis=0)
    q, k, v = (net.op("Reshape", net.linear(x, width, heads * size), target) for _ in range(3))
    q, v = (net.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    k = net.op("Transpose", k, perm=[0, 2, 3, 1])
    if scale_from_shape:
        last = net.op("Gather", net.op("Shape", q), net.constant(np.int64(3)), axis=0)
        scale = net.op("Sqrt", net.op("Cast", last, to=TensorProto.FLOAT))
        q = net.op("Div", q, scale)
    else:
        q = net.op("Mul", q, net.constant(np.float32(size**-0.5)))
    weights = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    y = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    flat = net.op("Concat", batch, length, net.ints(heads * size), axis=0)
    return net.model(net.linear(net.op("Reshape", y, flat), heads * size, width))
