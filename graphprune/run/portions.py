"""A heavy model run a portion of its nodes at a time, so that memory holds the weights of one portion and no more.

A portion is a stretch of nodes whose weights take no more than a room; what later ones read of what it makes is kept
between. All inputs go through one portion before the next is begun, so each weight is read once however many inputs
there are. Weights are handed to ONNX Runtime as inputs: it then reads them where they lie (in a mapped file, or where
they were made) and neither copies nor packs them, as it does with what it knows to be constant.

That is for the few runs of a proof. Where a model runs often, packed weights are faster (see ``staged``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from graphprune.errors import InputError
from graphprune.model import Model, limits
from graphprune.relation import Values
from graphprune.run.runtime import Feeds, RefusedError, part, quiet, run, session, started, widened

HEAVY = 32 << 20
"""Bytes of weights from which on a model is run in portions: half of where a file is large, for what is left of it."""
_MOST, _LEAST = 256 << 20, 16 << 20
"""Bytes of weights that a portion holds: a quarter of the model's, within these."""
_LIGHT = 1 << 16
"""Bytes up to which a constant stays one: sizes, scales, zero points."""

Result = list[Any] | InputError
Several = Callable[[Sequence[Feeds], Sequence[str] | None], list[Result]]
"""From inputs, and names of tensors (None are the outputs), to these for each of the inputs, or why there are none."""


@contextmanager
def several(model: Model) -> Iterator[Several]:
    """What runs a model on several inputs at once: in one session, or in portions where it is heavy.

    Raises:
        RefusedError: ONNX Runtime refuses the model.
    """
    if weight(model) > HEAVY:
        yield Portions(model)
        return
    with session(model) as active:

        def runs(feeds: Sequence[Feeds], names: Sequence[str] | None = None) -> list[Result]:
            return [_tried(active, one, names) for one in feeds]

        yield runs


def run_all(model: Model, feeds: Sequence[Feeds], names: Sequence[str] | None = None) -> list[list[Any]]:
    """Tensors of a model for each of several inputs.

    Raises:
        RefusedError: ONNX Runtime refuses the model.
        InputError: it fails on one of the inputs.
    """
    with several(model) as runs:
        found = []
        for one in runs(feeds, names):
            if isinstance(one, InputError):
                raise one
            found.append(one)
        return found


def weight(model: Model) -> int:
    """Bytes of the initializers of a model, wherever they lie."""
    return sum(_size(tensor) for tensor in model.graph.initializer)


def _tried(active: ort.InferenceSession, feeds: Feeds, names: Sequence[str] | None) -> Result:
    try:
        return run(active, feeds, names)
    except InputError as error:
        return error


def _size(tensor: TensorProto) -> int:
    return limits.size(tensor.dims, tensor.data_type)


@dataclass
class _Portion:
    """Nodes, by index, and what is read of what they make."""

    nodes: list[int]
    room: int = 0


