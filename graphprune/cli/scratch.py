"""What a command puts aside while it works lies in one folder, which goes with it, however it ends."""

from __future__ import annotations

import _thread
import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from graphprune.interruption import undisturbed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".graphprune-scratch-"
_NAME = re.compile(rf"{re.escape(_PREFIX)}\w{{8}}")
_MARK = ".in-use-by-graphprune"
"""A file in each folder of this kind, which holds the lock: what has none is not ours, whatever it is called."""


_PAUSE = 3.0
"""Seconds in which a second signal is taken for the first, while all is cleaned up."""
_AGAIN = 0.05
"""Seconds after which a signal comes again that was lost."""
_own: set[tuple[int, Path]] = set()
"""Folders that are there, each with the process that made it."""


class Terminated(KeyboardInterrupt):
    """The system, or whoever runs this, asks the program to end; it ends as by an interruption, with all cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_status = 128 + number


@contextmanager
def scratch() -> Iterator[None]:
    """Temporary files of this process go to one folder, which is removed at the end.

    Workers that it starts keep to theirs: they may outlive one command, and work for the next one. The folder is locked
    as long as the process lives: folders that are not were left by ones that were killed, and go too.
    """
    where, made = tempfile.tempdir, list[tuple[Path, int]]()
    try:
        with undisturbed():
            made.append(_made())
            tempfile.tempdir = str(made[0][0])
            if fcntl is not None:
                _clear(made[0][0].parent, made[0][0])
        yield
    finally:
        with undisturbed():
            tempfile.tempdir = where
            for folder, handle in made:
                os.close(handle)  # before the folder goes: where there are no locks, open files stay
                _remove(folder)


def _made() -> tuple[Path, int]:
    """A folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        _own.add((os.getpid(), folder))
        with suppress(FileNotFoundError, BlockingIOError):  # another takes it for one that was left, until it is locked
            return folder, _marked(folder)


def _marked(folder: Path) -> int:
    new = folder / f"{_MARK}.new"
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # file systems without locks
                pass
            new.rename(folder / _MARK)  # from here on others see it, and that it is locked
    except BaseException:
        os.close(handle)
        raise
    return handle


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _own.discard((os.getpid(), folder))


def _remove_all() -> None:
    """What an interruption at the wrong moment has left; copies of the process have no part in it."""
    for process, folder in list(_own):
        if process == os.getpid():
            _remove(folder)


atexit.register(_remove_all)


def _clear(where: Path, own: Path) -> None:
    """Remove the folders of this user's processes that are no more."""
    with suppress(OSError):
        for folder in sorted(where.glob(f"{_PREFIX}*")):
            if folder == own or not _NAME.fullmatch(folder.name):
                continue
            with suppress(OSError):
                if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                    _clear_one(folder)


def _clear_one(folder: Path) -> None:
    """Remove a folder that no process holds; one without any mark only where nothing is in it."""
    from graphprune.model.locks import free  # imports onnx, which help that is quick does without

    with suppress(OSError):
        folder.rmdir()  # its process was killed before it could mark it
        return
    for name in (_MARK, f"{_MARK}.new"):
        with free(folder / name) as is_free:
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)


class _Ending:
    """What a signal does that asks the program to end: an exception, once; who is impatient does not stop cleaning."""

    def __init__(self) -> None:
        self.last = -_PAUSE

    def __call__(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - self.last >= _PAUSE:
            self.last = now
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    def lost(self, caught: Any) -> None:
        """It was raised where Python goes on all the same, as within a destructor: it comes again."""
        if not isinstance(caught.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(caught)
            return
        number = getattr(caught.exc_value, "exit_status", 128 + signal.SIGINT) - 128
        self.last = -_PAUSE
        again = threading.Timer(_AGAIN, _thread.interrupt_main, (number,))
        again.daemon = True
        again.start()


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs as SIGINT does, so that all that is cleaned up at an end is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    asked = [s for name in ("SIGINT", "SIGTERM", "SIGHUP") if (s := getattr(signal, name, None)) is not None]
    usual, end, hook = (signal.SIG_DFL, signal.default_int_handler), _Ending(), sys.unraisablehook
    before = {s: signal.signal(s, end) for s in asked if signal.getsignal(s) in usual}
    sys.unraisablehook = end.lost
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
