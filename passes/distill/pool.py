"""Calibration inputs as a pool that training draws from: samples where they can be joined, else runs as they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run import sizing
from graphprune.run.runtime import Feeds
from graphprune.run.samples import HELD_OUT, count, held_out


@dataclass(frozen=True)
class Pool:
    """Inputs that runs are drawn from.

    Attributes:
        runs: each ready to run; of one sample each where samples can be joined.
        joins: whether runs of one sample may be joined along the first axis.
        micro: samples (or runs) in one run.
    """

    runs: Sequence[Feeds]
    joins: bool
    micro: int = 1

    def __len__(self) -> int:
        return len(self.runs)

    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Sizes of each run that is drawn, labels too, None where they differ."""
        if not self.joins and len({_sizes(one) for one in self.runs}) > 1:
            return None
        first = self.runs[0]
        size = self.micro if self.joins else None
        return {n: v.shape if size is None else (size, *v.shape[1:]) for n, v in first.items()}

    def draw(self, rng: np.random.Generator, wanted: int) -> list[Feeds]:
        """Micro-batches of so many samples in all, drawn without repetition as far as they go."""
        rounds = -(-wanted // len(self.runs))
        order = np.concatenate([rng.permutation(len(self.runs)) for _ in range(rounds)])[:wanted]
        return self._batches([self.runs[k] for k in order])

    def all(self) -> list[Feeds]:
        """Every run; those that fill no micro-batch come with some that another has too, so that all are seen."""
        rest = len(self.runs) % self.micro if self.joins else 0
        last = self.runs[-self.micro :] if rest else []
        return self._batches([*self.runs[: len(self.runs) - rest], *last])

    def _batches(self, runs: Sequence[Feeds]) -> list[Feeds]:
        if not self.joins:
            return list(runs)
        parts = [runs[k : k + self.micro] for k in range(0, len(runs) - self.micro + 1, self.micro)]
        return [{name: np.concatenate([one[name] for one in part]) for name in part[0]} for part in parts]


def pools(batches: Sequence[Feeds], joins: bool, micro: int, seed: int = 0) -> tuple[Pool, Pool]:
    """What is trained on, and what is held out: a quarter.

    Args:
        batches: inputs, each ready to run.
        joins: whether the model leaves the number of samples free.
        micro: samples in one run, at most.
        seed: of the choice.

    Raises:
        InputError: there are too few.
    """
    runs, joined = singles(batches, joins)
    held, rest = ([runs[k] for k in part] for part in split(len(runs), seed))
    if len(runs) < HELD_OUT:
        raise InputError(
            f"distillation holds a quarter of the inputs out, and there are {len(runs)}: give at least {HELD_OUT}"
        )
    size = max(k for k in range(1, min(micro, len(held)) + 1) if micro % k == 0) if joined else 1
    return Pool(rest, joined, size), Pool(held, joined, size)


def singles(batches: Sequence[Feeds], joins: bool) -> tuple[list[Feeds], bool]:
    """Runs of one sample each where samples can be told apart, else the runs as they came; and which of both.

    Args:
        batches: inputs, each ready to run.
        joins: whether the model leaves the number of samples free.
    """
    runs = list(batches)
    if not (joins and _joinable(runs)):
        return runs, False
    return [{n: v[k : k + 1] for n, v in one.items()} for one in runs for k in range(count(one))], True


def free(model: Model) -> bool:
    """Whether a model leaves the number of samples free."""
    dims = sizing.free_dims(model)
    return bool(dims) and all(own and isinstance(own[0], str) for own in dims.values())


def split(count: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Which of so many are held out, and which are not: as the fit before it did, so that they are new to both."""
    out = held_out(np.arange(count), seed)
    return np.flatnonzero(out).tolist(), np.flatnonzero(~out).tolist()


def _joinable(runs: Sequence[Feeds]) -> bool:
    """Whether all inputs have the axis of samples first, and are alike behind it."""
    first = {n: v.shape[1:] for n, v in runs[0].items() if v.ndim}
    if len(first) < len(runs[0]):
        return False
    for one in runs:
        lengths = {v.shape[0] for v in one.values() if v.ndim}
        if len(lengths) != 1 or {n: v.shape[1:] for n, v in one.items() if v.ndim} != first:
            return False
    return True


def _sizes(feeds: Mapping[str, Values]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((n, v.shape) for n, v in feeds.items()))
