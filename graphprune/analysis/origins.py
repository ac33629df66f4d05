"""Where the elements of a constant that a node reads come from: a weight may lie behind nodes that move or convert it.

Each node between is followed by its relation: an element of its output is zero where one element of one of its inputs
is (the ``zero`` expression), and the index maps say which. No operator is named. Of quantised numbers it is the zero
point that stands for zero (``masks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graphprune.analysis.reasons import Reason
from graphprune.model import Model, Use, node_name
from graphprune.relation import Axes, AxisMap, IntArray, Relation, Values

Index = npt.NDArray[np.intp]


class Lost(Exception):
    """An element cannot be followed to one place; the reason says why."""

    def __init__(self, text: str, node: str = "", remedy: str = "") -> None:
        self.reason = Reason(text, node, remedy)
        super().__init__(str(self.reason))


@dataclass(frozen=True)
class Origin:
    """The constant behind what a node reads.

    Attributes:
        source: its name.
        order: for each element as the node reads it, the element of the flat source; None where both are alike.
        zero: what the source holds where the node reads zero; it broadcasts to what the node reads.
    """

    source: str
    order: Index | None = None
    zero: Any = 0

    def write(self, value: Values, gone: npt.NDArray[np.bool_]) -> Values:
        """The source with some elements zero, as the node reads them.

        Args:
            value: the source.
            gone: which elements, in the shape that the node reads.
        """
        zero = np.asarray(self.zero).astype(value.dtype)
        if self.order is None:
            return np.where(gone, zero, value) if zero.any() else _cleared(value, gone)
        zero = np.broadcast_to(zero, gone.shape)
        found = np.array(value)
        found.reshape(-1)[self.order[gone]] = zero[gone]
        return found


def _cleared(value: Values, gone: npt.NDArray[np.bool_]) -> Values:
    """A tensor with some elements zero: bit by bit, which takes a fraction of the time of ``where``."""
    bits = np.ascontiguousarray(value).view(f"i{value.dtype.itemsize}")
    return np.asarray((bits & (gone.view(np.int8) - np.int8(1))).view(value.dtype))


class Relations(Protocol):
    """What each node says, by its index; None of nodes that only make constants, or of which nothing is known."""

    def __getitem__(self, index: int, /) -> Relation | None: ...


@dataclass(frozen=True)
class Step:
    """One node on the way to a constant.

    Attributes:
        node: its index.
        relation: what it says.
        input, output: which of its tensors are on the way.
    """

    node: int
    relation: Relation
    input: int
    output: int


@dataclass(frozen=True)
class Way:
    """The way from an input of a node back to a constant.

    Attributes:
        source: name of the constant.
        names: every tensor on the way, that of the constant last.
        steps: nodes between, the last first.
    """

    source: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def moved(self) -> bool:
        """Whether the nodes between move or convert the constant and compute nothing else."""
        return all(step.relation.moves is not None and step.input == step.output == 0 for step in self.steps)

    def order(self) -> Index | None:
        """For each element as the node reads it, the element of the flat source; None where both are alike.

        Raises:
            Lost: a node makes elements itself, reads some more than once, or sums over them.
        """
        order: Index | None = None
        for step in self.steps:
            before = _order(step.relation, step.input, step.output)
            if before is not None:
                order = before if order is None else before.reshape(-1)[order]
        return order


def way(model: Model, relations: Relations, node: int, position: int) -> Way:
    """The way from an input of a node back to a constant.

    Raises:
        Lost: there is none, or nodes between make more of it than a move or a conversion; says which.
    """
    name = model.nodes[node].input[position]
    names, steps = [name], list[Step]()
    while name not in model.sources:
        index = model.producer.get(name, -1)
        if name not in model.constant_names or index < 0:
            raise Lost(f"{name!r} is no constant")
        position = 0
        if model.root(name) not in model.sources:  # else it is another name of the constant
            relation = relations[index]
            which = list(model.nodes[index].output).index(name)
            chosen = None if relation is None else _follow(relation, which)
            if relation is None or chosen is None:
                label = f"{node_name(model, index)!r} ({model.nodes[index].op_type})"
                raise Lost(
                    f"node {label} computes it in a way that cannot be followed element by element",
                    node_name(model, index),
                    "fold constants first",
                )
            steps.append(Step(index, relation, chosen, which))
            position = chosen
        name = model.nodes[index].input[position]
        names.append(name)
    return Way(name, tuple(names), tuple(steps))


def readers(model: Model, source: str) -> tuple[list[Use], bool]:
    """The way forth: all that reads a constant, also by its other names.

    Returns:
        Uses by nodes that do more than name it anew; and whether a subgraph reads it too, or the graph gives it out.
    """
    found: list[Use] = []
    beyond = False
    names = [source]
    while names:
        name = names.pop()
        beyond |= name in model.read_outside
        for use in model.uses.get(name, []):
            made = model.nodes[use.node].output
            if model.nodes[use.node].op_type == "Identity" and model.root(made[0]) == source:
                names.append(made[0])
            else:
                found.append(use)
    return found, beyond


def origin(model: Model, relations: Relations, node: int, position: int) -> Origin:
    """The constant behind an input of a node.

    Raises:
        Lost: there is none, or nodes between make more of it than a move or a conversion; says which.
    """
    found = way(model, relations, node, position)
    zero = _zero_point(model, relations[node], node, position)
    for number, step in enumerate(found.steps):
        before = _zero_point(model, step.relation, step.node, step.input)
        if np.any(before):
            order = Way(found.source, (), found.steps[: number + 1]).order()
            shape = _shape(step.relation, step.input)
            whole = np.broadcast_to(before, shape)
            zero = whole if order is None else whole.reshape(-1)[order]
            zero = zero.reshape(-1)[0] if np.ndim(before) == 0 else zero
    return Origin(found.source, found.order(), zero)


def _zero_point(model: Model, relation: Relation | None, node: int, position: int) -> Any:
    """What an input of a node holds for zero, in a shape that broadcasts to it."""
    holder = relation.masks.get(position) if relation is not None else None
    if relation is None or holder is None or holder >= len(model.nodes[node].input):
        return 0
    root = model.root(model.nodes[node].input[holder]) if model.nodes[node].input[holder] else ""
    value = model.array(root) if root in model.sources else np.zeros(())
    return value.reshape(()) if value.size == 1 else spread(value, relation, position, holder)


def spread(value: Values, relation: Relation, position: int, holder: int) -> Values:
    """A zero point for each element of an axis, or for each block of it, in a shape that broadcasts to the weight's."""
    free = [axis for axis in relation.inputs[holder] or () if axis.dims]
    apart: list[int] = []
    for axis in relation.inputs[position] or ():
        match = next((own for own in free if set(own.dims) <= set(axis.dims)), None)
        if match is not None:
            free.remove(match)
        held = match.dims if match is not None else ()
        apart += [relation.dims[d].size if d in held else 1 for d in axis.dims or (-1,)]
    sizes = [[relation.dims[d].size for d in axis.dims] or [1] for axis in relation.inputs[position] or ()]
    whole = np.broadcast_to(value.reshape(apart), [n for factors in sizes for n in factors])
    return whole.reshape([prod(factors) for factors in sizes])


