"""Both models on the same inputs: what each operator of a pruned model is given, and what it is to come to.

They run in stages, wave by wave, the pruned one with the weights of now. Where an output is added to what has been made
before (a residual branch), the target is what the original's sum lacks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from graphprune.passes.least_squares import Split
from graphprune.passes.masks import Thinner

from graphprune.contractions import ROWS
from graphprune.linear import Linear
from graphprune.linears import find
from graphprune.model import Model
from graphprune.moments import FloatArray
from graphprune.relation import IntArray, Values
from graphprune.samples import count
from graphprune.staged import Staged

Feeds = Mapping[str, Values]
Restrict = Callable[[Values, str], Values]
HELD_OUT = 4
"""One sample in this many is held out."""


@dataclass(frozen=True)
class Task:
    """What is wanted of every operator: see :func:`graphprune.passes.reconstruct.reconstruct`."""

    original: Model
    batches: Callable[[], Iterable[Feeds]]
    restrict: Restrict
    cut: Restrict
    seed: int
    fit: str
    thin: Mapping[str, Thinner]
    sparse: Set[str]


class Pair:
    """The original and the pruned model, both run in stages on the same inputs.

    Args:
        task: what is wanted.
        pruned: the model as it is at first.
        steps: operators whose moments will be asked for, wave by wave.
    """

    def __init__(self, task: Task, pruned: Model, steps: Sequence[Sequence[Linear]]) -> None:
        self.task = task
        self.number_of = {linear.output: k for k, step in enumerate(steps) for linear in step}
        self.originals = {linear.output: linear for linear in find(task.original, shared=True)}
        self.inputs = {i.name for i in pruned.inputs}
        self.pruned = pruned
        self.sizes: list[int] = []

    def __enter__(self) -> Pair:
        self.folder = tempfile.TemporaryDirectory()
        first, second = (Path(self.folder.name) / n for n in ("original", "pruned"))
        first.mkdir()
        second.mkdir()
        self.wanted = Staged(self.task.original, self.number_of, False, first)
        self.given = Staged(self.pruned, self.number_of, True, second)
        for number, feeds in enumerate(self.task.batches()):
            self.wanted.start(number, feeds)
            self.given.start(number, {n: self.task.restrict(v, n) for n, v in feeds.items() if n in self.inputs})
            self.sizes.append(count(feeds))
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def sums(
        self, pruned: Model, number: int, linears: Sequence[Linear], product: bool = False, again: bool = False
    ) -> list[Split]:
        """Second moments of every operator of one wave, batch by batch.

        Args:
            pruned: the model as it is now.
            number: of the wave.
            linears: its operators.
            product: whether of what is wanted a bias of the pruned model is taken off.
            again: whether there is more to be asked of this wave.
        """
        beside = {}
        for linear in linears if not product else ():
            other = _beside(pruned, linear, number, self.given, self.wanted)
            if other is not None:
                beside[linear.output] = other
        rng = np.random.default_rng(self.task.seed)
        found: dict[str, Split] = {}
        seen = 0
        for (inputs, outputs), size in zip(self._runs(pruned, number, linears, beside, again), self.sizes, strict=True):
            for linear in linears:
                chosen, sample = linear.choose(inputs[linear.input], ROWS, rng)
                x = linear.rows(inputs[linear.input], chosen)
                y = self._results(linear, outputs, chosen)
                if linear.output in beside:
                    y = y + _missing(linear, beside[linear.output], inputs, outputs, self.task.restrict, chosen)
                if product:
                    y = y - bias(pruned, linear, x.shape[0], y.shape[2])[:, None].astype(np.float32)
                total = found.setdefault(linear.output, Split.empty(x.shape[0], x.shape[2], y.shape[2]))
                total.add(x, y, (seen + sample) % HELD_OUT == HELD_OUT - 1)
            seen += size
        return [found[linear.output] for linear in linears]

    def _runs(
        self, pruned: Model, number: int, linears: Sequence[Linear], beside: Mapping[str, str], again: bool
    ) -> Iterator[tuple[Feeds, Feeds]]:
        """What the pruned model makes in one stage, and what the original does."""
        given = dict.fromkeys([*(n.input for n in linears), *beside.values()])
        names = [self.originals[n.output].input if n.inner else n.output for n in linears]
        wanted = dict.fromkeys([*names, *beside.values()])
        count = len(self.sizes)
        yield from zip(
            self.given.run(pruned, number, count, list(given), again),
            self.wanted.run(self.task.original, number, count, list(wanted), again),
            strict=True,
        )

    def _results(self, linear: Linear, outputs: Feeds, chosen: IntArray) -> Values:
        """What some rows are to come to."""
        if not linear.inner:
            return linear.results(self.task.restrict(outputs[linear.output], linear.output), chosen)
        whole = self.originals[linear.output]
        matrix = whole.matrix(self.task.original.array(whole.weight))
        return self.task.cut(whole.rows(outputs[whole.input], chosen) @ matrix, linear.output)


def _beside(model: Model, linear: Linear, number: int, given: Staged, wanted: Staged) -> str | None:
    """What the output of an operator is added to, where both models have made it before the operator is fitted."""
    if linear.inner:
        return None
    output = linear.output if linear.adder is None else model.nodes[linear.adder].output[0]
    uses = model.uses.get(output, [])
    if len(uses) != 1 or output in model.output_names or model.nodes[uses[0].node].op_type != "Add":
        return None
    other = model.nodes[uses[0].node].input[1 - uses[0].input]
    ready = all(other not in s.constants and s.holds(other, number) for s in (given, wanted))
    return other if ready and other != output else None


def _missing(
    linear: Linear,
    name: str,
    inputs: Feeds,
    outputs: Feeds,
    restrict: Restrict,
    chosen: IntArray,
) -> Values:
    """By how much what an output is added to has changed so far, at some rows; zero where it is broadcast."""
    was, now = restrict(outputs[name], name), inputs[name]
    channel = 1 if linear.kernel else outputs[linear.output].ndim - 1
    places = [[n for axis, n in enumerate(v.shape) if axis != channel] for v in (was, outputs[linear.output])]
    if was.shape != now.shape or places[0] != places[1]:
        return np.zeros(1, np.float32)
    return linear.results(was.astype(np.float32) - now.astype(np.float32), chosen)


def bias(model: Model, linear: Linear, groups: int, outputs: int) -> FloatArray:
    """The bias that a node adds itself, ``[groups, outputs]``; none where another adds it to the product."""
    if linear.bias is None or linear.adder is not None:
        return np.zeros((groups, outputs), np.float64)
    return model.array(model.root(linear.bias)).astype(np.float64).reshape(groups, outputs)
