"""Forms: how a node is a product of matrices, read off its relation; no operator is named.

Of the dims of an activation x and a constant w that are multiplied, those that no output has are *sums*, those of w
alone *outputs*, those of x alone *rows*, and those of both that stay *groups*. So x is ``[groups, rows, sums]``, w
``[groups, sums, outputs]``, and what they come to ``[groups, rows, outputs]``. Of a convolution the places in its
window are summed over too, and its positions are rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import prod

from graphprune.relation import Axes, Relation, Shape
from graphprune.relation.window import Window

Letter = int | str
"""A dim of the relation; or what has none there: a place in a window, a position, an axis of size 1."""
Cut = tuple[tuple[Letter, ...], ...]
"""For each axis of a tensor the letters that it is the product of."""


@dataclass(frozen=True)
class Form:
    """How a node is a product.

    Attributes:
        x, w: which inputs are the activation and the weight.
        read, held, made: the axes of the activation, of the weight, and of output 0.
        groups, rows, sums, outputs: letters, in the order in which elements are counted.
        places: sizes of a window.
        known: sizes of dims that no removal changes.
        attributes: attributes that hold the size of a dim.
        window: of a convolution.
        inner: whether the product is a step inside the node: what it comes to is no tensor, and no bias is to be had.
        slot: the input that is added to each output, or would be if it were there; None where the node takes none.
    """

    x: int
    w: int
    read: Cut
    held: Cut
    made: Cut
    groups: tuple[Letter, ...]
    rows: tuple[Letter, ...]
    sums: tuple[Letter, ...]
    outputs: tuple[Letter, ...]
    places: Mapping[Letter, int] = field(default_factory=dict)
    known: Mapping[Letter, int] = field(default_factory=dict)
    attributes: Mapping[str, int] = field(default_factory=dict)
    window: Window | None = None
    inner: bool = False
    slot: int | None = None

    @property
    def channels(self) -> tuple[int, ...]:
        """Axes of output 0 that hold groups and outputs."""
        own = {*self.groups, *self.outputs}
        return tuple(a for a, letters in enumerate(self.made) if own & set(letters))

    def sizes(self, shape: Shape, attributes: Mapping[str, object]) -> dict[Letter, int] | None:
        """Sizes of the letters of a weight that a node reads in some shape; None where they do not follow.

        Args:
            shape: of the weight, as the node reads it.
            attributes: of the node.
        """
        known = dict(self.known)
        for name, dim in self.attributes.items():
            held = attributes.get(name)
            if isinstance(held, int):
                known[dim] = held
        return solve(self.held, shape, known)


def solve(cut: Cut, shape: Sequence[int], known: Mapping[Letter, int]) -> dict[Letter, int] | None:
    """Sizes of the letters of a tensor, None where an axis has two that are not known, or does not fit."""
    found = dict(known)
    for letters, size in zip(cut, shape, strict=True):
        unknown = [n for n in letters if n not in found]
        rest = prod(found[n] for n in letters if n in found)
        if len(unknown) > 1 or (rest == 0) or size % rest or (not unknown and size != rest):
            return None
        if unknown:
            found[unknown[0]] = size // rest
    return found


def forms(relation: Relation, constants: Sequence[int], activations: Sequence[int]) -> list[Form]:
    """Every way in which a node is a product of an activation with a constant; steps inside the node come last.

    Args:
        relation: what the node says.
        constants: inputs that are constants.
        activations: inputs that the model computes.
    """
    pairs = [(x, w) for w in constants for x in activations] if relation.macs else []
    found = [_form(relation, x, w, {*constants}, {*activations}) for x, w in pairs]
    return sorted((form for form in found if form is not None), key=lambda form: form.inner)


def _form(relation: Relation, x: int, w: int, constants: Set[int], activations: Set[int]) -> Form | None:
    window = relation.window
    read = _cut(relation.inputs[x], window.input if window else (), "at", "row")
    held = _cut(relation.inputs[w], window.weight if window else (), "place")
    made = _cut(relation.outputs[0] if relation.outputs else None, window.output if window else (), "at", "row")
    if read is None or held is None:
        return None
    mine, others = [n for axis in held for n in axis], [n for axis in read for n in axis]
    dims = {n for n in (*mine, *others) if isinstance(n, int)}
    kept = {d for axes in relation.outputs for a in axes or () for d in a.dims}
    places = [n for n in mine if isinstance(n, str)]
    shared = [n for n in mine if n in others]
    sums, rows = [n for n in shared if n not in kept], [n for n in others if n not in mine]
    apart = all(sum(n in rows for n in axis) < 2 for axis in (*read, *(made or ())))
    whole = sum(dims <= set(product) for product in relation.macs) == 1
    if len({*mine}) < len(mine) or len({*others}) < len(others) or not (sums or places) or not apart or not whole:
        return None
    attributes = {name: own[0] for name, own in relation.attributes.items() if len(own) == 1 and own[0] in mine}
    fixed = {d for d, dim in enumerate(relation.dims) if d in mine and (dim.pinned or d in attributes.values())}
    form = Form(
        x,
        w,
        read,
        held,
        made or (),
        tuple(n for n in shared if n in kept),
        tuple(rows),
        (*sums, *places),
        tuple(n for n in mine if n not in others and n not in places),
        dict(zip(places, _sizes(relation, w, window.weight if window else ()), strict=True)),
        {d: relation.dims[d].size for d in sorted(fixed)},
        attributes,
        window,
    )
    return replace(form, inner=True) if made is None else _settled(relation, form, constants, activations)


def _sizes(relation: Relation, position: int, over: Sequence[int]) -> list[int]:
    """Sizes of axes of an input."""
    axes = relation.inputs[position] or ()
    return [prod(relation.dims[d].size for d in axes[a].dims) for a in over]


def _cut(axes: Axes | None, over: Sequence[int], along: str, empty: str = "") -> Cut | None:
    """The letters of a tensor; None where elements of an axis are looked up.

    Args:
        axes: its axes.
        over: those that a window slides over, or that its places lie along.
        along: what to call these.
        empty: what to call axes of size 1, which belong to no dim; they have no letter where this is empty.
    """
    if axes is None or any(axis.lookup is not None for axis in axes):
        return None
    found: list[tuple[Letter, ...]] = []
    ones = 0
    for a, axis in enumerate(axes):
        if a in over:
            found.append((f"{along}{over.index(a)}",))
        elif axis.dims or not empty:
            found.append(axis.dims)
        else:
            found.append((f"{empty}{ones}",))
            ones += 1
    return tuple(found)


def _settled(relation: Relation, form: Form, constants: Set[int], activations: Set[int]) -> Form:
    """The form with what is added to it; as a step inside the node where output 0 is not the product itself."""
    whole = relation.sums if relation.zero.never else relation.zero.of(0)
    terms = whole.products
    channels, own = (*form.groups, *form.outputs), [t for t in terms if form.x in t or form.w in t]
    axes = [set(axis) for axis in form.made]
    free = {n for axis in axes for n in axis} - {*channels}
    itself = (
        len(relation.macs) == 1
        and not relation.bends
        and not whole.divisors
        and [sorted(t) for t in own] == [sorted((form.x, form.w))]
        and {n for n in free if isinstance(n, int)} == {n for n in form.rows if isinstance(n, int)}
        and all(any(n in axis for axis in axes) for n in channels)
        and not any(axis & free and axis & {*channels} for axis in axes)
    )
    slots: dict[int, bool] = {}  # inputs that are added to each output, and whether they are there
    for term in terms:
        held = {**relation.vacant, **{i: a for i, a in enumerate(relation.inputs) if a is not None}}
        if len(term) == 1 and term[0] in held and tuple(d for a in held[term[0]] for d in a.dims) == channels:
            slots[term[0]] = term[0] in constants
    given = [i for i, present in slots.items() if present]
    taking = {i for i in constants | activations if i < len(relation.inputs) and relation.inputs[i] is not None}
    if not itself or len(given) > 1 or taking - {form.x, form.w, *given}:
        return replace(form, inner=True)
    return replace(form, slot=next(iter([*given, *slots]), None))
