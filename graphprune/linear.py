"""Linear operators as matrix products: what an operator sums over, as rows of a matrix, and its weight as the other.

``rows(x) @ matrix(weight) + bias`` is what the operator makes of ``x``, with one product for each group of a
convolution. For a convolution a row is the window that one output position sees (im2col: Chellapilla, Puri and Simard,
2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.editor import Editor
from graphprune.model import Model
from graphprune.relation import IntArray, Values


@dataclass(frozen=True)
class Held:
    """A weight as a node reads it.

    Attributes:
        name: of the constant.
        shape: as the node reads it.
        dtype: as the node reads it.
        order: where nodes that move it lie between, for each element as the node reads it the element of the constant.
    """

    name: str
    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    order: IntArray | None = None


@dataclass(frozen=True)
class Linear:
    """A linear operator whose weight is a constant.

    Attributes:
        node: its index in the model.
        input, output: its activations.
        held: its weight.
        bias: name of the constant that is added to each output, None where there is none.
        adder: index of the node that adds it, where that is another one.
        groups: number of separate products.
        kernel: window of a convolution; empty for products of matrices.
        transposed: whether a matrix is held as ``[outputs, sums]``.
        attributes: of the node.
        backward: whether it is a transposed convolution, whose weight is held as ``[inputs, outputs, *kernel]``.
        slot: input of the node that takes a bias, None where it has none.
        inner: whether the product is a step inside the node (the input weights of a recurrent one, ``[directions,
            outputs, sums]``): what it comes to is no tensor, and no bias is to be had for it.
    """

    node: int
    input: str
    output: str
    held: Held
    bias: str | None = None
    adder: int | None = None
    groups: int = 1
    kernel: tuple[int, ...] = ()
    transposed: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    backward: bool = False
    slot: int | None = 2
    inner: bool = False

    @property
    def weight(self) -> str:
        """Name of the constant that is its weight."""
        return self.held.name

    @property
    def summed(self) -> int:
        """The axis of the weight that is summed over; of a convolution the input channels."""
        if self.inner:
            return 2
        return 1 if (self.kernel and not self.backward) or self.transposed else 0

    @property
    def made(self) -> int:
        """The axis of the weight that holds outputs; of a transposed convolution those of one group."""
        if self.inner:
            return 1
        return 0 if (self.kernel and not self.backward) else 1 - self.summed

    def matrix(self, weight: Values) -> Values:
        """The weight as ``[groups, sums, outputs of a group]``, float32."""
        value = weight.astype(np.float32)
        if self.held.order is not None:
            value = value.reshape(-1)[self.held.order]
        if self.backward:
            apart = value.reshape(self.groups, -1, *value.shape[1:])
            turned = np.flip(apart, tuple(range(3, apart.ndim)))
            return np.moveaxis(turned, 2, -1).reshape(self.groups, -1, value.shape[1])
        if self.kernel:
            return value.reshape(self.groups, value.shape[0] // self.groups, -1).transpose(0, 2, 1)
        if self.inner:
            return value.reshape(-1, value.shape[-1]).T[None]
        return (value.T if self.transposed else value)[None]

    def weight_of(self, matrix: Values, like: Values) -> Values:
        """The inverse of :meth:`matrix`, in the shape and type of another weight."""
        made = self._read(matrix)
        if self.held.order is not None:
            back = np.empty_like(made.reshape(-1))
            back[self.held.order.reshape(-1)] = made.reshape(-1)
            made = back
        return made.reshape(like.shape).astype(like.dtype)

    def _read(self, matrix: Values) -> Values:
        """The weight as the node reads it."""
        if self.backward:
            apart = matrix.reshape(self.groups, -1, *self.kernel, matrix.shape[-1])
            return np.flip(np.moveaxis(apart, -1, 2), tuple(range(3, 3 + len(self.kernel))))
        if self.kernel:
            return matrix.transpose(0, 2, 1)
        return matrix[0].T if self.transposed or self.inner else matrix[0]

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
        if self.bias is not None:
            before = model.array(model.root(self.bias))
            value = (before.astype(np.float64) + change.reshape(-1)).astype(before.dtype)
            if editor.renew(self.bias, value):
                return
            node = self.node if self.adder is None else self.adder
            position = 2 if self.adder is None else list(editor.nodes[node].input).index(self.bias)
            editor.redirect(node, position, editor.constant(self.bias, value, node))
            return
        made = editor.constant(f"{self.output}/bias", change.reshape(-1).astype(self.held.dtype), self.node)
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
        low, high = self.pads(size)
        if self.backward:
            size = [s * (i - 1) + 1 for i, s in zip(size, strides, strict=True)]
            strides = [1] * len(strides)
        wide = zip(size, low, high, reach, strides, strict=True)
        return tuple((i + a + b - r) // s + 1 for i, a, b, r, s in wide)

    def _windows(self, x: Values, space: Sequence[int]) -> Values:
        """What each output position sees: ``[batch, channels, *space, *kernel]``, a view."""
        rank = len(self.kernel)
        strides, dilations, reach = self._steps
        low, high = self.pads(x.shape[2:])
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

    def pads(self, size: Sequence[int]) -> tuple[list[int], list[int]]:
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
