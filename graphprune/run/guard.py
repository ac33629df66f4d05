"""Limits of runs in this process, of models that have run once in theirs (see ``first``).

On other inputs they may do otherwise: a run that takes too long is stopped between two nodes, and what asks for more
memory than half of the machine has is refused by the system, where that can.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort

from graphprune.model import limits

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_EVERY = 0.5
"""Seconds between two looks at what runs."""
_STATM = Path("/proc/self/statm")


@dataclass(eq=False)
class Guarded:
    """A run, with the options that it takes, and whether it was stopped."""

    seconds: float
    options: ort.RunOptions = field(default_factory=ort.RunOptions)
    late: bool = False

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds


_lock = threading.Lock()
_running: dict[Guarded, None] = {}
_some = threading.Event()
_watching: threading.Thread | None = None


@contextmanager
def guarded(memory: bool = True) -> Iterator[Guarded]:
    """Limit what is run inside.

    Args:
        memory: whether its memory is limited too; drivers of GPUs reserve more than any limit that would be of use.
    """
    one = Guarded(limits.seconds_later())
    _watch()
    _running[one] = None
    _some.set()
    try:
        with _room() if memory else nullcontext():
            yield one
    finally:
        _running.pop(one, None)


def _watch() -> None:
    global _watching
    with _lock:
        if _watching is None or not _watching.is_alive():  # in a fork it is not
            _watching = threading.Thread(target=_look, name="graphprune-guard", daemon=True)
            _watching.start()


def _look() -> None:
    while True:
        _some.wait()
        now = time.monotonic()
        for one in list(_running):
            if now > one.until:
                one.late = one.options.terminate = True
        _some.clear()
        if _running:  # looked at behind the clearing: one that begins between the two would not be seen
            _some.set()
        time.sleep(_EVERY)


_inside = 0
_before = (0, 0)


@contextmanager
def _room() -> Iterator[None]:
    """Let this process take no more than half of what the machine has beside what it holds; runs may overlap."""
    if resource is None or not _STATM.exists():
        yield
        return
    global _inside, _before
    with _lock:
        if not _inside:
            _before = resource.getrlimit(resource.RLIMIT_DATA)
            _limit(_before)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                resource.setrlimit(resource.RLIMIT_DATA, _before)


def _limit(before: tuple[int, int]) -> None:
    held = int(_STATM.read_text().split()[5]) * resource.getpagesize()
    most = held + limits.room()
    soft, hard = before
    resource.setrlimit(resource.RLIMIT_DATA, (most if soft < 0 else min(most, soft), hard))
