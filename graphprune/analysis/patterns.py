"""Patterns: which weights of an array may stay, given what each is worth. Nothing here knows ONNX.

Weights are judged in blocks, so many of them consecutive along the axis that a product sums over. A last, incomplete
block counts as if zeros filled it up. Three patterns come with the package:

- ``N:M``: of every M weights at most N stay. 2:4 is what sparse tensor cores read (Mishra et al., Accelerating Sparse
  Deep Neural Networks, 2021);
- ``1xW``: vectors of W weights stay or go as one, a share of them goes;
- ``unstructured``: single weights go, a share of all.

Patterns of other packages come in by the entry point group ``graphprune.patterns``: subclasses of :class:`Pattern`.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graphprune.errors import InputError, UserCodeError
from graphprune.relation import Values

Mask = npt.NDArray[np.bool_]
GROUP = "graphprune.patterns"
"""Entry points of other packages' patterns."""
_COMPARED = 16
"""Blocks of up to so many elements are ranked by comparing all pairs; larger ones are sorted."""


class Pattern(ABC):
    """What may stay of a weight.

    Subclasses are frozen dataclasses, whose text (``str``) is what they are called by.
    """

    form: ClassVar[str]
    """What its texts are like, for messages."""
    wants_amount: ClassVar[bool] = False
    """Whether its text leaves open which share of the weights goes."""
    competes: ClassVar[bool] = False
    """Whether a block stays at the cost of others, so that as many as can be are judged at once."""

    @classmethod
    @abstractmethod
    def read(cls, text: str, amount: float) -> Pattern | None:
        """The pattern that a text means; None where the text is not of this form.

        Args:
            text: as the user has it.
            amount: the share of the weights that goes, in (0, 1); 0 where the pattern wants none.
        """

    @abstractmethod
    def __str__(self) -> str:
        """The text that reads as this pattern."""

    @property
    @abstractmethod
    def block(self) -> int:
        """How many consecutive weights along the sum are judged together; 1 where it does not matter how they lie."""

    @abstractmethod
    def stay(self, blocks: Values) -> Mask:
        """Which elements of blocks stay: those with the highest scores.

        Args:
            blocks: scores, not negative, ``[blocks, block, columns]``.
        """

    def lacks(self, what: str) -> str:
        """Why something cannot be done with weights of this pattern; empty where it can.

        Args:
            what: ``permute`` (orders of channels in which it keeps more), ``pack`` (a file without the zeros), or
                ``tensorrt`` (sparse kernels).
        """
        return {
            "permute": f"orders of channels are sought for N:M patterns alone, not for {self}",
            "pack": f"what is packed are weights of an N:M pattern, not of {self}",
            "tensorrt": f"TensorRT reads 2:4 alone, not {self}",
        }[what]

    def growing(self, steps: int) -> Sequence[tuple[str, float | None]]:
        """Texts and amounts of patterns that let more and more go, up to this one.

        Where the share is open it grows as ``1 - (1 - t)^3``, fast while much can be spared (Zhu and Gupta, To prune,
        or not to prune, 2017).

        Args:
            steps: how many, at least 1.

        Raises:
            InputError: there are not so many between dense and this one.
        """
        whole = getattr(self, "amount", None)
        if steps == 1:
            return [(str(self), whole)]
        if not self.wants_amount or not isinstance(whole, float):
            raise InputError(f"--steps {steps}: {self} says itself how many go, so that there is nothing between")
        return [(str(self), whole * (1 - (1 - t / steps) ** 3)) for t in range(1, steps)] + [(str(self), whole)]

    def kept(self, scores: Values, axis: int) -> Mask:
        """Which elements stay.

        Args:
            scores: of any shape, not negative.
            axis: along which blocks lie.
        """
        rows = np.moveaxis(scores, axis, 0)
        size, gap = len(rows), -len(rows) % self.block
        flat = rows.reshape(size, -1)
        filled = np.concatenate([flat, np.zeros((gap, flat.shape[1]), flat.dtype)]) if gap else flat
        stay = self.stay(filled.reshape(-1, self.block, flat.shape[1]))
        return np.moveaxis(stay.reshape(size + gap, -1)[:size].reshape(rows.shape), 0, axis)

    def follows(self, value: Values, axis: int) -> bool:
        """Whether a tensor has the pattern along an axis; one too short for a whole block has not."""
        if value.shape[axis] < self.block:
            return False
        there = value != 0
        return not (there & ~self.kept(there.astype(np.float32), axis)).any()


