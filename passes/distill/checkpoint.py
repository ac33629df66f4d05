"""A training kept on disk, so that one that was interrupted goes on."""

from __future__ import annotations

import json
import os
import time
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InputError
from graphprune.gradients.adam import Adam, Floats
from graphprune.run import arrays

if TYPE_CHECKING:
    from graphprune.passes.distill.train import Course

SECONDS = 60.0
"""How often a training is kept."""


@dataclass
class Checkpoint:
    """A file that holds a training.

    Attributes:
        path: the file.
        key: what the training is of: a file of another is not gone on from.
        every: seconds between two states that are kept.
        best: the best state so far, where a training was found.
    """

    path: Path
    key: str
    every: float = SECONDS
    best: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    _last: float = field(default_factory=time.monotonic, repr=False)

    def load(self, adam: Adam) -> Course | None:
        """Put what was kept into the weights; None where there is no such file.

        Raises:
            InputError: the file is of another training, or something else: it is not written over.
        """
        from graphprune.passes.distill.train import Course

        if not self.path.exists():
            return None
        try:
            arrays.check(self.path)
            with np.load(self.path, allow_pickle=False) as held:
                if str(held["key"]) != self.key or held["flat"].shape != adam.flat.shape:
                    raise InputError(
                        f"{self.path}: is the checkpoint of another training (another model, other inputs or options); "
                        "remove it, or give another path"
                    )
                course = Course(**json.loads(str(held["course"])))
                adam.flat[:], adam.moments[:], self.best = held["flat"], held["moments"], held["best"]
                adam.steps = int(held["steps"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.path}: is no checkpoint of a training; remove it, or give another path") from error
        course.looks = [(int(step), float(loss)) for step, loss in course.looks]
        return course

    def keep(self, adam: Adam, course: Course, best: Floats) -> None:
        """Keep the training, where it was not a short time ago."""
        if time.monotonic() - self._last < self.every:
            return
        state = {"flat": adam.flat, "moments": adam.moments, "best": best, "steps": np.asarray(adam.steps)}
        texts = {"key": np.asarray(self.key), "course": np.asarray(json.dumps(asdict(course)))}
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                np.savez(file, **state, **texts)  # type: ignore[arg-type]
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InputError(f"{self.path}: the training cannot be kept ({error.strerror or error})") from error
        self._last = time.monotonic()

    def check(self) -> None:
        """See before anything is computed that the file is a checkpoint, or that there is none yet.

        Raises:
            InputError: it is something else.
        """
        if self.path.exists() and not _is_one(self.path):
            raise InputError(f"{self.path}: is no checkpoint of a training; remove it, or give another path")

    def drop(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)


def _is_one(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as held:
            return {"key", "course", "flat"} <= set(held.files)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return False
