"""Linear operators as matrix products: what an operator sums over, as rows of a matrix, and its weight as the other.

``rows(x) @ matrix(weight) + bias`` is what the operator makes of ``x``, with one product for each group of a
convolution. For a convolution a row is the window that one output position sees (im2col: Chellapilla, Puri and Simard,
2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from graphprune.editor import Editor
from graphprune.model import Model
from graphprune.relation import IntArray, Values

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Linear:
    """A linear operator whose weight is a constant.

    Attributes:
        node: its index in the model.
        input, output: its activations.
        weight: name of the weight.
        bias: name of the constant that is added to each output, None where there is none.
        adder: index of the node that adds it, where that is another one.
        groups: number of separate products.
        kernel: window of a convolution; empty for products of matrices.
        transposed: whether a matrix is held as ``[outputs, sums]``.
        attributes: of the node.
        backward: whether it is a transposed convolution, whose weight is held as ``[inputs, outputs, *kernel]``.
        slot: input of the node that takes a bias, None where it has none.
    """

    node: int
    input: str
    output: str
    weight: str
    bias: str | None
    adder: int | None
    groups: int
    kernel: tuple[int, ...]
    transposed: bool
    attributes: dict[str, Any]
    backward: bool = False
    slot: int | None = 2

    @property
    def summed(self) -> int:
        """The axis of the weight that is summed over; of a convolution the input channels."""
        return 1 if (self.kernel and not self.backward) or self.transposed else 0

    @property
    def made(self) -> int:
        """The axis of the weight that holds outputs; of a transposed convolution those of one group."""
        return 0 if (self.kernel and not self.backward) else 1 - self.summed

    def matrix(self, weight: Values) -> Values:
        """The weight as ``[groups, sums, outputs of a group]``, float32."""
        value = weight.astype(np.float32)
        if self.backward:
            apart = value.reshape(self.groups, -1, *weight.shape[1:])
            turned = np.flip(apart, tuple(range(3, apart.ndim)))
            return np.moveaxis(turned, 2, -1).reshape(self.groups, -1, weight.shape[1])
        if self.kernel:
            return value.reshape(self.groups, weight.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return (value.T if self.transposed else value)[None]

    def weight_of(self, matrix: Values, like: Values) -> Values:
        """The inverse of :meth:`matrix`, in the shape and type of another weight."""
        if self.backward:
            apart = matrix.reshape(self.groups, -1, *self.kernel, like.shape[1])
            turned = np.flip(np.moveaxis(apart, -1, 2), tuple(range(3, 3 + len(self.kernel))))
            return turned.reshape(like.shape).astype(like.dtype)
        if self.kernel:
            return matrix.transpose(0, 2, 1).reshape(like.shape).astype(like.dtype)
        return (matrix[0].T if self.transposed else matrix[0]).reshape(like.shape).astype(like.dtype)

    def choose(self, x: Values, most: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Some rows of a product.

        Args:
            x: the input.
            most: number of rows.
            rng: which chooses them.

        Returns:
            Their numbers, ascending, and for each the sample that it is of.
        """
        count = x.shape[0] * prod(self._space(x.shape[2:])) if self.kernel else prod(x.shape[:-1])
        chosen = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
        return chosen, chosen * x.shape[0] // max(count, 1)

    def rows(self, x: Values, chosen: IntArray) -> Values:
        """What these rows hold: ``[groups, n, sums]``."""
        if not self.kernel:
            return _single(x.reshape(-1, x.shape[-1])[chosen])[None]
        space = self._space(x.shape[2:])
        place = np.unravel_index(chosen, (x.shape[0], *space))
        index: tuple[Any, ...] = (place[0], slice(None), *place[1:])
        rows = self._windows(x, space)[index].reshape(len(chosen), self.groups, -1)
        return _single(rows.transpose(1, 0, 2))

    def results(self, y: Values, chosen: IntArray) -> Values:
        """What these rows come to in an output: ``[groups, n, outputs of a group]``."""
        if not self.kernel:
            return _single(y.reshape(-1, y.shape[-1])[chosen])[None]
        place = np.unravel_index(chosen, (y.shape[0], *y.shape[2:]))
        found = np.moveaxis(y, 1, -1)[place].reshape(len(chosen), self.groups, -1)
        return _single(found.transpose(1, 0, 2))

    def shift(self, editor: Editor, model: Model, change: Values) -> None:
        """Add to the bias; where there is none, one is made.

        Args:
            editor: of the model.
            model: the model.
            change: shape ``[groups, outputs of a group]``, in any order that is flat.
        """
        dtype = model.array(self.weight).dtype
        if self.bias is not None:
            value = (model.array(model.root(self.bias)).astype(np.float64) + change.reshape(-1)).astype(dtype)
            if editor.renew(self.bias, value):
                return
            node = self.node if self.adder is None else self.adder
            position = 2 if self.adder is None else list(editor.nodes[node].input).index(self.bias)
            editor.redirect(node, position, editor.constant(self.bias, value, node))
            return
        made = editor.constant(f"{self.output}/bias", change.reshape(-1).astype(dtype), self.node)
        if self.slot is not None:
            editor.redirect(self.node, self.slot, made)
        else:
            editor.behind(self.node, "Add", made)

    @property
    def _steps(self) -> tuple[list[int], list[int], list[int]]:
        """Strides, dilations, and how far a kernel reaches."""
        rank = len(self.kernel)
        strides = list(self.attributes.get("strides", [1] * rank))
        dilations = list(self.attributes.get("dilations", [1] * rank))
        return strides, dilations, [d * (k - 1) + 1 for k, d in zip(self.kernel, dilations, strict=True)]

    def _space(self, size: Sequence[int]) -> tuple[int, ...]:
        """Output positions of an input of some size."""
        strides, _, reach = self._steps
        if not self.backward and self.attributes.get("auto_pad") in (b"SAME_UPPER", b"SAME_LOWER"):
            return tuple(-(-i // s) for i, s in zip(size, strides, strict=True))
        low, high = self._pads(size)
        if self.backward:
            size = [s * (i - 1) + 1 for i, s in zip(size, strides, strict=True)]
            strides = [1] * len(strides)
        wide = zip(size, low, high, reach, strides, strict=True)
        return tuple((i + a + b - r) // s + 1 for i, a, b, r, s in wide)

    def _windows(self, x: Values, space: Sequence[int]) -> Values:
        """What each output position sees: ``[batch, channels, *space, *kernel]``, a view."""
        rank = len(self.kernel)
        strides, dilations, reach = self._steps
        low, high = self._pads(x.shape[2:])
        if self.backward:  # a transposed convolution is a plain one over an input with zeros put in between
            apart = np.zeros((*x.shape[:2], *(s * (i - 1) + 1 for i, s in zip(x.shape[2:], strides, strict=True))))
            apart = apart.astype(x.dtype)
            places: tuple[Any, ...] = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
            apart[places] = x
            x, strides = apart, [1] * rank
        padded = np.pad(x, [(0, 0), (0, 0), *zip(low, high, strict=True)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
        positions = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(space, strides, strict=True))
        inside = tuple(slice(None, None, d) for d in dilations)
        index: tuple[Any, ...] = (slice(None), slice(None), *positions, *inside)
        return windows[index]

    def _pads(self, size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Zeros before and after an input of some size."""
        rank = len(self.kernel)
        strides, _, reach = self._steps
        kind = self.attributes.get("auto_pad", b"NOTSET")
        pads = list(self.attributes.get("pads", [0] * 2 * rank)) if kind in (b"NOTSET", b"") else [0] * 2 * rank
        if self.backward:
            more = self.attributes.get("output_padding", [0] * rank)
            low = [r - 1 - p for r, p in zip(reach, pads[:rank], strict=True)]
            return low, [r - 1 - p + m for r, p, m in zip(reach, pads[rank:], more, strict=True)]
        if kind not in (b"SAME_UPPER", b"SAME_LOWER"):
            return pads[:rank], pads[rank:]
        total = [max((-(-i // s) - 1) * s + r - i, 0) for i, s, r in zip(size, strides, reach, strict=True)]
        half = [t // 2 for t in total]
        rest = [t - h for t, h in zip(total, half, strict=True)]
        return (half, rest) if kind == b"SAME_UPPER" else (rest, half)


def _single(value: Values) -> Values:
    return np.ascontiguousarray(value, dtype=np.float32)


def find(model: Model, shared: bool = False) -> list[Linear]:
    """Every linear operator of the main graph, in the order of the nodes.

    Args:
        model: the model.
        shared: also those whose weight is read elsewhere.
    """
    found = []
    for index, node in enumerate(model.nodes):
        read = _READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        linear = read(model, index, node) if read is not None else None
        if linear is not None and (shared or _own(model, linear.weight)):
            found.append(linear)
    return found


def _weight(model: Model, name: str, ranks: Sequence[int]) -> bool:
    """Whether a tensor is a constant of floats that the file holds."""
    source = model.sources.get(name)
    return source is not None and source.kind != "fill" and source.dtype in _FLOATS and len(source.shape) in ranks


def _own(model: Model, name: str) -> bool:
    """Whether one input alone reads a tensor."""
    return (
        len(model.uses.get(name, ())) == 1
        and name not in model.output_names
        and not any(name in names for names in model.captured.values())
    )


def _vector(model: Model, name: str, width: int) -> bool:
    """Whether a tensor is a constant with a number for each output."""
    source = model.sources.get(model.root(name))
    return source is not None and source.dtype in _FLOATS and source.shape == (width,)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _conv(model: Model, index: int, node: NodeProto) -> Linear | None:
    if not _weight(model, node.input[1], (3, 4, 5)):
        return None
    attributes = _attributes(node)
    shape = model.sources[node.input[1]].shape
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not _vector(model, bias, shape[0]):
        return None
    kernel = shape[2:]
    groups = attributes.get("group", 1)
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, None, groups, kernel, False, attributes)


def _conv_transpose(model: Model, index: int, node: NodeProto) -> Linear | None:
    """Groups read input channels of their own, so that elements of the summed axis belong to one group each."""
    attributes = _attributes(node)
    plain = attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"", b"VALID") and "output_shape" not in attributes
    if not plain or not _weight(model, node.input[1], (3, 4, 5)):
        return None
    shape, groups = model.sources[node.input[1]].shape, attributes.get("group", 1)
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not _vector(model, bias, shape[1] * groups):
        return None
    name, kernel = node.input[1], shape[2:]
    found = Linear(index, node.input[0], node.output[0], name, bias, None, groups, kernel, False, attributes, True)
    return found if min(map(min, found._pads(()))) >= 0 else None  # more is cut off than a kernel reaches


def _gemm(model: Model, index: int, node: NodeProto) -> Linear | None:
    attributes = _attributes(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    transposed = bool(attributes.get("transB"))
    if not plain or not _weight(model, node.input[1], (2,)):
        return None
    width = model.sources[node.input[1]].shape[0 if transposed else 1]
    if bias is not None and not _vector(model, bias, width):
        return None
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, None, 1, (), transposed, attributes)


def _matmul(model: Model, index: int, node: NodeProto) -> Linear | None:
    if not _weight(model, node.input[1], (2,)):
        return None
    bias, adder = _added(model, node.output[0], model.sources[node.input[1]].shape[1])
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, adder, 1, (), False, {}, slot=None)


def _added(model: Model, output: str, width: int) -> tuple[str | None, int | None]:
    """The bias that a following node adds."""
    uses = model.uses.get(output, [])
    if len(uses) != 1 or output in model.output_names or model.nodes[uses[0].node].op_type != "Add":
        return None, None
    other = model.nodes[uses[0].node].input[1 - uses[0].input]
    return (other, uses[0].node) if _vector(model, other, width) else (None, None)


_READERS = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm, "MatMul": _matmul}
