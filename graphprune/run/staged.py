"""A model run in stages: up to its first linear operators, from there to the next, and so on.

Between stages, what later ones need is kept for every batch of inputs (see ``shelf``); so a model whose weights change
from stage to stage runs once in all, and memory does not grow with the number of batches. A model whose weights stay is
run as a whole, unless these would fill memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.progress import Steps, unseen
from graphprune.relation import Values
from graphprune.run.runtime import Feeds, part, run, session, upto
from graphprune.run.shelf import Shelf

T = TypeVar("T")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_HEAVY = 2 << 30
"""Bytes of weights from which on a model is never held as a whole."""


def waves(model: Model, marked: Mapping[int, T]) -> list[list[T]]:
    """Marked nodes in the order in which data passes them; no two of one wave are behind each other.

    Args:
        model: the model.
        marked: by index of the node what is to be listed for it.
    """
    depth: dict[str, int] = {}
    found: list[list[T]] = []
    for index, node in enumerate(model.nodes):
        behind = max((depth.get(n, 0) for n in [*node.input, *model.captured.get(index, ())]), default=0)
        if index in marked:
            while len(found) <= behind:
                found.append([])
            found[behind].append(marked[index])
            behind += 1
        depth.update(dict.fromkeys(node.output, behind))
    return found


def _level(model: Model) -> ort.GraphOptimizationLevel:
    """As far as a model is optimised to be looked at: not where small integers are, whose kernels round otherwise."""
    kinds = {source.dtype for source in model.sources.values()}
    exact = kinds <= {*_FLOATS, *_WHOLE}
    return ort.GraphOptimizationLevel.ORT_ENABLE_ALL if exact else ort.GraphOptimizationLevel.ORT_ENABLE_BASIC


class Staged:
    """Stages of a model.

    Args:
        model: the model as it is at first; what is run may have other weights.
        waves: by tensor the number of its wave: what it is made of belongs to that stage at the latest.
        behind: whether the maker of such a tensor runs one stage later, when its weights have been changed.
        folder: for what is kept between stages, where memory has no room.
    """

    def __init__(self, model: Model, waves: Mapping[str, int], behind: bool, folder: Path) -> None:
        self.shelf = Shelf(folder)
        self.constants = model.constant_names
        self.stage: dict[str, int] = {i.name: 0 for i in model.inputs}  # where each tensor is made
        self.last: dict[str, int] = {}  # the last stage that reads it
        depth: dict[str, int] = {}
        for index, node in enumerate(model.nodes):
            reads = [n for n in [*node.input, *model.captured.get(index, ())] if n and n not in self.constants]
            before = max((depth.get(n, 0) for n in reads), default=0)
            wave = next((waves[o] for o in node.output if o in waves), None)
            place = before if wave is None else max(before, wave) + behind
            depth.update((o, before if wave is None else max(before, wave) + 1) for o in node.output)
            self.stage.update((o, place) for o in node.output if o)
            for name in reads:
                self.last[name] = max(self.last.get(name, 0), place)

    def holds(self, name: str, number: int) -> bool:
        """Whether a tensor can be asked for at a stage: it is made then, or was before and is still to be read."""
        made = self.stage.get(name)
        return made is not None and (made == number or (made < number <= self.last.get(name, -1)))

    def start(self, batch: int, feeds: Mapping[str, Values]) -> None:
        """Keep the inputs of a batch."""
        self.shelf.put(batch, feeds)

    def run(
        self, model: Model, number: int, batches: int, names: Sequence[str], again: bool = False
    ) -> Iterator[dict[str, Values]]:
        """Run one stage on every batch.

        Args:
            model: with the weights of now.
            number: of the stage.
            batches: how many there are.
            names: tensors that are wanted, made in this stage or before.
            again: whether the stage will be run once more: what it needs stays there.

        Yields:
            For each batch the tensors, by name.

        Raises:
            InputError: ONNX Runtime fails, or something between stages is no tensor.
        """
        made = {t for t, at in self.stage.items() if at == number and t not in self.constants}
        fresh = sorted(
            t for t in made if t in model.producer and (t in names or (not again and self.last.get(t, -1) > number))
        )
        with ExitStack() as stack:
            active, shapes = None, None
            for batch in range(batches):
                kept = self.shelf.get(batch)
                found = {n: v.shape for n, v in kept.items()}
                if fresh and found != shapes:  # sizes are declared: without them inference goes wrong on some models
                    stack.close()
                    own = self._part(model, number, fresh, kept)
                    active, shapes = stack.enter_context(session(own, _level(own))), found
                    _only_tensors(active, model)
                if active is not None:
                    given = {i.name: kept[i.name] for i in active.get_inputs()}
                    kept |= zip(fresh, run(active, given, fresh), strict=True)
                if not again:
                    later = {n for n in kept if self.last.get(n, -1) > number}
                    self.shelf.put(batch, {n: kept[n] for n in fresh if n in later})
                    self.shelf.drop(batch, kept.keys() - later)
                yield {n: kept[n] for n in names}

    def _part(self, model: Model, number: int, fresh: Sequence[str], kept: Mapping[str, Values]) -> Model:
        """The nodes of a stage, and the constants that they read."""
        wanted: set[str] = set()
        nodes = []
        for index in range(len(model.nodes) - 1, -1, -1):
            node = model.nodes[index]
            mine = any(self.stage.get(o) == number and o not in self.constants for o in node.output)
            if mine or (wanted & set(node.output) and not any(o in kept for o in node.output)):
                nodes.append(node)
                wanted.update([*node.input, *model.captured.get(index, ())])
        there = {n: v for n, v in kept.items() if n in wanted}
        kinds = {n: helper.np_dtype_to_tensor_dtype(np.dtype(v.dtype)) for n, v in there.items()}
        inputs = [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in there.items()]
        return part(model, nodes[::-1], wanted, inputs, fresh)


def _only_tensors(active: ort.InferenceSession, model: Model) -> None:
    """Raise InputError where a sequence or the like would have to be kept between stages."""
    for output in active.get_outputs():
        if not output.type.startswith("tensor("):
            raise InputError(
                f"{model.name}: {output.name!r} is a {output.type}; fitting needs tensors: go on with --no-compensate"
            )


def observed(
    model: Model,
    steps: Sequence[Mapping[str, Sequence[str]]],
    batches: Callable[[], Iterable[Feeds]],
    progress: Steps = unseen,
) -> Iterator[tuple[int, int, Feeds]]:
    """What is read at every step of a model whose weights stay, for every batch; the model runs once in all.

    Args:
        model: as it runs.
        steps: by tensor that is made at the step, what is read to make it.
        batches: gives the inputs.
        progress: is told how many of how many parts are done.

    Yields:
        The number of the step, the number of the batch, and the values.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    heavy = sum(len(t.raw_data) for t in model.graph.initializer) > _HEAVY
    yield from (_by_stages if heavy else _as_a_whole)(model, steps, batches, progress)


