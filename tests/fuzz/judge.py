"""Runs one case in this process, which has nothing else to do, and says what came of it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from threadpoolctl import threadpool_limits

from graphprune.analysis import verify
from graphprune.cli import boundary
from graphprune.run import threads
from tests.fuzz import cases, comparing
from tests.fuzz.cases import MODEL, OUTPUT, Case
from tests.fuzz.outcome import Outcome

ERROR = "graphprune: error: "
_FULL = re.compile(r"out of memory|bad_alloc|Failed to allocate memory|cannot allocate memory|Unable to allocate", re.I)
_PROGRESS = re.compile(r"graphprune: .* so far")


def judged(case: Case, folder: Path) -> Outcome:
    """What comes of a case whose files go into a folder; what it prints goes there too."""
    verify.always = True
    os.chdir(folder)
    with threadpool_limits(1), threads.of_sessions(1):
        command = cases.make(case, folder)
        (folder / "command.txt").write_text(" ".join(map(repr, command)))
        return run(command, case.number, folder)


def run(command: tuple[str, ...], number: int, folder: Path) -> Outcome:
    """What comes of a command, run in this folder on the files that are there."""
    status, said = said_by(command, folder)
    lines = [line for line in said.splitlines() if line.strip() and not _PROGRESS.match(line)]
    last = lines[-1] if lines else ""
    if status == 0:
        if lines:
            return Outcome(number, "noise", _shape(lines[0]), said[-600:])
        return _compared(number, folder) if (folder / OUTPUT).is_file() else Outcome(number, "done")
    if not last.startswith(ERROR):
        return Outcome(number, "traceback", f"status {status}", said[-600:])
    message = last.removeprefix(ERROR)
    if status == 4:
        place = re.match(r"a fault of graphprune itself at (\S+, in \w+): (\w+)", message)
        return Outcome(number, "traceback", f"{place[2]} at {place[1]}" if place else _shape(message), message[:600])
    if _FULL.search(message):
        return Outcome(number, "memory", _shape(message), message[:600])
    if status not in (1, 2, 3) or len(lines) > 1:
        return Outcome(number, "noise" if len(lines) > 1 else "traceback", _shape(lines[0]), said[-600:])
    return Outcome(number, "error" if status == 2 else "refused", _shape(message), message[:600])


def said_by(command: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Exit status and standard error of a command; both streams go to files, native code's words too."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    place = folder / "stderr.txt"
    with open(folder / "stdout.txt", "wb") as out, open(place, "wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            status = boundary.run(list(command))
        except SystemExit as done:
            status = int(done.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for own, stream in zip(kept, (1, 2), strict=True):
                os.dup2(own, stream)
                os.close(own)
    return status, place.read_text(errors="replace")


def _compared(number: int, folder: Path) -> Outcome:
    """A model was written: it must do what the masked original does."""
    try:
        trouble = comparing.trouble(folder, folder / MODEL, folder / OUTPUT, said_by)
    except comparing.Unable as reason:
        return Outcome(number, "done", str(reason))
    if trouble is None:
        return Outcome(number, "proven")
    return Outcome(number, "wrong", _shape(trouble), trouble[:900])


def _shape(text: str) -> str:
    """An error without names and numbers: what errors of one place have in common."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d.,e+x-]*", "_", text)[:110]
