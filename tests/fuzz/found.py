"""Inputs that once ended badly, kept as files of a few KB: ``found/NAME.onnx``, and what is done with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.fuzz import judge, workers
from tests.fuzz.cases import MODEL
from tests.fuzz.outcome import Outcome

FOLDER = Path(__file__).parent / "found"
LIST = FOLDER / "found.json"
"""By the name of a file the command that ended badly on it."""


def entries() -> dict[str, list[str]]:
    """The commands by the name of a file."""
    return dict(json.loads(LIST.read_text())) if LIST.is_file() else {}


def again(jobs: int) -> Iterator[tuple[str, Outcome]]:
    """What comes of each of them now."""
    names = sorted(entries())
    works = ((k, partial(_one, name, k)) for k, name in enumerate(names))
    for outcome in workers.run(works, jobs):
        yield names[outcome.number], outcome


def _one(name: str, number: int, folder: Path) -> Outcome:
    shutil.copy(FOLDER / name, folder / MODEL)
    shutil.copy(FOLDER / name, folder / "base.onnx")
    os.chdir(folder)
    return judge.run(tuple(entries()[name]), number, folder)


def keep(name: str, data: bytes, command: tuple[str, ...]) -> None:
    """Add a file."""
    (FOLDER / name).write_bytes(data)
    LIST.write_text(json.dumps(dict(sorted((entries() | {name: list(command)}).items())), indent=1) + "\n")