class Portions:
    """A model in portions; is called as :data:`Several`.

    Args:
        model: the model.
        room: bytes of weights that a portion may hold; one node may need more.
    """

    def __init__(self, model: Model, room: int | None = None) -> None:
        self.model = model = widened(model)
        self.sizes = {t.name: _size(t) for t in model.graph.initializer}
        self.room = min(max(sum(self.sizes.values()) // 4, _LEAST), _MOST) if room is None else room
        self.constants = model.constant_names
        self.portions = self._divided()
        self.last: dict[str, int] = {}
        for number, portion in enumerate(self.portions):
            for index in portion.nodes:
                self.last.update(dict.fromkeys(self._reads(index), number))

    def _reads(self, index: int) -> list[str]:
        return [n for n in [*self.model.nodes[index].input, *self.model.captured.get(index, ())] if n]

    def _divided(self) -> list[_Portion]:
        behind: dict[str, Set[str]] = {name: frozenset([name]) for name in self.sizes}
        found, held = [_Portion([])], set[str]()
        for index, node in enumerate(self.model.nodes):
            reads = [behind[n] for n in self._reads(index) if n in behind]
            if all(o in self.constants for o in node.output if o):  # is computed wherever it is read
                weights = frozenset().union(*reads)
                behind.update((o, weights) for o in node.output if o)
                continue
            fresh = set().union(*reads) - held
            more = sum(self.sizes[n] for n in fresh)
            if found[-1].nodes and found[-1].room + more > self.room:
                held, fresh = set(), set().union(*reads)
                found.append(_Portion([]))
                more = sum(self.sizes[n] for n in fresh)
            held |= fresh
            found[-1].nodes.append(index)
            found[-1].room += more
        return found

    def __call__(self, feeds: Sequence[Feeds], names: Sequence[str] | None = None) -> list[Result]:
        """Tensors for each of several inputs, or why there are none.

        Raises:
            RefusedError: ONNX Runtime refuses the model at all of them.
        """
        wanted = list(names) if names is not None else self.model.output_names
        kept: list[dict[str, Any] | InputError] = [dict(one) for one in feeds]
        waiting: list[int] = []
        for number, portion in enumerate(self.portions):
            waiting += portion.nodes
            final = number + 1 == len(self.portions)
            made = {o for i in waiting for o in self.model.nodes[i].output if o}
            fresh = [n for n in dict.fromkeys([*made, *wanted] if final else made) if self._asked(n, wanted, number)]
            fresh = sorted(n for n in fresh if n in made or (final and n in self.constants))
            if self._advance(waiting, fresh, kept, final):
                waiting = []
            needed = {n for n, last in self.last.items() if last > number} | set(wanted)
            if not waiting:
                for held in (one for one in kept if isinstance(one, dict)):
                    for name in held.keys() - needed:
                        del held[name]
        if kept and all(isinstance(held, RefusedError) for held in kept):
            raise kept[0]  # type: ignore[misc]
        return [held if isinstance(held, InputError) else [held[n] for n in wanted] for held in kept]

    def _asked(self, name: str, wanted: Sequence[str], number: int) -> bool:
        return name in wanted or self.last.get(name, -1) > number

    def _advance(
        self, nodes: Sequence[int], fresh: Sequence[str], kept: list[dict[str, Any] | InputError], final: bool
    ) -> bool:
        """Run some nodes for all inputs; False where what lies behind them is no tensor and cannot be kept."""
        own = _Part(self.model, self.constants, nodes, fresh)
        for place, held in enumerate(kept):
            if isinstance(held, InputError) or not fresh:
                continue
            try:
                found = own.run(held, final)
            except InputError as error:
                kept[place] = error
                continue
            if found is None:
                return False
            held.update(zip(fresh, found, strict=True))
        return True


class _Part:
    """Some nodes of a model, with the nodes that compute the constants that they read."""

    def __init__(self, model: Model, constants: Set[str], nodes: Iterable[int], outputs: Sequence[str]) -> None:
        self.model, self.outputs = model, outputs
        chosen, read, indices = set(nodes), set[str](), list[int]()
        ends = set(outputs)
        for index in range(max(chosen, default=-1) if not ends & constants else len(model.nodes) - 1, -1, -1):
            node = model.nodes[index]
            made = {o for o in node.output if o}
            if index in chosen or (made & (read | ends) & constants):
                indices.append(index)
                read.update(n for n in [*node.input, *model.captured.get(index, ())] if n)
        self.nodes, self.read = [model.nodes[i] for i in reversed(indices)], read | ends
        self.made = {o for node in self.nodes for o in node.output}
        self.weights: dict[str, Values] | None = None
        self.sessions: dict[tuple[Any, ...], ort.InferenceSession] = {}

    def run(self, held: Mapping[str, Any], final: bool) -> list[Any] | None:
        """What they make; None where some of it is no tensor, and not the end.

        Raises:
            InputError: ONNX Runtime fails.
        """
        given = {n: np.asarray(v) for n, v in held.items() if n in self.read and n not in self.made}
        try:
            active, weights = self._active(given), self.weights or {}
            if not final and not all(o.type.startswith("tensor(") for o in active.get_outputs()):
                return None
            return run(active, given | weights, self.outputs)
        except InputError:  # some kernels want constants
            with session(self._model(given, ())) as whole:
                return run(whole, given, self.outputs)

    def _active(self, given: Feeds) -> ort.InferenceSession:
        if self.weights is None:
            light = self.model.sources
            names = [t.name for t in self.model.graph.initializer if t.name in self.read and _size(t) > _LIGHT]
            arrays = {n: self.model.array(n) for n in names if light[n].dtype in _FED}
            self.weights = {n: np.require(a, requirements=["C", "A"]) for n, a in arrays.items()}
        key = tuple(sorted((n, str(v.dtype), v.shape) for n, v in given.items()))
        if key not in self.sessions:
            self.sessions[key] = started(self._model(given, self.weights), quiet(packed=False))
        return self.sessions[key]

    def _model(self, given: Feeds, weights: Iterable[str]) -> Model:
        """The nodes as a model, whose inputs are what is given and some weights."""
        inputs = [_declared(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given.items()]
        apart = set(weights)
        inputs += [_declared(n, self.model.sources[n].dtype, self.model.sources[n].shape) for n in sorted(apart)]
        made = part(self.model, self.nodes, self.read - apart - given.keys(), inputs, self.outputs)
        for tensor in made.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL or tensor.name in self.model.lazy:
                tensor.CopyFrom(numpy_helper.from_array(self.model.tensor_array(tensor), tensor.name))
        made.lazy = {}
        return made


_FED = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.INT32,
    TensorProto.UINT32,
    TensorProto.INT64,
    TensorProto.UINT64,
    TensorProto.BOOL,
}
"""Types that numpy has, too, so that an array of it can be an input."""


def _declared(name: str, kind: int, shape: Sequence[int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