def _follow(relation: Relation, which: int) -> int | None:
    """The input whose zeros are zeros of an output, element by element; the largest where a product has several."""
    factors = relation.zero.of(which).single
    weighed = [(prod(_shape(relation, k)), -k) for k in factors if relation.inputs[k] is not None]
    whole = prod(shape_of(relation, relation.outputs[which] or ()))
    largest = max(weighed, default=None)
    return -largest[1] if largest is not None and largest[0] >= whole else None


def _shape(relation: Relation, position: int) -> list[int]:
    return shape_of(relation, relation.inputs[position] or ())


def shape_of(relation: Relation, axes: Axes) -> list[int]:
    """Sizes of the axes of a tensor."""
    return [
        prod(relation.dims[d].size for d in a.dims) if a.lookup is None else len(a.lookup) for a in axes
    ]  # fmt: skip


def _order(relation: Relation, position: int, which: int) -> Index | None:
    """For each element of an output the element of an input; None where they are alike."""
    own, made = relation.inputs[position] or (), relation.outputs[which] or ()
    if relation.moves is not None and position == which == 0:
        return _cut_anew(shape_of(relation, own), relation.moves, shape_of(relation, made))
    if [a.dims for a in own] == [a.dims for a in made] and all(a.lookup is None for a in (*own, *made)):
        return None
    places, shape = _places(relation, made)
    flat: Any = np.zeros((), np.intp)
    for size, axis in zip(shape_of(relation, own), own, strict=True):
        flat = flat * size + _element(relation, axis, places)
    found: Index = np.broadcast_to(flat, shape).reshape(shape_of(relation, made))
    if (found < 0).any():
        raise Lost("a node on the way makes some of its elements itself")
    if np.bincount(found.reshape(-1)).max(initial=0) > 1:
        raise Lost("a node on the way reads some of its elements more than once")
    return found


def _cut_anew(before: list[int], moves: Sequence[int], after: list[int]) -> Index | None:
    """The same where axes change places, and are then cut anew."""
    if before == after and list(moves) == sorted(moves):
        return None
    return np.arange(prod(before)).reshape(before).transpose(moves).reshape(after)


def _places(relation: Relation, axes: Axes) -> tuple[dict[int, IntArray], list[int]]:
    """For each dim its element at every element of a tensor, whose composite axes are laid apart."""
    sizes = [[len(a.lookup)] if a.lookup is not None else [relation.dims[d].size for d in a.dims] or [1] for a in axes]
    shape = [n for factors in sizes for n in factors]
    found: dict[int, IntArray] = {}
    at = 0
    for axis, factors in zip(axes, sizes, strict=True):
        for d, size in zip(axis.dims, factors, strict=False):
            along = np.arange(size) if axis.lookup is None else axis.lookup
            if d in found:
                raise Lost("a node on the way uses a dim twice")
            found[d] = along.reshape([-1 if k == at else 1 for k in range(len(shape))])
            at += 1
        at += not axis.dims
    return found, shape


def _element(relation: Relation, axis: AxisMap, places: dict[int, IntArray]) -> Any:
    """The element of an axis at every place."""
    found: Any = np.zeros((), np.intp)
    for d in axis.dims:
        if d not in places and relation.dims[d].size > 1:
            raise Lost("a node on the way sums over it, or picks from it")
        found = found * relation.dims[d].size + places.get(d, np.zeros((), np.intp))
    if axis.lookup is None:
        return found
    back = np.full(relation.dims[axis.dims[0]].size, np.iinfo(np.int32).min, np.intp)  # negative, whatever is added
    back[axis.lookup[axis.lookup >= 0]] = np.flatnonzero(axis.lookup >= 0)
    return back[found]
