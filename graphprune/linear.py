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

from graphprune.model import Model
from graphprune.relation import Values

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Linear:
    """A linear operator whose weight is a constant that nothing else reads.

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

    def matrix(self, weight: Values) -> Values:
        """The weight as ``[groups, sums, outputs of a group]``, float32."""
        value = weight.astype(np.float32)
        if self.kernel:
            return value.reshape(self.groups, weight.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return (value.T if self.transposed else value)[None]

    def weight_of(self, matrix: Values, like: Values) -> Values:
        """The inverse of :meth:`matrix`, in the shape and type of another weight."""
        if self.kernel:
            return matrix.transpose(0, 2, 1).reshape(like.shape).astype(like.dtype)
        return (matrix[0].T if self.transposed else matrix[0]).reshape(like.shape).astype(like.dtype)

    def pick(self, x: Values, y: Values, most: int, rng: np.random.Generator) -> tuple[Values, Values, Values]:
        """Some rows of a product.

        Args:
            x: the input.
            y: the output.
            most: number of rows.
            rng: which chooses them.

        Returns:
            Rows ``[groups, n, sums]``, what they come to ``[groups, n, outputs of a group]``, and for each row the
            sample that it is of, ``[n]``.
        """
        if not self.kernel:
            a, b = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            chosen = _some(len(a), most, rng)
            return _single(a[chosen])[None], _single(b[chosen])[None], chosen * x.shape[0] // max(len(a), 1)
        windows = self._windows(x, y.shape[2:])
        batch, space = x.shape[0], y.shape[2:]
        chosen = _some(batch * prod(space), most, rng)
        place = np.unravel_index(chosen, (batch, *space))
        index: tuple[Any, ...] = (place[0], slice(None), *place[1:])
        rows = windows[index].reshape(len(chosen), self.groups, -1)
        found = np.moveaxis(y, 1, -1)[place].reshape(len(chosen), self.groups, -1)
        return _single(rows.transpose(1, 0, 2)), _single(found.transpose(1, 0, 2)), place[0]

    def _windows(self, x: Values, space: Sequence[int]) -> Values:
        """What each output position sees: ``[batch, channels, *space, *kernel]``, a view."""
        rank = len(self.kernel)
        strides = self.attributes.get("strides", [1] * rank)
        dilations = self.attributes.get("dilations", [1] * rank)
        low, high = self._pads(x.shape[2:], space, strides, dilations)
        padded = np.pad(x, [(0, 0), (0, 0), *zip(low, high, strict=True)])
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, dilations, strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
        positions = tuple(slice(0, n * s, s) for n, s in zip(space, strides, strict=True))
        inside = tuple(slice(None, None, d) for d in dilations)
        index: tuple[Any, ...] = (slice(None), slice(None), *positions, *inside)
        return windows[index]

    def _pads(
        self, size: Sequence[int], space: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        kind = self.attributes.get("auto_pad", b"NOTSET")
        rank = len(self.kernel)
        if kind in (b"NOTSET", b""):
            pads = list(self.attributes.get("pads", [0] * 2 * rank))
            return pads[:rank], pads[rank:]
        if kind == b"VALID":
            return [0] * rank, [0] * rank
        total = [
            max((n - 1) * s + (k - 1) * d + 1 - i, 0)
            for n, s, k, d, i in zip(space, strides, self.kernel, dilations, size, strict=True)
        ]
        half = [t // 2 for t in total]
        rest = [t - h for t, h in zip(total, half, strict=True)]
        return (half, rest) if kind == b"SAME_UPPER" else (rest, half)


def _some(count: int, most: int, rng: np.random.Generator) -> Values:
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))


def _single(value: Values) -> Values:
    return np.ascontiguousarray(value, dtype=np.float32)


def find(model: Model) -> list[Linear]:
    """Every linear operator of the main graph with a weight of its own, in the order of the nodes."""
    found = []
    for index, node in enumerate(model.nodes):
        read = _READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        linear = read(model, index, node) if read is not None else None
        if linear is not None:
            found.append(linear)
    return found


def _own(model: Model, name: str, ranks: Sequence[int]) -> bool:
    """Whether a tensor is a constant of floats that the file holds and one input alone reads."""
    source = model.sources.get(name)
    return (
        source is not None
        and source.kind != "fill"
        and source.dtype in _FLOATS
        and len(source.shape) in ranks
        and len(model.uses.get(name, ())) == 1
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
    if not _own(model, node.input[1], (3, 4, 5)):
        return None
    attributes = _attributes(node)
    shape = model.sources[node.input[1]].shape
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not _vector(model, bias, shape[0]):
        return None
    kernel = shape[2:]
    groups = attributes.get("group", 1)
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, None, groups, kernel, False, attributes)


def _gemm(model: Model, index: int, node: NodeProto) -> Linear | None:
    attributes = _attributes(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    transposed = bool(attributes.get("transB"))
    if not plain or not _own(model, node.input[1], (2,)):
        return None
    width = model.sources[node.input[1]].shape[0 if transposed else 1]
    if bias is not None and not _vector(model, bias, width):
        return None
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, None, 1, (), transposed, attributes)


def _matmul(model: Model, index: int, node: NodeProto) -> Linear | None:
    if not _own(model, node.input[1], (2,)):
        return None
    bias, adder = _added(model, node.output[0], model.sources[node.input[1]].shape[1])
    return Linear(index, node.input[0], node.output[0], node.input[1], bias, adder, 1, (), False, {})


def _added(model: Model, output: str, width: int) -> tuple[str | None, int | None]:
    """The bias that a following node adds."""
    uses = model.uses.get(output, [])
    if len(uses) != 1 or output in model.output_names or model.nodes[uses[0].node].op_type != "Add":
        return None, None
    other = model.nodes[uses[0].node].input[1 - uses[0].input]
    return (other, uses[0].node) if _vector(model, other, width) else (None, None)


_READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
