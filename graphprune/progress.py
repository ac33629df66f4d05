"""Where a long job is: which phase of how many, and how much of that is done.

A job knows its phases before the first begins. What takes many steps says after each how many of how many are done.
Whoever watches is told of every change, and can look at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

Steps = Callable[[int, int], None]
"""Told after each step of a phase how many of how many are done."""


def unseen(done: int, total: int) -> None:
    """Steps that nobody watches."""


class Progress:
    """Where a job is.

    Attributes:
        watch: is told of every change, and can read the rest.
        phases: of the job, in order; each begins at most once, and some may be left out.
        phase: what is being done.
        done, total: steps of it; none in all where it cannot be told.
    """

    def __init__(self, watch: Callable[[Progress], object] = lambda _: None) -> None:
        self.watch = watch
        self.phases: list[str] = []
        self.phase = ""
        self.done = self.total = 0
        self.costs: Mapping[str, float] = {}
        self._start = self._begun = time.monotonic()

    def plan(self, phases: Sequence[str], costs: Mapping[str, float] | None = None) -> None:
        """Say what is to come, and begin the first of it.

        Args:
            phases: in order.
            costs: what they cost beside each other; 1 where that is not told.
        """
        self.phases, self.costs, self._begun = list(phases), costs or {}, time.monotonic()
        if phases:
            self.begin(phases[0])

    def begin(self, phase: str) -> Steps:
        """Another phase begins; returns what to tell of its steps."""
        if phase != self.phase:
            if phase not in self.phases:
                self.phases.append(phase)
            self.phase, self.done, self.total, self._start = phase, 0, 0, time.monotonic()
            self.watch(self)
        return self.step

    def end(self, phase: str) -> None:
        """A phase has ended; what is planned behind it begins, unless that is behind us."""
        following = self.phases.index(phase) + 1 if phase in self.phases else 0
        if self.number <= following < len(self.phases):
            self.begin(self.phases[following])

    def step(self, done: int, total: int) -> None:
        """So many of so many steps of the phase are done."""
        self.done, self.total = done, total
        self.watch(self)

    @property
    def number(self) -> int:
        """The place of the phase among all, from 1; 0 before the first."""
        return self.phases.index(self.phase) + 1 if self.phase else 0

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float | None:
        """Seconds that the rest of the phase takes at the pace so far; None where that cannot be told."""
        return self.elapsed * (self.total - self.done) / self.done if self.done else None

    @property
    def left_in_all(self) -> float | None:
        """Seconds that the whole job still takes, at the pace so far; None where that cannot be told."""
        place, own = max(self.number - 1, 0), self._cost(self.phase)
        behind = sum(map(self._cost, self.phases[:place])) + (own * self.done / self.total if self.total else 0)
        if not behind:
            return None
        pace = (time.monotonic() - self._begun) / behind
        rest = max(own * pace - self.elapsed, 0.0) if self.left is None else self.left
        return rest + pace * sum(map(self._cost, self.phases[place + 1 :]))

    def _cost(self, phase: str) -> float:
        return self.costs.get(phase, 1.0)


class Retitled(Progress):
    """The progress of a job as one of its passes sees it: phases that several passes have bear other titles.

    Args:
        whole: the progress of the job.
        titles: by name of a phase what it is called in the job.
    """

    def __init__(self, whole: Progress, titles: Mapping[str, str]) -> None:
        super().__init__(whole.watch)
        self.whole, self.titles = whole, titles

    def begin(self, phase: str) -> Steps:
        """A phase of the job begins."""
        return self.whole.begin(self.titles.get(phase, phase))
