"""How a long job is watched, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from graphprune.cli.harmless import harmless
from graphprune.cli.options import plain
from graphprune.progress import Progress

PAUSE = 10.0
"""Seconds between two lines."""
FIRST = 1.0
"""Seconds before the first."""


@contextmanager
def watched(quiet: bool, *phases: str) -> Iterator[Progress]:
    """The progress of a job, shown while it lasts.

    Args:
        quiet: show nothing.
        phases: of the job, where it does not plan them itself.
    """
    if quiet or sys.stderr is None:  # it was closed before the program began
        yield Progress()
        return
    with _bar() if sys.stderr.isatty() and not plain() else _lines() as progress:
        progress.plan(phases)
        yield progress


class _Pace(ProgressColumn):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(_pace(self.progress))


@contextmanager
def _bar() -> Iterator[Progress]:
    progress = Progress()
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        _Pace(progress),
        console=Console(stderr=True),
        transient=True,
    )

    def show(progress: Progress) -> None:
        title = _title(progress)
        if not bars.tasks or bars.tasks[0].description != title:
            for old in bars.task_ids:
                bars.remove_task(old)
            bars.add_task(title, total=None)
        bars.update(bars.task_ids[0], completed=progress.done, total=progress.total or None)

    progress.watch = show
    with bars:
        yield progress


@contextmanager
def _lines() -> Iterator[Progress]:
    """A line soon, and one every :data:`PAUSE` seconds, also while nothing is told: a single step may take long."""
    progress, over = Progress(), threading.Event()

    def tell() -> None:
        pause = min(FIRST, PAUSE)
        while not over.wait(pause):
            print(f"graphprune: {harmless(line(progress))}", file=sys.stderr, flush=True)
            pause = PAUSE

    def run() -> None:
        with suppress(OSError, ValueError):  # standard error may be closed
            tell()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        over.set()
        thread.join()


def line(progress: Progress) -> str:
    """Where a job is, in words."""
    return f"{_title(progress)}, {_pace(progress)}"


def _title(progress: Progress) -> str:
    count = len(progress.phases)
    return f"{progress.phase} (phase {progress.number} of {count})" if count > 1 else progress.phase


def _pace(progress: Progress) -> str:
    """What share of a phase is done, how long that took, how long its rest will, and the rest of the job."""
    share = f"{100 * progress.done // progress.total} %, " if progress.total else ""
    left = "" if progress.left is None else f", {_time(progress.left)} left of it"
    whole = progress.left_in_all if progress.number < len(progress.phases) else None
    return (
        f"{share}{_time(progress.elapsed)} so far{left}{'' if whole is None else f', about {_time(whole)} left in all'}"
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"
