"""How much memory and time a model, its inputs and files beside it may ask for: told before anything is taken.

A file of a few bytes can ask for any amount: a constant shape to be filled, a tile, a doubling Concat, a sparse tensor,
the header of an array. Half of what the machine has is the limit unless the user says another: of one tensor, of what
is alive at once, and of what is read whole. How long a run takes only the run tells, which is stopped (``apart``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from math import prod
from pathlib import Path

from onnx import helper

_FALLBACK = 8 << 30
"""Bytes that a machine is taken to have which does not say, as Windows."""
_GROUPS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says what a container may have, in the second and the first version of its control groups."""
_given: ContextVar[int | None] = ContextVar("memory", default=None)
RANK = 64
"""Axes that a tensor may have: as many as NumPy's have."""
TRIPS = 1 << 24
"""How often the body of a loop may run, all loops around it taken together: minutes in ONNX Runtime."""
_patience: ContextVar[float | None] = ContextVar("run_time", default=None)
_FIRST, _FOR_WEIGHTS = 45.0, 0.45e-6
"""Seconds for the first run of a model, and beside them for each byte of its weights."""
_LATER, _TIMES = 1800.0, 10
"""Seconds for any later one; where the user says what one may take, how many times that."""


def limit() -> int:
    """Bytes that one tensor may take, or all that are alive at once."""
    return _given.get() or _machine() // 2


def _machine() -> int:
    """Bytes that this process may have: of the machine, of its container, and of its shell (``ulimit -v``)."""
    found = [_installed()]
    with suppress(ImportError, ValueError, OSError):
        import resource  # Unix alone has it

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [own] if own != resource.RLIM_INFINITY else []
    return min(found)


@cache
def _installed() -> int:
    """Bytes of the machine and its container, read once: every tensor is held against them."""
    found = [_FALLBACK]
    with suppress(AttributeError, ValueError, OSError):  # else Windows
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in _GROUPS:
        with suppress(ValueError, OSError):  # where there is no limit it says "max"
            found.append(int(place.read_text()))
    return min(found)


def room() -> int:
    """Bytes that a run in this process may take beside what it holds."""
    return max(limit(), _machine() // 2)


@contextmanager
def memory(bytes_: int | None) -> Iterator[None]:
    """Let so many bytes be taken; None is what was allowed before."""
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


def size(shape: Sequence[int], kind: int) -> int:
    """Bytes of a tensor.

    Args:
        shape: of the tensor.
        kind: its ``TensorProto`` data type.
    """
    return prod(shape) * _width(kind)  # Python's own integers, which know no overflow


@cache
def _width(kind: int) -> int:
    try:
        return max(helper.tensor_dtype_to_np_dtype(kind).itemsize, 1)
    except KeyError:
        return 1


def too_large(shape: Sequence[int], kind: int) -> str | None:
    """What to say of a tensor that takes more than is allowed; None of one that does not (see :func:`size`)."""
    found = size(shape, kind)
    return None if found <= limit() else f"{shown(shape)}, {too_many(found)}"


def too_many(bytes_: int) -> str | None:
    """What to say of so many bytes where they are more than is allowed; None where they are not."""
    allowed = limit()
    if bytes_ <= allowed:
        return None
    return f"{told(bytes_)}, more than the {told(allowed)} that are allowed; --memory allows more"


def shown(shape: Sequence[int]) -> str:
    """A shape in words: ``3x224x224``."""
    whole = "x".join(map(str, shape[:RANK]))
    return whole if len(shape) <= RANK else f"{whole}x... ({len(shape)} axes)"


def told(bytes_: int) -> str:
    """So many bytes in words: ``11.8 GiB``."""
    for unit, factor in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if bytes_ >> factor:
            return f"{bytes_ / (1 << factor):.3g} {unit}" if factor < 60 or bytes_ < 1 << 70 else "over 1,000 EiB"
    return f"{bytes_} bytes"
