"""Tasks in a folder, addressed by content: whoever computes one leaves its result there, and nobody computes it again.

A task is plain data that says what is to be computed. Its result is a JSON file that appears whole, named by a hash of
what it follows from: the task, and all that the tasks of a study have in common (model, inputs, options, versions). So
a study that was killed goes on where it was, several machines may share it, and a damaged file is made again.

Tasks run wherever joblib runs them: here, in processes, or by the backend that the caller has set with
``joblib.parallel_config`` (Dask, Ray). Each has one thread, whoever runs it, so that workers do not fight for
processors and results do not depend on how many there are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphprune.errors import InputError
from graphprune.model.parsing import parsed
from graphprune.passes.kept import hashed, put
from graphprune.progress import Steps, unseen
from graphprune.run import threads

FORMAT = "graphprune-task/1"
FOLDER = "--folder"
"""The option by which users name the folder."""
_LOOK = 0.5
"""Seconds between two looks of a worker at whether anybody still wants its work."""
Task = Mapping[str, Any]
"""What is to be computed: what JSON can hold."""
Found = Mapping[str, Any]
"""What a task came to: what JSON can hold."""
Work = Callable[[Task], Found]
"""Computes tasks. Other processes get a copy, so it should be small, and open what is large when it is called."""


@dataclass(frozen=True)
class Shard:
    """One part of a study: each ``of``-th task, the ``number``-th first.

    Attributes:
        number: which part, from 1.
        of: how many parts there are.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that a text like ``2/3`` names.

        Raises:
            InputError: it names none.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(f"--shard {text}: give one of how many, from 1: 1/2 and 2/2 are the two halves")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Place:
    """Where the results of a study lie.

    Attributes:
        folder: it is made when the first result is written.
        about: what all its tasks follow from, hashed.
    """

    folder: Path
    about: str

    def of(self, task: Task) -> Path:
        """The file of a task's result."""
        return self.folder / f"{hashed(self.about, _text(task))}.json"

    def read(self, task: Task) -> Found | None:
        """The result of a task; None where there is none, or it is damaged."""
        try:
            held = parsed(self.of(task).read_bytes().decode())
            whole = held["format"] == FORMAT and held["sha256"] == _digest(task, held["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held["result"] if whole else None

    def write(self, task: Task, result: Found) -> None:
        """Keep the result of a task.

        Raises:
            InputError: the folder cannot be written.
        """
        held = {"format": FORMAT, "task": task, "result": result, "sha256": _digest(task, result)}
        put(self.of(task), [_text(held).encode(), b"\n"], FOLDER)


@contextmanager
def place_of(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder of a study, which goes with it where the user names none."""
    if folder is not None:
        yield Path(folder)
        return
    with TemporaryDirectory() as made:
        yield Path(made)


def missing(tasks: Sequence[Task], place: Place, shard: Shard | None = None) -> list[Task]:
    """The tasks, of all or of a shard, whose results are not there yet."""
    return [task for task in of_shard(tasks, shard) if place.read(task) is None]


def of_shard(tasks: Sequence[Task], shard: Shard | None) -> Sequence[Task]:
    """The tasks of a shard; all where there is none."""
    return tasks if shard is None else tasks[shard.number - 1 :: shard.of]


def run_all(
    tasks: Sequence[Task],
    work: Work,
    place: Place,
    jobs: int | None = None,
    shard: Shard | None = None,
    progress: Steps = unseen,
) -> list[Found | None]:
    """Compute all tasks whose results are not there yet.

    Args:
        tasks: what is to be computed; those that lie side by side share the most.
        work: computes them.
        place: where results lie.
        jobs: how many at once; by default one, or what the caller has set by ``joblib.parallel_config``.
        shard: compute only these; what others have left is there all the same.
        progress: is told after each task how many of how many are done.

    Returns:
        By task what it came to, None of those that another shard has still to compute.

    Raises:
        InputError: a worker ended before its work did, or the folder cannot be written.
        GraphpruneError: what a task raises.
    """
    wanted = missing(tasks, place, shard)
    progress(0, len(wanted))
    for done, (task, result) in enumerate(_computed(wanted, work, jobs, place.folder), 1):
        place.write(task, result)
        progress(done, len(wanted))
    return [place.read(task) for task in tasks]


def _computed(tasks: Sequence[Task], work: Work, jobs: int | None, folder: Path) -> Iterator[tuple[Task, Found]]:
    """Results as they come."""
    if not tasks:
        return
    from joblib import Parallel, delayed  # takes a tenth of a second to import
    from threadpoolctl import threadpool_limits

    # one task at a time: what is lost when the study is killed is no more than what is under way
    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    try:
        with threadpool_limits():  # where workers are threads of this process, it is left as it was
            asker = Asker(os.getpid(), tempfile.gettempdir())
            yield from parallel(delayed(_alone)(work, task, asker) for task in tasks)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker ended before its work did, most likely for want of memory: give fewer --jobs; what was done is "
            f"in {folder}"
        ) from error


@dataclass(frozen=True)
class Asker:
    """Who asks a worker.

    Attributes:
        process: its number.
        aside: where it puts temporary files, which is cleared away whatever becomes of its workers.
    """

    process: int
    aside: str


def _alone(work: Work, task: Task, asker: Asker) -> tuple[Task, Found]:
    """A task and its result, computed with one thread; it ends with whoever asks."""
    _leave_with(asker.process)
    with threads.of_sessions(1), threads.steady(), _aside(asker.aside):
        return task, work(task)


_watched: set[int] = set()
"""Processes whose end is this one's, too."""


def _leave_with(parent: int) -> None:
    """End this process when its parent has been killed; one that others have started goes on."""
    if os.getppid() != parent or parent in _watched:
        return
    _watched.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _aside(folder: str) -> Iterator[None]:
    """Temporary files go to a folder, where this machine has it."""
    before = tempfile.tempdir
    if tempfile.gettempdir() != folder and Path(folder).is_dir():
        tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _digest(task: Task, result: Found) -> str:
    return hashlib.sha256(_text({"task": task, "result": result}).encode()).hexdigest()


def _text(data: Any) -> str:
    """JSON of plain data, the same whatever the order of its keys."""
    return json.dumps(data, sort_keys=True, allow_nan=False)
