"""Finished files go to their places together, under a lock; what is killed on the way leaves nothing half done.

A file waits beside its place as ``.NAME.XXXXXXXX.waiting``, locked as long as its process lives. What waits and is not
locked was left by a process that was killed, and is cleared away by the next one that writes to that folder. The files
of one run go to their places under a lock on their folders, so that two runs to the same output do not mix; a journal
in each folder says which, so that a run that is killed between two of them is brought to its end by the next one.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EISDIR
from pathlib import Path

from graphprune.errors import InputError
from graphprune.interruption import undisturbed
from graphprune.model import journal
from graphprune.model.journal import OLD, WAITING
from graphprune.model.locks import ARE_THERE, alone_in, hold, unlocked

_SHOWN = 24
"""Characters of a name that one of what waits for it shows: names have at most 255 bytes, on some systems 143."""
_held: dict[Path, tuple[int, int | None]] = {}
"""By file that waits, the process that made it, and the descriptor that holds its lock."""
_cleared: set[tuple[int, int]] = set()
"""Folders in which this process has looked for what others left: it is a long look where there are many files."""


@contextmanager
def _alone_in(folders: Sequence[Path]) -> Iterator[None]:
    """Nobody else is at these folders; what the dead left there is brought to an end."""
    with alone_in(folders) as locked, undisturbed():
        for folder in locked:
            with suppress(OSError):
                journal.recover(folder)
                _clear(folder)
        yield


def settle(folder: Path) -> None:
    """Bring to its end what was killed while it put files in their places: for who reads them."""
    if ARE_THERE and journal.found(folder):
        with _alone_in([folder]):
            pass


def waiting(folder: Path | None, name: str) -> tuple[int, Path]:
    """An open descriptor and the path of a file that waits to go to a place.

    Args:
        folder: of the place; None is for temporary files, for what goes to a stream.
        name: of the place.

    Raises:
        OSError: there is no room for it.
    """
    with _alone_in([] if folder is None else [folder]):
        handle, made = tempfile.mkstemp(WAITING, f".{name[:_SHOWN]}.", folder)
        _held[Path(made)] = os.getpid(), hold(handle)
    return handle, Path(made)


def forget(temporary: Path) -> None:
    """Remove a file that waits no longer, if it is there; where that fails the next run does it."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
    _release(temporary)


def _release(temporary: Path) -> None:
    _, held = _held.pop(temporary, (0, None))
    if held is not None:
        os.close(held)


def _forget_all() -> None:
    """What still waits at the end of the process will never be finished; copies of the process have no part in it."""
    for temporary, (process, _) in list(_held.items()):
        if process == os.getpid():
            forget(temporary)


atexit.register(_forget_all)


@dataclass
class _Step:
    """A file that goes to its place.

    Attributes:
        temporary: where it waits.
        target: its place.
        away: whether what is in its place is to be away before any file goes.
        left: whether it stays where it is, for another run.
    """

    temporary: Path
    target: Path
    away: bool = False
    left: bool = False

    @property
    def kept(self) -> Path:
        """The other name of what was there, to bring it back by."""
        return self.temporary.with_name(f"{self.temporary.name}{OLD}")

    def keep(self) -> None:
        """Give what is there its other name."""
        if self.target.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not self.target.exists():
            return
        if not self.away:
            with suppress(OSError):  # not every file system has hard links
                os.link(self.target, self.kept)
                return
        self.target.replace(self.kept)

    def take_back(self) -> None:
        """Have it wait again, and bring back what was there."""
        if not self.temporary.exists():
            self.target.replace(self.temporary)
        if self.kept.exists():
            self.kept.replace(self.target)
            self.kept.unlink(missing_ok=True)  # two names of one file: it had not gone yet


def move(files: Sequence[tuple[Path, Path]], fresh: Collection[Path] = (), apart: bool = False) -> None:
    """Put files that wait into their places: all of them, or none where one of them cannot be.

    Args:
        files: each with its place, links followed; what others are nothing without comes last.
        fresh: places in which nothing may be yet.
        apart: what is in the last place is taken away first: whoever reads it now would take the others for its own.

    Raises:
        InputError: one cannot be put into its place; what was before is there again.
    """
    steps = [_Step(*pair) for pair in files]
    if apart and steps:
        steps[-1].away = True
    try:
        with _alone_in([target.parent for _, target in files]):
            taken = next((target for target in fresh if target.exists()), None)
            if taken is not None:
                raise InputError(f"{taken}: another run has written it meanwhile; --force writes over it")
            _go(steps)
    finally:
        with undisturbed():
            for one in steps:
                _release(one.temporary) if one.left else forget(one.temporary)


def _go(steps: Sequence[_Step]) -> None:
    """Take all steps, or none; whoever asks holds the locks on all folders."""
    written, at = list[Path](), steps[-1] if steps else None
    try:
        if len(steps) > 1:  # one alone is there, or is not, whatever happens
            written = journal.write([(one.temporary, one.target) for one in steps]) if ARE_THERE else []
            for at in sorted(steps, key=lambda one: not one.away):
                at.keep()
        for at in steps:
            at.temporary.replace(at.target)
    except BaseException as error:
        whole = _taken_back(steps)
        if whole:
            journal.remove(written[::-1])
        if not isinstance(error, OSError) or at is None:
            raise
        then = (
            "nothing was"
            if whole
            else "what was there could not be brought back: the next run that writes there ends it"
        )
        raise InputError(f"{at.target}: cannot be written ({error.strerror or error}); {then}") from error
    journal.remove(written)
    for one in steps:
        with suppress(OSError):
            one.kept.unlink(missing_ok=True)


def _taken_back(steps: Sequence[_Step]) -> bool:
    """Have all be as before; where that fails all stays as it is, with journals that say where it goes."""
    try:
        for one in reversed(steps):
            one.take_back()
    except OSError:
        for one in steps:
            one.left = True
        return False
    return True


def _clear(folder: Path) -> None:
    """Clear away what other processes left in a folder; whoever asks holds its lock."""
    known = folder.stat()
    if (known.st_dev, known.st_ino) in _cleared:
        return
    _cleared.add((known.st_dev, known.st_ino))
    with os.scandir(folder) as entries:
        hidden = [entry.name for entry in entries if entry.name.startswith(".")]
    for name in (one for one in hidden if one.endswith((WAITING, WAITING + OLD))):
        path = folder / name
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and (name.endswith(OLD) or unlocked(path)):
                path.unlink(missing_ok=True)
