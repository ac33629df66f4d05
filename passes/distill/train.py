"""The course of a training: a rate that is found, warm-up and decay, the best state on what is held out.

Everything that is drawn by chance depends on the seed and the number of the step alone, so that a training that was
interrupted goes on as if it had not been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi

import numpy as np

from graphprune.gradients.adam import Floats
from graphprune.gradients.training import Trainer
from graphprune.passes.distill.augment import Augment
from graphprune.passes.distill.checkpoint import Checkpoint
from graphprune.passes.distill.pool import Pool
from graphprune.progress import Steps, unseen
from graphprune.run.runtime import Feeds

RATES = (3e-3, 1e-2, 3e-2)
"""Rates that are tried; where the best is at an end, one beyond it too."""
_TRIAL = 0.1
"""Share of the steps that each rate is tried for."""
_LEAST = 8
"""Steps of a trial, at least."""
_WARM = 0.1
"""Share of the steps in which the rate rises."""
_LOOKS = 12
"""How often the held-out inputs are looked at."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and by what chance.

    Attributes:
        steps: how many steps, None where ``seconds`` says.
        seconds: how long in all.
        rate: of learning; None lets it be found.
        batch: samples of a step.
        seed: of what is drawn.
    """

    steps: int | None
    seconds: float | None = None
    rate: float | None = None
    batch: int = 16
    seed: int = 0


@dataclass
class Course:
    """What a training came to.

    Attributes:
        rate: of learning, at its highest.
        steps: that were planned.
        before, after: the loss on what is held out, at first and at best.
        best: the step of the best state, 0 for the first.
        looks: steps and losses on what is held out.
        seconds: in all.
    """

    rate: float
    steps: int
    before: float
    after: float
    best: int = 0
    looks: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Lesson:
    """What is trained, on what, towards what.

    Attributes:
        trainer: the model.
        teach: adds to inputs what the original makes of them.
        pool: what is trained on.
        held: what is held out, with what the original makes of it.
        augment: makes inputs different, None where it should not.
    """

    trainer: Trainer
    teach: Callable[[Feeds], Feeds]
    pool: Pool
    held: Sequence[Feeds]
    augment: Augment | None = None

    def batches(self, schedule: Schedule, number: int, course: int = 0) -> list[Feeds]:
        """The micro-batches of a step; ``course`` tells those of the search for a rate apart."""
        rng = np.random.default_rng([schedule.seed, course, number])
        drawn = self.pool.draw(rng, min(schedule.batch, max(len(self.pool) // self.pool.micro, 1) * self.pool.micro))
        return [self.teach(self.augment(one, rng) if self.augment else one) for one in drawn]


def train(lesson: Lesson, schedule: Schedule, checkpoint: Checkpoint | None = None, progress: Steps = unseen) -> Course:
    """Train, and leave the best state on what is held out in the trainer; the first, where none is better.

    Args:
        lesson: the model, and what it should learn.
        schedule: how long, how fast.
        checkpoint: where the training is kept, and may go on from.
        progress: is told after each step how many of how many are done.
    """
    start = time.monotonic()
    adam = lesson.trainer.adam
    course = checkpoint.load(adam) if checkpoint else None
    if course is None:
        before = lesson.trainer.loss(lesson.held)
        rate, steps = _planned(lesson, schedule)
        course = Course(rate, steps, before, before, looks=[(0, before)], seconds=time.monotonic() - start)
    best: Floats = checkpoint.best if checkpoint and checkpoint.best.size else adam.flat.copy()
    spent, start = course.seconds, time.monotonic()
    every = max(course.steps // _LOOKS, 1)
    while adam.steps < course.steps:
        number = adam.steps + 1
        lesson.trainer.step(lesson.batches(schedule, number), course.rate * _share(number, course.steps))
        if number % every == 0 or number == course.steps:
            loss = lesson.trainer.loss(lesson.held)
            course.looks.append((number, loss))
            if loss < course.after:
                course.best, course.after = number, loss
                best[:] = adam.flat
        course.seconds = spent + time.monotonic() - start
        if checkpoint:
            checkpoint.keep(adam, course, best)
        progress(number, course.steps)
    adam.flat[:] = best
    return course


def _share(number: int, steps: int) -> float:
    """The rate of a step relative to the highest: a linear rise, then half a cosine."""
    warm = max(_WARM * steps, 1)
    if number <= warm:
        return number / warm
    return 0.5 * (1 + cos(pi * (number - warm) / max(steps - warm + 1, 1)))


def _planned(lesson: Lesson, schedule: Schedule) -> tuple[float, int]:
    """A rate and how many steps: short courses at several rates are taken, and taken back."""
    rate, steps = schedule.rate, schedule.steps
    if steps is None:
        rate, steps = _affordable(lesson, schedule)
    if rate is not None:
        return rate, steps
    found: dict[float, float] = {}
    ahead = list(RATES)
    while ahead:
        rate = ahead.pop(0)
        found[rate] = _tried(lesson, schedule, rate, max(int(steps * _TRIAL), _LEAST))
        if not ahead and len(found) == len(RATES):
            best = min(found, key=found.__getitem__)
            ahead = [best * (1 / 3 if best == RATES[0] else 3)] if best in (RATES[0], RATES[-1]) else []
    return min(found, key=found.__getitem__), steps


def _tried(lesson: Lesson, schedule: Schedule, rate: float, steps: int) -> float:
    """The loss on what is held out after a short course at a rate; the weights are as before."""
    adam = lesson.trainer.adam
    first = adam.flat.copy()
    _taken(lesson, schedule, rate, steps)
    loss = lesson.trainer.loss(lesson.held)
    adam.flat[:] = first
    adam.reset()
    return loss if np.isfinite(loss) else np.inf


def _taken(lesson: Lesson, schedule: Schedule, rate: float, steps: int) -> None:
    """Take the steps of a short course."""
    for number in range(1, steps + 1):
        lesson.trainer.step(lesson.batches(schedule, number, course=1), rate * _share(number, steps))


def _affordable(lesson: Lesson, schedule: Schedule) -> tuple[float | None, int]:
    """How many steps there is time for, with trials and with looking at what is held out.

    Where trials would take longer than the training itself there are none: the rate in the middle is taken.
    """
    assert schedule.seconds is not None
    adam = lesson.trainer.adam
    first = adam.flat.copy()
    start = time.monotonic()
    _taken(lesson, schedule, RATES[0], 2)
    middle = time.monotonic()
    adam.flat[:] = first
    adam.reset()
    lesson.trainer.loss(lesson.held)
    # Each is timed by itself: a difference of two times is nothing where a look takes longer than steps.
    took, look = middle - start, time.monotonic() - middle
    step, trials = max(took, 1e-6) / 2, len(RATES) + 1
    room = (schedule.seconds - took - (1 + _LOOKS + len(RATES)) * look) / step
    steps = min(room / (1 + trials * _TRIAL), room - trials * _LEAST)
    if schedule.rate is None and steps >= trials * _LEAST:
        return None, int(steps)
    return schedule.rate or RATES[len(RATES) // 2], max(int(room), 1)
