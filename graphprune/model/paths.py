"""What a run reads and what it writes: nothing that is read is written over, and all files appear or none does.

A run is one command, or one call from Python. What it is to write is declared before anything is computed; what it
reads is declared where it is read. Two paths are the same file where they lead to it by links, symbolic or hard.
A run may be told to keep what is there already. Finished files wait beside their places until the run commits. Devices
and pipes are written to as streams, never replaced; a symbolic link stays, and what it leads to is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from graphprune.errors import InputError
from graphprune.interruption import undisturbed
from graphprune.model import commit as _commit

AnyPath = str | os.PathLike[str]
_Identity = tuple[int, int] | str
OUTPUT = "the output"
"""What is written last of all: without the model, the files beside it are nothing."""
DATA = "the external data of the output"
"""What the output is nothing without, nor it without the output."""
_NAMED = {"/dev/stdout": 1, "/dev/stderr": 2}


@dataclass
class _Run:
    """What is known of a run so far, by the identity of each file.

    Attributes:
        reads: what each file is that is read.
        writes: path and role of each file that is to be written.
        roles: what each of these is, by absolute path: another run may put another file there meanwhile.
        fresh: absolute paths of those in whose places nothing may be yet.
        staged: finished files and their places.
        keeps: whether what is there already is not to be written over.
        appeared: files that are in their places, and were not told of yet.
        behind: what is done once all that is finished is in its place.
    """

    reads: dict[_Identity, str] = field(default_factory=dict)
    writes: dict[_Identity, tuple[Path, str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    staged: list[tuple[Path, Path]] = field(default_factory=list)
    keeps: bool = False
    appeared: list[Path] = field(default_factory=list)
    behind: list[Callable[[], object]] = field(default_factory=list)


_active: ContextVar[_Run | None] = ContextVar("run", default=None)


@contextmanager
def run() -> Iterator[None]:
    """A run, or a part of the one that is under way; what is finished appears at its end, nothing after an error."""
    if _active.get() is not None:
        yield
        return
    token = _active.set(_Run())
    try:
        yield
        commit()
    finally:
        _drop(_known())
        _active.reset(token)


def _drop(active: _Run) -> None:
    """Forget what is finished and has not appeared."""
    _forget(active.staged)
    active.staged, active.behind = [], []


@contextmanager
def part() -> Iterator[None]:
    """One of several jobs of a run: its files appear at its end, and after an error of it the run may go on."""
    active = _active.get()
    if active is None:
        with run():
            yield
        return
    before = active.staged, active.behind
    active.staged, active.behind = [], []
    try:
        yield
        commit()
    finally:
        _drop(active)
        active.staged, active.behind = before


@contextmanager
def alone() -> Iterator[None]:
    """A run of its own, whatever is under way: one of many jobs of a study, whose files appear when it is done."""
    token = _active.set(None)
    try:
        with run():
            yield
    finally:
        _active.reset(token)


def _known() -> _Run:
    return _active.get() or _Run()


def keep() -> None:
    """From here on the run that is under way refuses to write over what is there already."""
    _known().keeps = True


def known(path: Path) -> bool:
    """Whether there is nothing to tell of a path that is read: no run is under way, or it knows."""
    active = _active.get()
    return active is None or _identity(path) in active.reads


def reads(what: str, path: AnyPath | None) -> None:
    """Declare what is read: a file, or all files of a folder; what is no path of either says nothing.

    Raises:
        InputError: it is to be written, too.
    """
    if path is None or _active.get() is None:
        return
    place = Path(path)
    found = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    for one in found:
        if one.is_file():
            active, key = _known(), _identity(one)
            active.reads.setdefault(key, what)
            if key in active.writes:
                _refuse(*active.writes[key], active.reads[key])


def writes(what: str, path: AnyPath | None, *, again: bool = False) -> None:
    """Declare what is to be written.

    Args:
        what: it is, for messages.
        path: where; None is nothing.
        again: it may be there already, whatever the run keeps: what goes on from where it was, as checkpoints do.

    Raises:
        InputError: it is read, or is the place of something else too; it is a folder, or its folder is not there; it is
            there already, and the run is to :func:`keep` that.
    """
    if path is None:
        return
    place, active = Path(path), _known()
    try:
        is_folder = stat.S_ISDIR(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        is_folder = False
    except (OSError, ValueError) as error:  # no name that a file could have
        raise InputError(f"{place}: {what} cannot be written there ({getattr(error, 'strerror', error)})") from error
    if is_folder:
        raise InputError(f"{place}: is a folder; give a file for {what}")
    key = _identity(place)
    if is_stream(place):
        active.writes[key] = place, what
        active.roles[_absolute(place)] = what
        return
    folder = _target(place).parent
    if not folder.is_dir():
        raise InputError(f"{place}: its folder does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{place}: its folder cannot be written to; give another place")
    if key in active.reads:
        _refuse(place, what, active.reads[key])
    if active.keeps and not again and _absolute(place) not in active.roles:
        if place.exists():
            raise InputError(f"{place}: is there already; --force writes {what} over it, or choose another path")
        active.fresh.add(_absolute(place))
    other = active.writes.setdefault(key, (place, what))[1]
    if other != what:
        raise InputError(f"{place}: would hold {other} and {what} too; choose another path for one of them")
    active.roles[_absolute(place)] = what


def apart(what: str, path: Path, sources: dict[Path, str]) -> None:
    """Raise InputError where a path is one of some files that are read."""
    for source, role in sources.items():
        if _identity(source) == _identity(path):
            _refuse(path, what, role)


def _refuse(path: Path, what: str, read: str) -> None:
    raise InputError(f"{path}: is {read} itself, which writing {what} would overwrite; choose another path")


def _identity(path: Path) -> _Identity:
    if is_stream(path):
        return str(path)
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links are not followed


def _target(path: Path) -> Path:
    """The file itself, behind symbolic links."""
    return Path(os.path.realpath(path))


def descriptor(path: AnyPath) -> int | None:
    """The number of an open descriptor of this process that a path stands for; it may well be a file behind that."""
    found = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(path))
    return int(found[1]) if found else _NAMED.get(str(path))


def is_stream(path: AnyPath) -> bool:
    """Whether a path is written to as it goes: a device, a pipe, or a descriptor that is open already."""
    if descriptor(path) is not None:
        return True
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def waiting(path: Path) -> tuple[int, Path]:
    """An open descriptor and the path of a file in which what belongs to a place is made first.

    Raises:
        InputError: the place is a folder, or there is no room for it.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    folder = None if is_stream(path) else _target(path).parent
    try:
        return _commit.waiting(folder, path.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def finished(temporary: Path, path: Path) -> None:
    """A file is complete: it goes to its place when the run commits, or at once where the run has not declared it.

    Raises:
        InputError: the run reads what is in its place.
    """
    active, key = _known(), _identity(path)
    if key in active.reads:
        _refuse(path, "a result", active.reads[key])
    if _absolute(path) in active.roles:
        active.staged.append((temporary, path))
    elif closed := _move([(temporary, path)]):
        raise closed


def behind(done: Callable[[], object]) -> None:
    """Do something once all that the run has finished is in its place; at once, where no run is under way."""
    active = _active.get()
    if active is None:
        done()
    else:
        active.behind.append(done)


def commit() -> None:
    """Let all that is finished appear: all of it, or nothing where something cannot be put in its place."""
    active = _known()
    staged, active.staged = active.staged, []
    ahead, active.behind = active.behind, []
    roles = {path: active.roles[_absolute(path)] for _, path in staged}
    fresh = [_target(path) for path in roles if _absolute(path) in active.fresh]
    files = sorted(staged, key=lambda pair: roles[pair[1]] == OUTPUT)
    closed = _move(files, fresh, apart={OUTPUT, DATA} <= set(roles.values()))
    active.fresh -= {_absolute(path) for path in roles}
    told = sorted(roles, key=lambda path: roles[path] != OUTPUT)
    active.appeared += [path for path in told if not is_stream(path)]
    for done in ahead:
        done()
    if closed is not None:
        raise closed


def appeared() -> list[Path]:
    """The files that have appeared since this was asked before, the output first."""
    active = _known()
    found, active.appeared = active.appeared, []
    return found


def _move(staged: list[tuple[Path, Path]], fresh: Collection[Path] = (), apart: bool = False) -> BrokenPipeError | None:
    """Put finished files in their places, once streams have got theirs: what those have got cannot be taken back.

    Returns:
        That a reader wanted no more, which is no failure of what else is written.
    """
    closed, poured = None, [pair for pair in staged if is_stream(pair[1])]
    files = [pair for pair in staged if pair not in poured]
    try:
        for temporary, path in poured:
            closed = _pour(temporary, path) or closed
    except BaseException:
        _forget(files)
        raise
    finally:
        _forget(poured)
    _commit.move([(temporary, _target(path)) for temporary, path in files], fresh, apart)
    return closed


def _forget(staged: list[tuple[Path, Path]]) -> None:
    with undisturbed():
        for temporary, _ in staged:
            _commit.forget(temporary)


def _pour(temporary: Path, path: Path) -> BrokenPipeError | None:
    """Write to a stream; gives back that its reader wanted no more.

    Raises:
        InputError: it cannot be written.
    """
    number = descriptor(path)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        with open(temporary, "rb") as source, open(path if number is None else os.dup(number), "wb") as stream:
            shutil.copyfileobj(source, stream)
    except BrokenPipeError as error:
        return error
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); nothing was") from error
    return None
