"""Locks of the system on files and folders: they end with their process, however that ends.

A folder is locked by itself (``flock``); where the file system locks no folders, as NFS, by a file in it. Where it
locks nothing, and on Windows, two runs at once are not kept apart, and what killed ones left is not known for that.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graphprune.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ARE_THERE = fcntl is not None
"""Whether the system has locks of this kind at all."""
_FILE = ".graphprune-lock"
"""Stands for its folder where folders cannot be locked."""
_PATIENCE, _PAUSE = 60.0, 0.005
"""Seconds in which whoever holds a folder should be done, and between two looks."""
_ANY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
"""Links lead nowhere, and no pipe is waited for."""


@contextmanager
def alone_in(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """Nobody else clears these folders, or puts files in their places there; yields those that could be locked.

    Raises:
        InputError: somebody else has one, and does not let it go.
    """
    with ExitStack() as stack:
        yield [folder for folder in _apart(folders) if _locked(folder, stack)]


def _apart(folders: Iterable[Path]) -> list[Path]:
    """Each folder once, by whatever path it is reached, and in one order for all processes."""
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        with suppress(OSError):
            known = folder.stat()
            found.setdefault((known.st_dev, known.st_ino), folder)
    return [found[key] for key in sorted(found)]


def _locked(folder: Path, stack: ExitStack) -> bool:
    """Lock a folder until the stack is unwound."""
    if fcntl is None:
        return False
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, handle)
        _wait(handle, folder)
        return True
    with suppress(OSError):
        handle = _by_file(folder)
        stack.callback(os.close, handle)
        stack.callback(_take_away, folder / _FILE)  # which comes first: nobody else has it yet
        return True
    return False


def _take_away(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _by_file(folder: Path) -> int:
    """A descriptor that holds the file which stands for a folder; whoever lets it go takes it away."""
    while True:
        handle = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | _ANY, 0o666)
        try:
            _wait(handle, folder)
            if os.path.samestat(os.fstat(handle), (folder / _FILE).stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException as error:
            os.close(handle)
            if isinstance(error, OSError):  # nobody can lock it
                _take_away(folder / _FILE)
            raise
        os.close(handle)


def _wait(handle: int, folder: Path) -> None:
    """Lock what is open, as soon as it is free."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise InputError(f"{folder}: another process has held its lock for {_PATIENCE:g} s") from None
            time.sleep(_PAUSE)
        else:
            return


def hold(handle: int) -> int | None:
    """A second descriptor of an open file that nobody else knows of yet, which holds its lock until it is closed."""
    if fcntl is None:
        return None
    held = os.dup(handle)
    with suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def unlocked(path: Path) -> bool:
    """Whether a file is there, and no process holds its lock; where there are no locks, none is known to be free."""
    with free(path) as found:
        return found


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether a file is there that no process holds, as :func:`unlocked`, which stays so for a while."""
    with ExitStack() as stack:
        yield fcntl is not None and _shared(path, stack)


def _shared(path: Path, stack: ExitStack) -> bool:
    """Take a lock on a file that keeps others from holding it; whether that was to be had."""
    try:
        handle = os.open(path, os.O_RDONLY | _ANY)
        stack.callback(os.close, handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
