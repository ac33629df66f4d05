"""Second moments of rows: all that least squares needs to know of data, in memory that their number does not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from graphprune.relation import Values

FloatArray = npt.NDArray[np.float64]
_LEAST, _TIMES, _BYTES = 1024, 4, 1 << 26
"""Rows that are waited for at least; beside the least number, and so many times as long where they take no more bytes
than that: each product that is added up costs as much as its result has elements."""


@dataclass
class Moments:
    """Sums over rows of separate products, one for each group of a convolution.

    Products are of single precision, and about an origin near the mean: where rows vary little beside their mean, what
    rounding leaves of products about zero says nothing of how they vary.

    Attributes:
        about: second moments about the origin, shape ``[groups, sums, sums]``.
        x: sum of the rows, shape ``[groups, sums]``.
        count: number of rows.
        origin: shape ``[groups, sums]``; the mean of the first rows.
        known: of so many rows, second moments about their mean.
    """

    about: FloatArray
    x: FloatArray
    count: int = 0
    origin: FloatArray | None = None
    known: tuple[int, FloatArray] | None = field(default=None, repr=False)

    @classmethod
    def empty(cls, groups: int, sums: int) -> Moments:
        """Of no rows yet."""
        return cls(np.zeros((groups, sums, sums)), np.zeros((groups, sums)))

    def add(self, rows: Values) -> Values:
        """Add rows, shape ``[groups, n, sums]``; returns them as seen from the origin."""
        if self.origin is None:
            self.origin = np.asarray(rows.mean(1), np.float64)
        seen = rows - self.origin.astype(rows.dtype)[:, None]
        self.about += seen.transpose(0, 2, 1) @ seen
        self.x += rows.sum(1, dtype=np.float64)
        self.count += rows.shape[1]
        return seen

    def seen_from(self, origin: FloatArray) -> FloatArray:
        """Second moments about another origin."""
        own = np.zeros_like(self.x) if self.origin is None else self.origin
        step, apart = own - origin, self.x - self.count * own
        return self.about + _outer(step, apart) + _outer(apart, step) + self.count * _outer(step, step)

    @property
    def xx(self) -> FloatArray:
        """``X^T X``."""
        return self.seen_from(np.zeros_like(self.x))

    @property
    def mean(self) -> FloatArray:
        """The mean of the rows."""
        return self.x / max(self.count, 1)

    @property
    def centred(self) -> FloatArray:
        """``X^T X`` about the mean."""
        if self.origin is None:
            return self.about
        if self.known is None or self.known[0] != self.count:  # asked for by all that reads the rows
            step = self.origin - self.mean  # rows as seen from the mean add up to zero: one term of three is left
            self.known = self.count, self.about - self.count * _outer(step, step)
        return self.known[1]


def _outer(a: FloatArray, b: FloatArray) -> FloatArray:
    return a[:, :, None] * b[:, None, :]


class Gathered:
    """Rows that wait until there are so many that a product over them costs more than to add it up.

    Args:
        take: is given arrays of rows, which run along the last axis but one, or along the only one.
        enough: how many are waited for at least.
    """

    def __init__(self, take: Callable[..., object], enough: int) -> None:
        self.take, self.enough = take, max(enough, _LEAST)
        self.waiting: list[tuple[Values, ...]] = []
        self.count = self.bytes = 0

    def add(self, *arrays: Values) -> None:
        """More rows of each array."""
        self.waiting.append(arrays)
        self.count += arrays[0].shape[-2]
        self.bytes += sum(one.nbytes for one in arrays)
        if self.count >= self.enough and (self.count >= _TIMES * self.enough or self.bytes >= _BYTES):
            self.finish()

    def finish(self) -> None:
        """Give away what waits."""
        if self.waiting:
            joined = (
                np.concatenate(parts, axis=max(parts[0].ndim - 2, 0)) for parts in zip(*self.waiting, strict=True)
            )
            self.take(*joined)
        self.waiting, self.count, self.bytes = [], 0, 0