@dataclass(frozen=True, slots=True)
class OfEvery(Pattern):
    """At most ``n`` of every ``m`` elements."""

    form: ClassVar[str] = "N:M with 0 < N < M (2:4 keeps 2 of every 4 weights)"

    n: int
    m: int

    @classmethod
    def read(cls, text: str, amount: float = 0) -> OfEvery | None:
        """Read ``N:M``."""
        found = re.fullmatch(r"(\d+):(\d+)", text)
        return cls(int(found[1]), int(found[2])) if found and 0 < int(found[1]) < int(found[2]) else None

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def block(self) -> int:
        """M."""
        return self.m

    def stay(self, blocks: Values) -> Mask:
        """In each block those with the highest scores, of equal ones the first."""
        return _best(blocks, 1, self.n)

    def lacks(self, what: str) -> str:
        """Nothing, but that TensorRT reads one of them alone."""
        return Pattern.lacks(self, what) if what == "tensorrt" and (self.n, self.m) != (2, 4) else ""

    def growing(self, steps: int) -> Sequence[tuple[str, float | None]]:
        """From all but one of every M to N, evenly: 3:4, then 2:4."""
        gone = self.m - self.n
        if steps > gone:
            raise InputError(f"--steps {steps}: between dense and {self} there are {gone}; give at most so many")
        return [(f"{self.m - math.ceil(gone * t / steps)}:{self.m}", None) for t in range(1, steps + 1)]

    def kept(self, scores: Values, axis: int) -> Mask:
        """The same without a copy of the scores: these are the largest arrays that there are."""
        found = np.empty(scores.shape, bool)
        for part, blocks in self._blocks(scores, axis):
            found[part] = _best(blocks, axis + 1, self.n).reshape(found[part].shape)
        return found

    def follows(self, value: Values, axis: int) -> bool:
        """The same by counting, which takes a fraction of the time."""
        if value.shape[axis] < self.m:
            return False
        for _, blocks in self._blocks(value != 0, axis):
            count = np.zeros(blocks[_at(axis + 1, 0)].shape, np.int32)
            for k in range(blocks.shape[axis + 1]):
                count += blocks[_at(axis + 1, k)]
            if (count > self.n).any():
                return False
        return True

    def _blocks(self, value: Values, axis: int) -> list[tuple[tuple[slice, ...], Values]]:
        """The whole blocks of an array, and what is left of the last one: where they stand, and with an axis more."""
        size, before, after = value.shape[axis], value.shape[:axis], value.shape[axis + 1 :]
        full = size - size % self.m
        parts = [(0, full, self.m)] * (full > 0) + [(full, size, size - full)] * (size > full)
        found = []
        for start, stop, width in parts:
            where = (*(slice(None),) * axis, slice(start, stop))
            found.append((where, value[where].reshape(*before, (stop - start) // width, width, *after)))
        return found


@dataclass(frozen=True, slots=True)
class Vectors(Pattern):
    """Vectors of ``width`` weights along the sum that go as one."""

    form: ClassVar[str] = "1xW with W > 1 (1x4 lets every 4 weights go as one)"
    wants_amount: ClassVar[bool] = True
    competes: ClassVar[bool] = True

    width: int
    amount: float

    @classmethod
    def read(cls, text: str, amount: float) -> Vectors | None:
        """Read ``1xW``."""
        found = re.fullmatch(r"1x(\d+)", text)
        return cls(int(found[1]), amount) if found and int(found[1]) > 1 else None

    def __str__(self) -> str:
        return f"1x{self.width}"

    @property
    def block(self) -> int:
        """W."""
        return self.width

    def stay(self, blocks: Values) -> Mask:
        """Those vectors whose scores sum to most."""
        return np.broadcast_to(highest(blocks.sum(1, keepdims=True), self.amount), blocks.shape)


@dataclass(frozen=True, slots=True)
class Unstructured(Pattern):
    """Single weights, wherever they lie."""

    form: ClassVar[str] = "unstructured"
    wants_amount: ClassVar[bool] = True
    competes: ClassVar[bool] = True

    amount: float

    @classmethod
    def read(cls, text: str, amount: float) -> Unstructured | None:
        """Read ``unstructured``."""
        return cls(amount) if text == cls.form else None

    def __str__(self) -> str:
        return self.form

    @property
    def block(self) -> int:
        """One: it does not matter how they lie."""
        return 1

    def stay(self, blocks: Values) -> Mask:
        """Those with the highest scores of all."""
        return highest(blocks, self.amount)


SPARSE = OfEvery(2, 4)
"""The pattern of sparse tensor cores, the only one that TensorRT reads."""
_OWN: tuple[type[Pattern], ...] = (OfEvery, Vectors, Unstructured)


@lru_cache(maxsize=1)
def known() -> Sequence[type[Pattern]]:
    """All patterns that are installed.

    Raises:
        UserCodeError: one of another package does not import, or is no pattern.
    """
    found = list(_OWN)
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        told = f"pattern {entry.name!r} of entry point {entry.value!r}"
        try:
            loaded = entry.load()
        except Exception as error:  # whatever a package raises when it is imported
            raise UserCodeError(f"{told} does not import: {error}; mend or uninstall the package") from error
        if not (isinstance(loaded, type) and issubclass(loaded, Pattern)):
            raise UserCodeError(f"{told} is no subclass of {Pattern.__module__}.Pattern")
        found.append(loaded)
    return found


def parse(text: str, amount: float | None = None) -> Pattern:
    """The pattern that a text means.

    Args:
        text: as the user has it.
        amount: the share of the weights that goes, for patterns whose text leaves it open.

    Raises:
        InputError: no pattern has such a text, or an amount is missing, out of range, or makes no sense.
    """
    for kind in known():
        found = kind.read(text, amount or 0.0)
        if found is None:
            continue
        if not kind.wants_amount and amount is not None:
            open_ = " or ".join(k.form.split()[0] for k in known() if k.wants_amount)
            raise InputError(f"--amount goes with --pattern {open_}; {text} says itself how many go")
        if kind.wants_amount and (amount is None or not 0 < amount < 1):
            given = "there is none" if amount is None else f"{amount:g} is out of range"
            raise InputError(f"--pattern {text} wants --amount, the share of weights that go, in (0, 1): {given}")
        return found
    raise InputError(f"--pattern {text}: there is none like it; choose from {'; '.join(k.form for k in known())}")


def highest(scores: Values, amount: float) -> Mask:
    """What stays once a share of all has gone, the lowest first, of equal ones the last; never less than the share."""
    gone = math.ceil(round(amount * scores.size, 6))
    order = np.argsort(scores.reshape(-1)[::-1], kind="stable")[:gone]
    found = np.ones(scores.size, bool)
    found[scores.size - 1 - order] = False
    return found.reshape(scores.shape)


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
