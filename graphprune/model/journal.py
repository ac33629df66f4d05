"""What is to go where, written down before anything goes, so that what is killed on the way is brought to its end.

A set of files may lie in several folders. Each has a journal of its own part, all with one token. The one in the folder
of the output is written last and removed last: where it stands, all others have been written, and the set is to come
whole; where it does not, nothing has been moved yet, or all has. A journal leads to no folder but its own, so that
nobody can use one to move files elsewhere, and only that of the same user is read.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from graphprune.model.parsing import parsed

WAITING, OLD = ".waiting", ".old"
"""How names end of files that wait, and of what gives way to them."""
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Journal:
    """What goes where in one folder.

    Attributes:
        token: of the set.
        folders: all folders of the set as paths from this one, that of the output first.
        files: names of files that wait, each with the name of its place.
    """

    token: str
    folders: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def _path(folder: Path) -> Path:
    return folder / f".graphprune-{os.geteuid()}.journal"


def write(files: Sequence[tuple[Path, Path]]) -> list[Path]:
    """Write down what goes where.

    Args:
        files: that wait, each with its place; the output last.

    Returns:
        The journals, in the order in which they are to be removed.

    Raises:
        OSError: there is no room for one; then there is none.
    """
    folders = list(dict.fromkeys(target.parent for _, target in reversed(files)))
    token, written = token_hex(16), list[Path]()
    try:
        for folder in reversed(folders):
            own = tuple((temporary.name, target.name) for temporary, target in files if target.parent == folder)
            _write(folder, Journal(token, tuple(os.path.relpath(one, folder) for one in folders), own))
            written.append(_path(folder))
    except BaseException:
        remove(written)
        raise
    return written


def _write(folder: Path, journal: Journal) -> None:
    handle, made = tempfile.mkstemp(WAITING, ".graphprune-journal.", folder)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(journal), file)
        Path(made).replace(_path(folder))
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def found(folder: Path) -> bool:
    """Whether a set may be half done in a folder."""
    return _path(folder).exists()


def remove(journals: Sequence[Path]) -> None:
    """Remove journals; one that cannot be removed tells of what has been done, and does no harm."""
    for journal in journals:
        with suppress(OSError):
            journal.unlink(missing_ok=True)


def recover(folder: Path) -> None:
    """Bring to its end what a process of this user was killed at; whoever asks holds the lock on the folder.

    A process holds the locks on all folders of its set while it moves: who has one of them knows that it is no more.

    Raises:
        OSError: something cannot be put in its place; the journal stays.
    """
    own = _read(folder)
    if own is not None:
        places = [folder / name for name in own.folders]
        first = _read(places[0])
        if first is not None and first.token == own.token:
            for place in (*places[1:], places[0]):
                there = _read(place)
                if there is not None and there.token == own.token:
                    _forward(place, there)
    remove([_path(folder)])


def _forward(folder: Path, journal: Journal) -> None:
    for waits, place in journal.files:
        with suppress(FileNotFoundError):
            if stat.S_ISREG((folder / waits).lstat().st_mode):
                (folder / waits).replace(folder / place)


def _read(folder: Path) -> Journal | None:
    """The journal of a folder; None where there is none, or one that this user has not written."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(_path(folder), flags), "rb") as file:
            known = os.fstat(file.fileno())
            if not stat.S_ISREG(known.st_mode) or known.st_uid != os.geteuid() or known.st_size > _LARGEST:
                return None
            data = parsed(file.read(_LARGEST).decode())
        return _checked(data)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _checked(data: Any) -> Journal:
    """A journal as it was read.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    files = tuple((str(waits), str(place)) for waits, place in data["files"])
    for waits, place in files:
        if not (_is_name(waits) and _is_name(place) and waits.startswith(".") and waits.endswith(WAITING)):
            raise ValueError
    folders = tuple(map(str, data["folders"]))
    if not folders or any("\0" in one for one in folders):
        raise ValueError
    return Journal(str(data["token"]), folders, files)


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and not {"/", "\0"} & set(text)
