"""A piece of a model as a model of its own, as it is at one point of its grid.

What the piece reads from elsewhere are inputs. Small constants are what they are; weights are filled in when the model
is loaded, so that thousands of such models take little room: how long a kernel takes does not depend on its numbers.
Names are those of places, so that pieces that are alike become the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.relation import Shape
from graphprune.rewrite.operands import Refit
from graphprune.verdict.latency.pieces import Piece
from graphprune.verdict.latency.time_layers import ENTRY

_SMALL = 64
"""Elements up to which a constant that is not cut is written as it is: scales of a resize, bounds of a clip."""
_FILL = 0.01
"""What floating weights are filled with: positive, since some are variances, and far from where numbers get slow."""
_IMAGE = 4
"""Axes of an image."""
_FILLS_FROM = 9
"""The operator set from which ``ConstantOfShape`` can fill weights in; before, they are written out."""


class NotAloneError(Exception):
    """The piece cannot be made a model of its own; the message says why."""


@dataclass
class Alone:
    """A piece as a model.

    Attributes:
        name: a hash of the model.
        model: the serialised model.
        inputs: name, type and shape of what it reads.
        operators: types of its nodes, with the domain of those that are not ONNX's own.
    """

    name: str
    model: bytes
    inputs: list[tuple[str, int, Shape]]
    operators: list[str]


def alone(piece: Piece, refit: Refit, blocked: bool = False) -> Alone:
    """The piece as a model.

    Args:
        piece: the piece.
        refit: the nodes as they are.
        blocked: whether the runtime keeps images in blocks of channels. What joins a product then has to come in such
            a layout, too, or it is not fused as it is within the whole model.

    Raises:
        NotAloneError: a shape or a type is not known.
    """
    return _Build(refit, blocked).build(piece)


@dataclass
class _Build:
    refit: Refit
    blocked: bool
    names: dict[Tensor, str] = field(default_factory=dict)
    inputs: list[tuple[str, int, Shape]] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.analysis, self.model = self.refit.removal.analysis, self.refit.model
        self.facts = self.analysis.witness.first

    def build(self, piece: Piece) -> Alone:
        """Node by node."""
        self.first = piece.nodes[0]
        for index in piece.nodes:
            self._node(index)
        proto = ModelProto(ir_version=max(self.model.proto.ir_version, 4), opset_import=self.model.proto.opset_import)
        proto.functions.extend(self.model.proto.functions)
        proto.graph.name = "piece"
        proto.graph.node.extend(self.nodes)
        proto.graph.initializer.extend(self.initializers)
        proto.graph.input.extend(helper.make_tensor_value_info(n, kind, shape) for n, kind, shape in self.inputs)
        last = self.model.nodes[piece.nodes[-1]]
        proto.graph.output.extend(ValueInfoProto(name=self.names[o]) for o in last.output if o)
        data = proto.SerializeToString(deterministic=True)
        own = [self.model.nodes[n] for n in piece.nodes]
        operators = [f"{n.domain}:{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in own]
        return Alone(blake2b(data, digest_size=10).hexdigest(), data, self.inputs, operators)

    def _node(self, index: int) -> None:
        original, now = self.model.nodes[index], self.refit.editor.nodes[index]
        read = []
        for position in range(len(now.input)):
            name = original.input[position] if position < len(original.input) else ""
            read.append(self._read(index, position, name) if now.input[position] else "")
        made = []
        for name in original.output:
            if name:
                self.names[name] = f"t{len(self.names)}"
            made.append(self.names[name] if name else "")
        node = NodeProto(op_type=now.op_type, domain=now.domain, input=read, output=made)
        node.attribute.extend(now.attribute)
        self.nodes.append(node)

    def _read(self, index: int, position: int, name: str) -> str:
        """The name of what an input of a node reads."""
        if (index, position) in self.refit.reads or not name:  # an operand that was absent may be there now
            return self._constant(self.refit.reads[(index, position)])
        constant = name in self.model.constant_names
        if name in self.names and not constant:
            return self.names[name]
        value, shape = self.refit.holds(index, position), self._shape(index, position, name)
        if value is not None and (shape is None or shape == value.shape):
            return self._constant(value)
        kind = self.facts.types.get(name)
        if shape is None or kind is None:
            raise NotAloneError(f"the shape of its input {name!r} is not known")
        if (
            constant or value is not None
        ):  # of a value that is cut (zeros in the shape of another tensor) only the shape
            return self._weight(name, kind, shape)
        self.names[name] = f"t{len(self.names)}"
        self.inputs.append((self.names[name], kind, shape))
        if self.blocked and index != self.first and kind == TensorProto.FLOAT and len(shape) == _IMAGE:
            self._enter(name)
        return self.names[name]

    def _enter(self, name: str) -> None:
        """Put a node in front of an input that does nothing, but runs in the layout of products; it is not counted."""
        own = f"{ENTRY}{len(self.inputs)}"
        self.nodes.append(helper.make_node("MaxPool", [self.names[name]], [own], name=own, kernel_shape=[1, 1]))
        self.names[name] = own

    def _shape(self, index: int, position: int, name: str) -> Shape | None:
        use = Use(index, position)
        removal = self.refit.removal
        return removal.shape(use) if use in self.refit.net.axis_of else removal.shape(name)

    def _weight(self, name: str, kind: int, shape: Shape) -> str:
        root = self.model.root(name)
        source = self.model.sources.get(root)
        if source is not None and source.shape == shape and np.prod(shape, dtype=int) <= _SMALL:
            return self._constant(self.model.array(root))
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        number = _FILL if dtype.kind not in "iub" else 0 if kind in (TensorProto.INT64, TensorProto.INT32) else 1
        value = np.full(1, number, dtype)
        if self.model.opsets.get("", 1) < _FILLS_FROM:
            return self._constant(np.full(shape, value[0]))
        result = f"w{len(self.initializers)}"
        size = self._constant(np.asarray(shape, np.int64))
        fill = helper.make_node("ConstantOfShape", [size], [result], value=numpy_helper.from_array(value))
        self.nodes.append(fill)
        return result

    def _constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name
