"""What stands for a norm that takes off a mean, where the mean is zero: a root mean square.

A line in ``UNCENTRED`` is all that an operator needs. Where the opset has no operator for a root mean square, its parts
are written in the order that runtimes know how to fuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from graphprune.relation import Values
from graphprune.rules.node import Unruled

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Maker:
    """Makes the nodes that stand for one node.

    Attributes:
        node: the node.
        opset: of the default domain.
        kind: ``TensorProto`` data type of what it reads.
        rank: number of axes of what it reads.
        constant: adds a constant to the model, and gives its name.
        name: gives a name that nothing has yet.
        nodes: what was made.
    """

    def __init__(
        self,
        node: NodeProto,
        opset: int,
        kind: int,
        rank: int,
        constant: Callable[[Values], str],
        name: Callable[[], str],
    ) -> None:
        self.node, self.opset, self.kind, self.rank = node, opset, kind, rank
        self.constant, self.name = constant, name
        self.nodes: list[NodeProto] = []

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def op(self, kind: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        """Add a node of one output, whose name comes back."""
        result = output or self.name()
        self.nodes.append(helper.make_node(kind, inputs, [result], domain=domain, **attributes))
        return result

    def number(self, value: float, kind: int) -> str:
        """Add a number as a constant."""
        return self.constant(np.asarray(value, helper.tensor_dtype_to_np_dtype(kind)))

    def given(self, place: int) -> str:
        """Name of an input, empty where it is absent."""
        return self.node.input[place] if place < len(self.node.input) else ""


def _root_mean(make: Maker, shift: bool) -> None:
    """LayerNormalization without its mean."""
    if any(name for name in make.node.output[1:]):
        raise Unruled("its mean or its deviation is used too")
    axis, epsilon = make.attribute("axis", -1), make.attribute("epsilon", 1e-5)
    source, gain, bias = make.node.input[0], make.node.input[1], make.given(2) if shift else ""
    last = make.node.output[0]
    if make.opset >= 23:
        stash = make.attribute("stash_type", 1)
        scaled = make.op(
            "RMSNormalization",
            source,
            gain,
            axis=axis,
            epsilon=epsilon,
            stash_type=stash,
            output=None if bias else last,
        )
    else:
        half = make.kind in HALVES
        kind = TensorProto.FLOAT if half else make.kind
        wide = make.op("Cast", source, to=kind) if half else source
        squares = make.op("Pow", wide, make.number(2, kind))
        axes = list(range(axis % make.rank, make.rank))
        if make.opset >= 18:
            mean = make.op("ReduceMean", squares, make.constant(np.asarray(axes, np.int64)), keepdims=1)
        else:
            mean = make.op("ReduceMean", squares, axes=axes, keepdims=1)
        root = make.op("Sqrt", make.op("Add", mean, make.number(epsilon, kind)))
        normed = make.op("Div", wide, root)
        normed = make.op("Cast", normed, to=make.kind) if half else normed
        scaled = make.op("Mul", normed, gain, output=None if bias else last)
    if bias:
        make.op("Add", scaled, bias, output=last)


def _skipped(make: Maker, shift: bool) -> None:
    """SkipLayerNormalization without its mean."""
    node = make.node
    if any(name for name in node.output[1:3]):
        raise Unruled("its mean or its deviation is used too")
    bias = make.given(3) if shift else ""
    first = make.name() if bias else node.output[0]
    inputs = [*node.input[:3], make.given(4)]
    outputs = [first, "", "", *node.output[3:4]] if len(node.output) > 3 else [first]
    epsilon = make.attribute("epsilon", 1e-12)
    make.nodes.append(
        helper.make_node("SkipSimplifiedLayerNormalization", inputs, outputs, domain="com.microsoft", epsilon=epsilon)
    )
    if bias:
        make.op("Add", first, bias, output=node.output[0])


UNCENTRED: Mapping[tuple[str, str], Callable[[Maker, bool], None]] = {
    ("", "LayerNormalization"): _root_mean,
    ("com.microsoft", "SkipLayerNormalization"): _skipped,
}
"""By domain and operator: adds the nodes that stand for a node; the second argument says whether it adds a shift.

Raises:
    Unruled: nothing stands for it.
"""
