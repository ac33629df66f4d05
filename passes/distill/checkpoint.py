"""A training kept on disk, so that one that was interrupted goes on."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import InputError
from graphprune.gradients.adam import Adam, Floats
from graphprune.model import commit
from graphprune.run import arrays

if TYPE_CHECKING:
    from graphprune.passes.distill.train import Course

SECONDS = 60.0
"""How often a training is kept."""
_MARK = "graphprune-checkpoint-1"
"""The first entry of the archive, whose name stands at the head of the file: so one that is damaged is known too."""
_HEAD = 30
"""Bytes before the name of the first entry (APPNOTE.TXT of ZIP, 4.3.7)."""
_BROKEN = (OSError, TypeError, AttributeError, *arrays.BROKEN)
"""What reading raises of an archive that is cut short, or holds something else."""


@dataclass
class Checkpoint:
    """A file that holds a training.

    Attributes:
        path: the file.
        key: what the training is of: a file of another is not gone on from.
        every: seconds between two states that are kept.
        best: the best state so far, where a training was found.
        damaged: whether there was one that could not be read, so that the training began again.
    """

    path: Path
    key: str
    every: float = SECONDS
    best: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    damaged: bool = False
    _last: float = field(default_factory=time.monotonic, repr=False)

    def load(self, adam: Adam) -> Course | None:
        """Put what was kept into the weights; None where there is no such file, or it is damaged.

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
            course.looks = [(int(step), float(loss)) for step, loss in course.looks]
        except _BROKEN:
            self.check()
            self.damaged = True
            return None
        return course

    def keep(self, adam: Adam, course: Course, best: Floats) -> None:
        """Keep the training, where it was not a short time ago.

        Raises:
            InputError: there is no room for it; what was kept before is still there.
        """
        if time.monotonic() - self._last < self.every:
            return
        place = Path(os.path.realpath(self.path))
        state = {"flat": adam.flat, "moments": adam.moments, "best": best, "steps": np.asarray(adam.steps)}
        texts = {"key": np.asarray(self.key), "course": np.asarray(json.dumps(asdict(course)))}
        try:
            handle, made = commit.waiting(place.parent, place.name)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, **{_MARK: np.zeros(0)}, **state, **texts)  # type: ignore[arg-type]
                commit.move([(made, place)])
            finally:
                commit.forget(made)
        except OSError as error:
            raise InputError(f"{self.path}: the training cannot be kept ({error.strerror or error})") from error
        self._last = time.monotonic()

    def check(self) -> None:
        """See before anything is computed that the file is a checkpoint, sound or damaged, or that there is none yet.

        Raises:
            InputError: it is something else.
        """
        if self.path.exists() and not _is_one(self.path):
            raise InputError(f"{self.path}: is no checkpoint of a training; remove it, or give another path")

    def drop(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)


def _is_one(path: Path) -> bool:
    """Whether a file begins as a checkpoint does, or holds nothing: zeros are what a system leaves that was cut off."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD + len(_MARK))
            if head[_HEAD:] == _MARK.encode():
                return True
            while not any(head):
                if not head:
                    return True
                head = file.read(1 << 20)
    except OSError:
        return False
    return False
