"""The geometry of convolutions: what each output position sees (im2col: Chellapilla, Puri and Simard, 2006).

A transposed convolution is a plain one over an input with zeros put in between, its kernel turned round. Nothing here
knows ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """A window that slides over the positions of an input, with weights of its own for each place in it.

    Attributes:
        input, weight, output: the axes that positions, and places in the window, lie along; in the same order.
        strides: how far it moves, along each of these axes.
        dilations: how far apart its places are.
        low, high: zeros put before and after the input; of a transposed convolution, what is cut off its output.
        same: ``upper`` or ``lower`` where there are as many zeros as it takes for an output at every stride; an odd one
            lies behind, or before. Empty: as ``low`` and ``high`` say.
        backward: whether it is the window of a transposed convolution.
        more: positions that a transposed convolution adds at the end.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    same: str = ""
    backward: bool = False
    more: tuple[int, ...] = ()

    def space(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Output positions for an input of some size, under a window of some size."""
        if self.same:
            return tuple(-(-i // s) for i, s in zip(size, self.strides, strict=True))
        low, high = self.pads(size, kernel)
        strides: Sequence[int] = self.strides
        if self.backward:
            size = [s * (i - 1) + 1 for i, s in zip(size, strides, strict=True)]
            strides = [1] * len(strides)
        wide = zip(size, low, high, self._reach(kernel), strides, strict=True)
        return tuple((i + a + b - r) // s + 1 for i, a, b, r, s in wide)

    def view(self, x: Values, kernel: Sequence[int]) -> Values:
        """An input with output positions in place of its own, and what the window sees in axes of its own behind."""
        size, strides = [x.shape[a] for a in self.input], list(self.strides)
        low, high = self.pads(size, kernel)
        space = self.space(size, kernel)
        if self.backward:
            x, strides = self._apart(x), [1] * len(strides)
        around = dict(zip(self.input, zip(low, high, strict=True), strict=True))
        padded = np.pad(x, [around.get(a, (0, 0)) for a in range(x.ndim)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, self._reach(kernel), self.input)
        index: list[Any] = [slice(None)] * x.ndim + [slice(None, None, d) for d in self.dilations]
        for axis, n, s in zip(self.input, space, strides, strict=True):
            index[axis] = slice(0, (n - 1) * s + 1, s)
        return windows[tuple(index)]

    def pads(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
        """Zeros before and after an input of some size."""
        reach = self._reach(kernel)
        if self.backward:
            low = [r - 1 - p for r, p in zip(reach, self.low, strict=True)]
            return low, [r - 1 - p + m for r, p, m in zip(reach, self.high, self.more, strict=True)]
        if not self.same:
            return list(self.low), list(self.high)
        sides = zip(size, self.strides, reach, strict=True)
        total = [max((-(-i // s) - 1) * s + r - i, 0) for i, s, r in sides]
        half = [t // 2 for t in total]
        rest = [t - h for t, h in zip(total, half, strict=True)]
        return (half, rest) if self.same == "upper" else (rest, half)

    def turned(self, weight: Values) -> Values:
        """A weight as the window multiplies it, from how it is held; and back."""
        return np.flip(weight, self.weight) if self.backward else weight

    def _reach(self, kernel: Sequence[int]) -> list[int]:
        """How far a window goes."""
        return [d * (k - 1) + 1 for k, d in zip(kernel, self.dilations, strict=True)]

    def _apart(self, x: Values) -> Values:
        """An input with zeros put in between."""
        strides = dict(zip(self.input, self.strides, strict=True))
        shape = [strides.get(a, 1) * (n - 1) + 1 for a, n in enumerate(x.shape)]
        found = np.zeros(shape).astype(x.dtype)
        found[tuple(slice(None, None, strides.get(a, 1)) for a in range(x.ndim))] = x
        return found