def _as_a_whole(
    model: Model,
    steps: Sequence[Mapping[str, Sequence[str]]],
    batches: Callable[[], Iterable[Feeds]],
    progress: Steps,
) -> Iterator[tuple[int, int, Feeds]]:
    reads = [list(dict.fromkeys(name for reads in step.values() for name in reads)) for step in steps]
    made = [n for n in dict.fromkeys(n for names in reads for n in names) if n in model.producer]
    total = sum(1 for _ in batches())
    with ExitStack() as stack:
        active = None
        if made:
            wanted = upto(model, made)
            active = stack.enter_context(session(wanted, _level(wanted)))
        for batch, feeds in enumerate(batches()):
            values = dict(feeds)
            if active is not None:
                given = {i.name: feeds[i.name] for i in active.get_inputs()}
                values |= zip(made, run(active, given, made), strict=True)
            for number, names in enumerate(reads):
                yield number, batch, {n: values[n] for n in names}
            progress(batch + 1, total)


def _by_stages(
    model: Model,
    steps: Sequence[Mapping[str, Sequence[str]]],
    batches: Callable[[], Iterable[Feeds]],
    progress: Steps,
) -> Iterator[tuple[int, int, Feeds]]:
    with tempfile.TemporaryDirectory() as folder:
        numbers = {output: number for number, step in enumerate(steps) for output in step}
        staged, count = Staged(model, numbers, True, Path(folder)), 0
        for feeds in batches():
            staged.start(count, feeds)
            count += 1
        for number, step in enumerate(steps):
            names = list(dict.fromkeys(name for reads in step.values() for name in reads))
            for batch, values in enumerate(staged.run(model, number, count, names)):
                yield number, batch, values
            progress(number + 1, len(steps))
