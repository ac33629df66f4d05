"""Calibration inputs as a pool that training draws from: samples where they can be joined, else runs as they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.passes.holding import singles, split
from graphprune.relation import Values
from graphprune.run.runtime import Feeds
from graphprune.run.samples import HELD_OUT


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


def _sizes(feeds: Mapping[str, Values]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((n, v.shape) for n, v in feeds.items()))
