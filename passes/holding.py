"""Which of the calibration inputs are held out: what was learnt from the others is judged on them.

All who hold out hold out the same quarter (see ``graphprune.run.samples.held_out``), by sample where samples can be
told apart, else by run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run import sizing
from graphprune.run.calibration import Batches
from graphprune.run.runtime import Feeds, run, session
from graphprune.run.samples import BATCH, HELD_OUT, count, held_out

MEMORY = 1 << 30
"""Bytes of the original's outputs that are kept."""


@dataclass(frozen=True)
class Part:
    """Some of the inputs, ready to run; each call gives them from the start.

    Attributes:
        runs: of one sample each where samples were told apart.
        joined: whether they were; then they are run several at a time.
    """

    runs: Sequence[Feeds]
    joined: bool

    def __call__(self) -> Iterator[Feeds]:
        """The inputs."""
        if not self.joined:
            yield from self.runs
            return
        for start in range(0, len(self.runs), BATCH):
            some = self.runs[start : start + BATCH]
            yield {name: np.concatenate([one[name] for one in some]) for name in some[0]}


def divide(model: Model, batches: Batches, seed: int, option: str) -> tuple[Part, Part]:
    """What is learnt from, and what is held out.

    Args:
        model: whose inputs they are, as it runs.
        batches: the inputs.
        seed: of the choice.
        option: that asks for it, for messages.

    Raises:
        InputError: there are too few inputs, or ONNX Runtime cannot run the model on them.
    """
    whole = list(batches())
    runs, joined = singles(whole, free(model))
    if joined and len(runs) >= HELD_OUT:
        try:
            with session(model) as active:
                run(active, next(Part(runs[:BATCH], True)()))
        except InputError:  # free as it is declared, it takes some numbers of samples only
            runs, joined = whole, False
    if len(runs) < HELD_OUT:
        raise InputError(
            f"{option} holds a quarter of the inputs out, and there are {len(runs)}: give at least {HELD_OUT}"
        )
    held, rest = (Part([runs[k] for k in part], joined) for part in split(len(runs), seed))
    return rest, held


def answers(
    model: Model, batches: Batches, seed: int, option: str
) -> tuple[list[Feeds], list[list[Values]], list[str]]:
    """Held-out runs, what a model makes of them, and a note where these are fewer than are held out.

    Args:
        model, batches, seed, option: as of :func:`divide`.
    """
    held = list(divide(model, batches, seed, option)[1]())
    found, used = list[list[Values]](), 0
    with session(model) as active:
        for feeds in held:
            outputs = [np.asarray(value) for value in run(active, feeds)]
            used += sum(value.nbytes for value in outputs)
            if found and used > MEMORY:
                break
            found.append(outputs)
    if len(found) == len(held):
        return held, found, []
    note = (
        f"the original's outputs are larger than {MEMORY >> 30} GiB: {option} looks at the first {len(found)} of "
        f"{len(held)} held-out runs"
    )
    return held[: len(found)], found, [note]


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
