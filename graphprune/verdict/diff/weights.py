"""What became of a constant: the same, a part of it, other values, another precision, other zeros."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from onnx import TensorProto

from graphprune.relation import IntArray, Values
from graphprune.verdict.diff.flat import Constant

STATES = ("reordered", "transposed", "reshaped", "cut", "cast", "changed", "cut and changed", "resized")
"""What can have become of a constant that is in both models and is not the same:

- reordered: the same slices along its axes, in another order
- transposed, reshaped: the same elements, in two other orders of axes, in another shape
- cut: a part of it, element for element
- cast: another type, and no value further away than rounding takes it
- changed: other values
- cut and changed: fewer, and not those that it had
- resized: another shape, larger somewhere
"""
_SHOWN = 8
"""Numbers of at most so many elements are shown by value."""
_ROUNDING = 2.0**-7
"""Relative to the norm: half a step of bfloat16 is 2^-9."""


@dataclass(frozen=True)
class Fate:
    """What became of one constant.

    Attributes:
        state: one of ``STATES``.
        kept: of a part, for each axis how many indices of the original stay; None where they are not known.
        relative: norm of the difference by that of the original, where elements correspond.
        largest: the largest difference of an element.
        elements: how many elements differ.
    """

    state: str
    kept: tuple[int, ...] | None = None
    relative: float | None = None
    largest: float | None = None
    elements: int | None = None


def fate(before: Constant, after: Constant) -> Fate | None:
    """What became of a constant; None where it is the same."""
    if before.digest == after.digest:
        return None
    a, b = before.array, after.array
    if object in (a.dtype, b.dtype):
        return Fate("changed" if a.shape == b.shape else "resized")
    if before.tensor.data_type == after.tensor.data_type:
        found = _moved(a, b)
        if found is not None:
            return found
    if a.shape == b.shape:
        return _changed(before.tensor.data_type, after.tensor.data_type, a, b)
    smaller = a.ndim == b.ndim and all(n <= m for n, m in zip(b.shape, a.shape, strict=True))
    return Fate("cut and changed" if smaller else "resized")


def zeros(constant: Constant) -> float | None:
    """Share of the elements that are zero; None where there are none, or texts."""
    value = constant.array
    return None if not value.size or value.dtype == object else 1 - np.count_nonzero(value) / value.size


def values(constant: Constant) -> Any:
    """The elements of a small constant, for JSON; None of a larger one."""
    value = constant.array
    if value.size > _SHOWN or value.dtype == object:
        return None
    plain = value.astype(np.float64).tolist() if constant.tensor.data_type in _FLOATS else value.tolist()
    flat = np.asarray(plain, dtype=object).reshape(-1)
    finite = all(not isinstance(v, float) or isfinite(v) for v in flat)
    return plain if finite and all(isinstance(v, int | float) for v in flat) else None


_FLOATS = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
}


def _changed(before: int, after: int, a: Values, b: Values) -> Fate:
    """Of two constants of one shape with different elements or types."""
    if before != after and not {before, after} <= _FLOATS:
        return Fate("changed")  # codes of a quantised weight are no values of it
    with np.errstate(invalid="ignore", over="ignore"):
        one, other = a.astype(np.float64), b.astype(np.float64)
        gap = np.abs(other - one)
        norm = float(np.linalg.norm(one))
        relative = float(np.linalg.norm(gap)) / norm if norm else None
    largest = float(gap.max()) if gap.size else 0.0
    state = "cast" if before != after and relative is not None and relative <= _ROUNDING else "changed"
    clean = None if relative is None or not isfinite(relative) else relative
    return Fate(state, None, clean, largest if isfinite(largest) else None, int(np.count_nonzero(gap)))


def _moved(a: Values, b: Values) -> Fate | None:
    """Whether a constant has only elements of another of its type, where they were or in another order."""
    one, other = _bits(a), _bits(b)
    if one.size == other.size and one.shape != other.shape and np.array_equal(one.reshape(-1), other.reshape(-1)):
        return Fate("reshaped")
    if one.ndim == 2 and one.T.shape == other.shape and np.array_equal(one.T, other):
        return Fate("transposed")
    if one.ndim != other.ndim or not other.size or any(n > m for n, m in zip(other.shape, one.shape, strict=True)):
        return None
    if one.ndim == 1:
        found, counts = np.unique(one, return_counts=True)
        parts, wanted = np.unique(other, return_counts=True)
        at = np.minimum(np.searchsorted(found, parts), len(found) - 1)
        if not (np.array_equal(found[at], parts) and (counts[at] >= wanted).all()):
            return None
        return Fate("cut" if one.size > other.size else "reordered", other.shape, 0.0)
    kept = _part(one, other)
    if kept is None:
        return None
    return Fate("cut" if one.size > other.size else "reordered", tuple(map(len, kept)), 0.0)


def _part(one: Values, other: Values) -> list[IntArray] | None:
    """For each axis the indices of a tensor that make another of it; None where nothing tells them."""
    for share in (0, 2, 1):  # a line through the first element, the middle, the last: until no value occurs twice
        origin = tuple(share * (n - 1) // 2 for n in other.shape)
        places = [[*origin[:k], slice(None), *origin[k + 1 :]] for k in range(other.ndim)]
        lines = [other[tuple(place)] for place in places]
        kept = [_indices(one, line, k) for k, line in enumerate(lines)]
        found = [own for own in kept if own is not None]
        if len(found) == other.ndim and np.array_equal(one[np.ix_(*found)], other):
            return found
    return None


def _indices(one: Values, line: Values, axis: int) -> IntArray | None:
    """Along an axis of a tensor, where the values of a line stand; None where one of them stands at several places."""
    if len(line) == one.shape[axis] == 1:
        return np.zeros(1, np.int64)
    order = np.argsort(line, kind="stable")
    wanted, flat = line[order], one.reshape(-1)
    at = np.minimum(np.searchsorted(wanted, flat), len(wanted) - 1)
    hits = np.flatnonzero(wanted[at] == flat)
    if len(hits) != len(line) or len(np.unique(at[hits])) != len(line):
        return None
    found = np.empty(len(line), np.int64)
    found[order[at[hits]]] = np.unravel_index(hits, one.shape)[axis]
    return found


def _bits(value: Values) -> Values:
    """Elements as whole numbers, so that NaN is itself and -0.0 is not 0.0."""
    flat = np.ascontiguousarray(value)
    return (flat if flat.itemsize > 8 else flat.view(f"u{flat.itemsize}")).reshape(value.shape)
