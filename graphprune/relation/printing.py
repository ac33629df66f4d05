"""A relation as text: its pattern as in the notation, and what is said beside it, each in square brackets.

``m k, k o, o -> m o  [zero 0*1+2] [macs m k o]``. Sizes, reasons and the tails of long lookups are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.relation.relation import Axes, AxisMap, Correction, IntArray, Operand, Relation, Slot
    from graphprune.relation.window import Window


def whole(relation: Relation) -> str:
    """All that a relation says, in one line."""
    said = " ".join(f"[{fact}]" for fact in facts(relation))
    return f"{pattern(relation)}  {said}" if said else pattern(relation)


def pattern(relation: Relation) -> str:
    """Its axes alone."""
    text = f"{_side(relation, relation.inputs)} -> {_side(relation, relation.outputs)}".strip()
    return "; ".join([text, *(f"{relation.dims[d].name} = {_axis(relation, one)}" for d, one in relation.inner)])


def _side(relation: Relation, tensors: Iterable[Axes | None]) -> str:
    return ", ".join("_" if axes is None else _tensor(relation, axes) for axes in tensors)


def _tensor(relation: Relation, axes: Axes) -> str:
    return " ".join(_axis(relation, axis) for axis in axes)


def _axis(relation: Relation, axis: AxisMap) -> str:
    names = " ".join(str(relation.dims[d]) for d in axis.dims)
    if axis.lookup is not None:
        return f"{names}[{summarise(axis.lookup)}]"
    return names if len(axis.dims) == 1 else f"({names})" if axis.dims else "1"


def facts(relation: Relation) -> Iterator[str]:
    """What is said beside the pattern, where anything is."""
    if not relation.zero.never:
        yield f"zero {relation.zero}"
    if not relation.sums.never:
        yield f"sums {relation.sums}"
    if relation.macs:
        yield f"macs {' + '.join(_names(relation, product) or '1' for product in relation.macs)}"
    if relation.kind:
        yield f"a dim is a {relation.kind}"
    yield from (f"{name} = {_names(relation, own) or '1'}" for name, own in relation.attributes.items())
    yield from (_correction(relation, one) for one in relation.corrections)
    if relation.operands:
        yield f"refits {', '.join(map(_operand, relation.operands))}"
    if relation.picks is not None:
        yield "picks what no operand cuts"
    yield from (_mask(i, holder) for i, holder in relation.masks.items())
    yield from (f"of degree {degree:g} in {i}" for i, degree in relation.degrees.items())
    yield from (f"{i} would be {_tensor(relation, axes)}" for i, axes in relation.vacant.items())
    yield from (f"{_slot(slot)} counts {relation.dims[d].name}" for slot, d in relation.counts.items())
    if relation.moves is not None:
        yield f"moves {' '.join(map(str, relation.moves))}".strip()
    if relation.window is not None:
        yield _window(relation.window)
    if relation.signs is not None:
        yield f"linear {''.join('+' if sign > 0 else '-' for sign in relation.signs)}"
    if relation.mixed:
        yield f"linear along {_names(relation, relation.mixed)}"
    if relation.isotropic:
        yield f"isotropic along {_names(relation, relation.isotropic)}"
    if relation.centring:
        yield f"isotropic about the mean along {_names(relation, relation.centring)}"
    if relation.level:
        yield f"blind to what is the same along {_names(relation, relation.level)}"
    marks = {"joint": relation.joint, "rounds": relation.rounds, "bends": relation.bends}
    yield from (name for name, holds in marks.items() if holds)


def _names(relation: Relation, dims: Iterable[int]) -> str:
    return " ".join(relation.dims[d].name for d in dims)


def _mask(number: int, holder: int | None) -> str:
    return f"{number} is never masked" if holder is None else f"{number} is zero at {holder}"


def _correction(relation: Relation, one: Correction) -> str:
    return f"{_slot(one.target)} times (k/n)^{one.power:g} over {_names(relation, one.dims)}"


def _slot(target: Slot | str) -> str:
    return target if isinstance(target, str) else f"{target[0]} {target[1]}"


def _operand(operand: Operand) -> str:
    return operand.attribute or str(operand.input)


def _window(window: Window) -> str:
    """Its geometry; what is as in a plain convolution of stride 1 is left out."""
    said = ["transposed window" if window.backward else "window"]
    for name, along, plain in (
        ("strides", window.strides, 1),
        ("dilations", window.dilations, 1),
        ("low", window.low, 0),
        ("high", window.high, 0),
        ("more", window.more, 0),
    ):
        if any(n != plain for n in along):
            said.append(f"{name} {' '.join(map(str, along))}")
    return " ".join([*said, *([f"same {window.same}"] if window.same else [])])


def summarise(indices: IntArray) -> str:
    """An index array in as few words as possible: ``8:16``, ``0:8:2``, or its first elements."""
    if indices.size == 0:
        return ""
    steps = np.diff(indices)
    if indices.size == 1:
        return str(indices[0])
    if (steps == steps[0]).all() and steps[0] > 0 and indices[0] >= 0:
        stop = int(indices[-1]) + 1
        return f"{indices[0]}:{stop}" + (f":{steps[0]}" if steps[0] != 1 else "")
    return ",".join(map(str, indices[:4])) + (",.." if indices.size > 4 else "")
