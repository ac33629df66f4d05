"""What a command puts aside while it works lies in one folder, which goes with it, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX = "graphprune-"


class Terminated(KeyboardInterrupt):
    """The system, or whoever runs this, asks the program to end; it ends as by an interruption, with all cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_status = 128 + number


@contextmanager
def scratch() -> Iterator[None]:
    """Temporary files of this process, and of those that it starts, go to one folder, which is removed at the end.

    It is locked as long as the process lives: folders that are not were left by ones that were killed, and go too.
    """
    where, setting = tempfile.tempdir, os.environ.get("TMPDIR")
    folder, handle = _made()
    _clear(folder.parent)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = where
        os.environ.pop("TMPDIR") if setting is None else os.environ.update(TMPDIR=setting)
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _made() -> tuple[Path, int | None]:
    """A new folder, and what holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = _locked(folder)
        if fcntl is None or (handle is not None and folder.exists()):
            return folder, handle  # else another process took it for one that was left, before it was locked
        if handle is not None:
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder; None where another has it, or there are no locks."""
    if fcntl is None:
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle
    return None


def _clear(where: Path) -> None:
    """Remove the folders of this user's processes that are no more."""
    with suppress(OSError):
        for folder in sorted(where.glob(f"{_PREFIX}*")):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            if (handle := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what runs as SIGINT does, so that all that is cleaned up at an end is cleaned up."""

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    asked = [s for name in ("SIGTERM", "SIGHUP") if (s := getattr(signal, name, None)) is not None]
    before = {s: signal.signal(s, end) for s in asked if signal.getsignal(s) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
