"""Finished files go to their places together, under a lock; what is killed on the way leaves nothing half done.

A file waits beside its place as ``.NAME.XXXXXXXX.waiting``, locked as long as its process lives. What waits and is not
locked was left by a process that was killed, and is cleared away by whoever next writes to that folder. The files of
one run go to their places under a lock on their folders, so that two runs to the same output do not mix; a journal
beside them says which, so that a run that is killed between two of them is brought to its end by the next one.

Locks are those of the system (``flock``), which end with their process; without them, on Windows, nothing is cleared
away.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graphprune.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WAITING, _OLD, _JOURNAL = ".waiting", ".old", ".graphprune-journal"
_held: dict[Path, int] = {}
"""By file that waits, the descriptor that holds its lock."""


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Nobody else clears a folder or puts files in their places there; what the dead left is brought to an end."""
    with ExitStack() as stack:
        if fcntl is not None:
            with suppress(OSError):  # a folder that cannot be listed, and network file systems that lock no folders
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
                _recover(folder)
        yield


def waiting(folder: Path | None, name: str) -> tuple[int, Path]:
    """An open descriptor and the path of a file that waits to go to a place.

    Args:
        folder: of the place; None is for temporary files, for what goes to a stream.
        name: of the place.

    Raises:
        OSError: there is no room for it.
    """
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(_alone_in(folder))
        handle, made = tempfile.mkstemp(_WAITING, f".{name[:200]}.", folder)
        if fcntl is not None:
            held = os.dup(handle)
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held[Path(made)] = held
    return handle, Path(made)


def forget(temporary: Path) -> None:
    """Remove a file that waits no longer, if it is there."""
    temporary.unlink(missing_ok=True)
    _release(temporary)


def _release(temporary: Path) -> None:
    if (held := _held.pop(temporary, None)) is not None:
        os.close(held)


def move(files: Sequence[tuple[Path, Path]]) -> None:
    """Put files that wait into their places: all of them, or none where one of them cannot be.

    Args:
        files: each with its place, links followed; what others are nothing without comes last.

    Raises:
        InputError: one cannot be put into its place; what was there before is there again.
    """
    replaced: list[tuple[Path, Path]] = []
    target = Path()
    try:
        with ExitStack() as stack:
            for folder in sorted({target.parent for _, target in files}):
                stack.enter_context(_alone_in(folder))
            several = len(files) > 1  # one alone is there, or is not, whatever happens
            journals = _journals(files) if several else []
            try:
                for temporary, target in files:
                    kept = temporary.with_name(f"{temporary.name}{_OLD}")
                    if several:
                        replaced.append((target, kept))  # noted first: what interrupts comes between any two lines
                        _keep(target, kept)
                    temporary.replace(target)
            except BaseException:
                for (place, kept), (temporary, _) in zip(
                    reversed(replaced), reversed(files[: len(replaced)]), strict=True
                ):
                    _bring_back(place, kept, gone=not temporary.exists())
                raise
            finally:
                for journal in journals:
                    journal.unlink(missing_ok=True)
            for _, kept in replaced:
                kept.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); nothing was") from error
    finally:
        for temporary, _ in files:
            forget(temporary)


def _journals(files: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Write down in each folder what goes where."""
    by_folder: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for temporary, target in files:
        by_folder[target.parent].append((temporary.name, target.name))
    found = []
    for folder, pairs in by_folder.items():
        handle, made = tempfile.mkstemp(_WAITING, f"{_JOURNAL}.", folder)
        with os.fdopen(handle, "w") as file:
            json.dump(pairs, file)
        found.append(Path(made).replace(folder / _JOURNAL))
    return found


def _keep(target: Path, kept: Path) -> None:
    """Give what is in a place another name too, to bring it back by."""
    if target.exists():
        try:
            os.link(target, kept)
        except OSError:  # not every file system has hard links
            target.replace(kept)


def _bring_back(place: Path, kept: Path, gone: bool) -> None:
    """Bring back what was in a place; where that fails it keeps its other name, which nobody clears away.

    Args:
        place: the place.
        kept: the other name of what was there.
        gone: whether what waited has gone there, so that it is taken away where nothing was before.
    """
    try:
        if kept.exists():
            kept.replace(place)
            kept.unlink(missing_ok=True)  # two names of one file: nothing was in the place of it yet
        elif gone:
            place.unlink(missing_ok=True)
    except OSError:
        with suppress(OSError):
            kept.rename(kept.with_name(f"{place.name}.before"))


def _recover(folder: Path) -> None:
    """Bring to its end what a process began in a folder and was killed at, and clear away what it left.

    Whoever asks holds the lock on the folder, so that nobody is at it any more.
    """
    with suppress(OSError, ValueError):
        for waits, place in json.loads((folder / _JOURNAL).read_text()):
            if Path(waits).name == waits and Path(place).name == place and waits.endswith(_WAITING):  # never elsewhere
                with suppress(FileNotFoundError):
                    (folder / waits).replace(folder / place)
    with suppress(OSError):
        (folder / _JOURNAL).unlink(missing_ok=True)
        for left in list(folder.iterdir()):
            if left.name.startswith(".") and left.name.endswith((_WAITING, _WAITING + _OLD)) and _dead(left):
                left.unlink(missing_ok=True)


def _dead(left: Path) -> bool:
    """Whether no process holds a file that waits; names to bring something back by are held by none."""
    return left.name.endswith(_OLD) or unlocked(left)


def unlocked(path: Path) -> bool:
    """Whether a file is there, and no process holds its lock; where there are no locks, none is known to be free."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True
