"""How much memory one tensor of a model may take: asked of its shape, before anything is allocated for it.

A file of a few bytes can ask for any amount: a constant shape to be filled, a tile, a doubling Concat. Half of what the
machine has is the limit unless the user says another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

from onnx import helper

_FALLBACK = 4 << 30
_given: ContextVar[int | None] = ContextVar("memory", default=None)
_patience: ContextVar[float | None] = ContextVar("run_time", default=None)
_FIRST, _FOR_WEIGHTS = 45.0, 0.45e-6
"""Seconds for the first run of a model, and beside them for each byte of its weights."""
_LATER, _TIMES = 1800.0, 10
"""Seconds for any later one; where the user says what one may take, how many times that."""


def limit() -> int:
    """Bytes that one tensor may take."""
    return _given.get() or _half()


def room() -> int:
    """Bytes that a run in this process may take beside what it holds."""
    return max(limit(), _half())


def _half() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        return _FALLBACK


@contextmanager
def memory(bytes_: int | None) -> Iterator[None]:
    """Let one tensor take so many bytes; None is what was allowed before."""
    token = _given.set(bytes_ or _given.get())
    try:
        yield
    finally:
        _given.reset(token)


@contextmanager
def run_time(seconds: float | None) -> Iterator[None]:
    """Let one run of a model take so many seconds; None is what was allowed before."""
    token = _patience.set(seconds or _patience.get())
    try:
        yield
    finally:
        _patience.reset(token)


def seconds(weights: int) -> float:
    """What the first run of a model may take: it is generated, small, and meant to show that the model runs.

    Args:
        weights: bytes of them.
    """
    return _patience.get() or _FIRST + weights * _FOR_WEIGHTS


def seconds_later() -> float:
    """What any further run may take, whose inputs may be many and large."""
    given = _patience.get()
    return _LATER if given is None else given * _TIMES


def too_large(shape: Sequence[int], kind: int) -> str | None:
    """What to say of a tensor that takes more than is allowed; None of one that does not.

    Args:
        shape: of the tensor.
        kind: its ``TensorProto`` data type.
    """
    try:
        width = helper.tensor_dtype_to_np_dtype(kind).itemsize
    except KeyError:
        width = 1
    size = prod(shape) * max(width, 1)  # Python's own integers, which know no overflow
    if size <= limit():
        return None
    sizes = "x".join(map(str, shape))
    return f"{sizes}, {told(size)}, more than the {told(limit())} that are allowed; --memory allows more"


def told(size: int) -> str:
    """A number of bytes as words."""
    for unit, factor in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if size >> factor:
            return f"{size / (1 << factor):.3g} {unit}" if factor < 60 or size < 1 << 70 else "over 1,000 EiB"
    return f"{size} bytes"
