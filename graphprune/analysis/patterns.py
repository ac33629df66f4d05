"""N:M patterns: of every M consecutive elements along an axis at most N differ from zero.

2:4 is what sparse tensor cores read (Mishra et al., Accelerating Sparse Deep Neural Networks, 2021). A last, incomplete
block counts as if zeros filled it up. Nothing here knows ONNX.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.errors import InputError
from graphprune.relation import Values

Mask = npt.NDArray[np.bool_]
_COMPARED = 16
"""Blocks of up to so many elements are ranked by comparing all pairs; larger ones are sorted."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """At most ``n`` of every ``m`` elements."""

    n: int
    m: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read ``N:M``.

        Raises:
            InputError: it is something else, or keeps nothing or everything.
        """
        found = re.fullmatch(r"(\d+):(\d+)", text)
        if not found or not 0 < int(found[1]) < int(found[2]):
            raise InputError(f"--pattern {text}: not like N:M with 0 < N < M; 2:4 keeps 2 of every 4 weights")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def kept(self, scores: Values, axis: int) -> Mask:
        """Which elements stay: in each block those with the highest scores, of equal ones the first.

        Args:
            scores: of any shape.
            axis: along which blocks lie.
        """
        size = scores.shape[axis]
        full = size - size % self.m
        before, after = scores.shape[:axis], scores.shape[axis + 1 :]
        found = np.empty(scores.shape, bool)
        for start, stop, width in ((0, full, self.m), (full, size, size - full)):
            if stop > start:
                part = (slice(None),) * axis + (slice(start, stop),)
                blocks = scores[part].reshape(*before, (stop - start) // width, width, *after)
                ranked = _best(blocks, axis + 1, self.n)
                found[part] = ranked.reshape(*before, stop - start, *after)
        return found

    def follows(self, value: Values, axis: int) -> bool:
        """Whether a tensor has the pattern along an axis; one too short for a whole block has not."""
        size = value.shape[axis]
        if size < self.m:
            return False
        nonzero, full = value != 0, size - size % self.m
        for start, stop, width in ((0, full, self.m), (full, size, size - full)):
            if stop > start:
                part = nonzero[(slice(None),) * axis + (slice(start, stop),)]
                blocks = part.reshape(*value.shape[:axis], (stop - start) // width, width, *value.shape[axis + 1 :])
                count = np.zeros(blocks[_at(axis + 1, 0)].shape, np.int32)
                for k in range(width):
                    count += blocks[_at(axis + 1, k)]
                if (count > self.n).any():
                    return False
        return True


def _best(blocks: Values, axis: int, n: int) -> Mask:
    """The highest ``n`` along an axis."""
    width = blocks.shape[axis]
    if n >= width:
        return np.ones(blocks.shape, bool)
    if width > _COMPARED:
        order = np.argsort(-blocks, axis=axis, kind="stable")
        found = np.zeros(blocks.shape, bool)
        np.put_along_axis(found, np.take(order, np.arange(n), axis), True, axis)
        return found
    found = np.empty(blocks.shape, bool)
    elements = [blocks[_at(axis, k)] for k in range(width)]
    beaten = [np.zeros(elements[0].shape, np.int8) for _ in elements]
    for i in range(width):
        for j in range(i + 1, width):
            first = elements[i] >= elements[j]
            beaten[j] += first
            beaten[i] += ~first
    for k, count in enumerate(beaten):
        np.less(count, n, out=found[_at(axis, k)])
    return found


def _at(axis: int, k: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, k)
