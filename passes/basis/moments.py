"""Second moments of what sums run over, by which directions are chosen: on inputs, or of weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.contractions import levels
from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.passes.basis.copies import Copies
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds
from graphprune.run.staged import observed, waves


@dataclass(frozen=True)
class Forms:
    """What the directions of a space follow from.

    Attributes:
        left: second moments of what changes by R, shape ``[matrices, classes, classes]``.
        right: of what changes by ``R^-T``.
        seen: second moments of all vectors that sums run over, whatever their sign, each weighed by what it is
            multiplied by.
    """

    left: FloatArray
    right: FloatArray
    seen: FloatArray


def observe(
    analysis: Analysis,
    spaces: Sequence[Copies],
    batches: Callable[[], Iterable[Feeds]] | None,
    progress: Steps = unseen,
) -> list[Forms]:
    """The forms of some spaces.

    Args:
        analysis: of the model.
        spaces: which.
        batches: gives the calibration inputs; None looks at weights alone.
        progress: is told after each step how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    found = [_Sums(analysis, copies) for copies in spaces]
    if batches is not None:
        _run(analysis, found, batches, progress)
    return [sums.forms() for sums in found]


class _Sums:
    """What is known of one space."""

    def __init__(self, analysis: Analysis, copies: Copies) -> None:
        self.analysis, self.copies = analysis, copies
        size = copies.mixing.group.size
        self.shape = (copies.count, size, size)
        self.seen: dict[Tensor, dict[int, FloatArray]] = {}
        self.rows: dict[Tensor, int] = {}
        self.pairs = [
            tuple(analysis.web.tensors[(m.node, ("in", i))] for i in (m.left, m.right)) for m in copies.mixing.meetings
        ]
        self.pairs = [pair for pair in self.pairs if any(copies.axis(one) is not None for one in pair)]
        self.about = dict(_about(analysis, copies))

    @property
    def wanted(self) -> set[str]:
        """Activations that sums run over."""
        return {one for pair in self.pairs for one in pair if isinstance(one, str)}

    def add(self, name: str, value: Values) -> None:
        """Another batch of an activation."""
        total = self.seen.setdefault(name, {})
        if name in self.about:
            value = value - value.mean(self.about[name], keepdims=True)
        for sign, own in self.copies.metric(name, value).items():
            total[sign] = total[sign] + own if sign in total else own
        axis = self.copies.axis(name)
        self.rows[name] = self.rows.get(name, 0) + value.size // value.shape[axis or 0]

    def forms(self) -> Forms:
        sides = {sign: np.zeros(self.shape) for sign in (1, -1)}
        weighed = np.zeros(self.shape)
        written = self._written()
        for pair in self.pairs:
            held = [self._moments(one, written) for one in pair]
            for own in held:
                for sign, moments in own.items():
                    sides[sign] += moments
            for one, own, other in zip(pair, held, held[::-1], strict=True):
                if isinstance(one, str):
                    weight = sum((np.trace(m, axis1=1, axis2=2) for m in other.values()), np.zeros(self.shape[0]))
                    weighed += sum(own.values(), np.zeros(self.shape)) * weight[:, None, None]
        return Forms(sides[1], sides[-1], weighed)

    def _moments(self, tensor: Tensor, written: dict[int, FloatArray]) -> dict[int, FloatArray]:
        if isinstance(tensor, Use):
            return self.copies.metric(tensor, self.analysis.model.array(self.analysis.root(tensor)))
        if tensor in self.seen:
            return {sign: own / max(self.rows[tensor], 1) for sign, own in self.seen[tensor].items()}
        signs = {sign for _, _, sign in self._strands(tensor)}
        return {sign: written.get(sign, np.zeros(self.shape)) for sign in signs}

    def _strands(self, tensor: Tensor) -> list[tuple[IntArray, int, int]]:
        axis = self.copies.axis(tensor)
        return [] if axis is None else self.copies.strands(self.analysis.web.axis_of[tensor] + axis)

    def _written(self) -> dict[int, FloatArray]:
        """Second moments of what constants write, for inputs of which nothing is known."""
        net, read = self.analysis.web, {one for pair in self.pairs for one in pair}
        found: dict[int, FloatArray] = {}
        axes = (net.tensor_of[v][0] for v, _ in self.copies.mixing.spaces)
        for use in dict.fromkeys(one for one in axes if isinstance(one, Use) and one not in read):
            for sign, own in self.copies.metric(use, self.analysis.model.array(self.analysis.root(use))).items():
                found[sign] = found.get(sign, np.zeros(self.shape)) + own
        return found


def _about(analysis: Analysis, copies: Copies) -> Iterator[tuple[str, int]]:
    """Activations of which what is the same along an axis changes nothing in any sum over them, and that axis."""
    axes: dict[str, set[int | None]] = {}
    for meeting in copies.mixing.meetings:
        relation = analysis.web.relations[meeting.node]
        assert relation is not None
        blind = levels(analysis, meeting.node)
        for place in (meeting.left, meeting.right):
            one = analysis.web.tensors[(meeting.node, ("in", place))]
            if isinstance(one, str):
                own = (a for a, axis in enumerate(relation.inputs[place] or ()) if set(axis.dims) & blind)
                axes.setdefault(one, set()).add(next(own, None))
    yield from ((name, axis) for name, own in axes.items() if len(own) == 1 and (axis := next(iter(own))) is not None)


def _run(analysis: Analysis, found: Sequence[_Sums], batches: Callable[[], Iterable[Feeds]], progress: Steps) -> None:
    """Look at every activation that sums run over."""
    model = analysis.model.runnable
    there = set(model.producer) - model.constant_names
    wanted: dict[str, list[_Sums]] = {}
    reads: dict[int, dict[str, list[str]]] = {}
    for sums in found:
        for name in sorted(sums.wanted & there):
            wanted.setdefault(name, []).append(sums)
        for meeting in sums.copies.mixing.meetings:
            node = analysis.model.nodes[meeting.node]
            own = [n for n in (node.input[meeting.left], node.input[meeting.right]) if n in sums.wanted & there]
            if own and node.output[0] in model.producer:
                step = reads.setdefault(meeting.node, {}).setdefault(node.output[0], [])
                step += [n for n in own if n not in step]
    steps = [{k: v for one in step for k, v in one.items()} for step in waves(analysis.model, reads)]
    done: set[tuple[str, int]] = set()
    for _, run, values in observed(model, steps, batches, progress):
        for name, value in values.items():
            if name in wanted and (name, run) not in done:
                done.add((name, run))
                for sums in wanted[name]:
                    sums.add(name, value)
