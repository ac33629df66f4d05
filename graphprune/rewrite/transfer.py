"""A plan carried over to another file of the same network: the same weights lose the same elements.

Exporters split a decoder in two files, or give both in one (prefill, and a step with the cache of keys and values).
Their tensors have other names, and their graphs other groups; what they share is the weights. So

1. each weight of the other file is found in the first by content (see ``graphprune.rewrite.statedict``): what it loses
   there it is to lose here;
2. a class of the other file's own analysis goes where all of its elements of such weights go;
3. these classes must come to what was asked for, weight by weight: no more, and no less.

What only the other file holds (cross-attention of a first step) goes with the classes that it is coupled to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.model import Model, Use
from graphprune.relation import IntArray, Shape
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.statedict import Gone, losses

Lost = Mapping[str, Gone]
"""By name of a weight what it is to lose, by axis; weights that lose nothing are there too."""


@dataclass(frozen=True)
class Transferred:
    """What a plan comes to in another file.

    Attributes:
        selection: removed classes by group of that file.
        weights: how many of its weights lose something.
        missing: weights of the first file that lose something and are not in the other.
    """

    selection: dict[str, list[int]]
    weights: int
    missing: tuple[str, ...]


def transfer(plan: Plan, first: Model, analysis: Analysis) -> Transferred:
    """The classes of another file that hold what a plan removes from the first.

    Args:
        plan: the plan.
        first: the model that it was made for.
        analysis: of the other file; its interface may have to shrink.

    Raises:
        InputError: the plan does what cannot be told by weights; the two share none of those that are cut; or the other
            file ties elements together that the plan parts.
    """
    _check(plan, first, analysis.model)
    matrices = {n: s for n, s in analysis.model.sources.items() if len(s.shape) > 1 and s.kind != "fill"}
    known, sources = losses(first, plan, {name: analysis.model.array(name) for name in matrices})
    lost = {name: gone for name, gone in known.items() if gone is not None}
    if not any(lost.values()):
        raise InputError(
            f"{analysis.model.name}: it shares no weight with {first.name} that the plan cuts; both must be exported "
            "from the same weights, at the same precision"
        )
    uses = _uses(analysis, lost)
    selection = {g.id: found for g in analysis.groups if (found := _classes(analysis, g, uses, lost))}
    _compare(Removal(analysis, selection), uses, lost, first)
    missing = {s.source for s in plan.slices if s.removed and len(_shape(first, s.source)) > 1}
    return Transferred(selection, sum(map(bool, lost.values())), tuple(sorted(missing - sources)))


def _shape(model: Model, name: str) -> Shape:
    source = model.sources.get(name)
    return () if source is None else source.shape


def check_interface(plan: Plan, made: Plan, other: Model) -> None:
    """Raise InputError where an input or output of one name has other widths in the two pruned files: a cache, say.

    Args:
        plan: of the first file.
        made: of the other.
        other: the other file.
    """
    first, here = ({one["name"]: one for one in p.interface} for p in (plan, made))
    declared = {v.name for v in (*other.inputs, *other.graph.output)}
    for name in sorted((first.keys() | here.keys()) & declared if first else ()):
        wanted, found = (_widths(side.get(name)) for side in (first, here))
        if wanted is not None and found != wanted:
            raise InputError(
                f"{other.name}: {name!r} has the widths {found or 'of before'} here and {wanted} in "
                f"{plan.model['file']}: a cache of one does not fit the other"
            )


def _widths(entry: Mapping[str, list[int | str]] | None) -> list[int] | None:
    return None if entry is None else [d for d in entry["to"] if isinstance(d, int)]


def _check(plan: Plan, first: Model, other: Model) -> None:
    if plan.model["sha256"] != first.sha256:
        raise InputError(
            f"{first.name} is not the file that the plan was made for ({plan.model['file']}, sha256 "
            f"{plan.model['sha256'][:12]}...); give that by --original"
        )
    why = "takes out whole blocks" if plan.blocks else "moves channels (--permute)" if plan.orders else ""
    if why:
        raise InputError(
            f"{other.name}: the plan {why}, which is told by tensors of {first.name} alone; leave that out where a "
            "plan is for several files"
        )


def _uses(analysis: Analysis, lost: Lost) -> list[tuple[Use, str]]:
    """Uses of weights that are told what to lose, with the name of the weight."""
    tensors = (t for t in analysis.web.axis_of if isinstance(t, Use))
    return [(use, root) for use in tensors if (root := analysis.root(use)) in lost]


def _classes(analysis: Analysis, group: Group, uses: list[tuple[Use, str]], lost: Lost) -> list[int]:
    """Classes of a group of which every element of a known weight goes."""
    some, every = np.zeros(group.size, bool), ~group.pinned
    for use, root in uses:
        start = analysis.web.axis_of[use]
        for axis, size in enumerate(analysis.web.shapes[use]):
            labels = group.labels.get(start + axis)
            if labels is None:
                continue
            gone = _marks(lost[root].get(axis), size)
            there, left = (_present(labels[m], group.size) for m in (np.ones(size, bool), ~gone))
            some, every = some | there, every & ~left
    return [int(c) for c in np.flatnonzero(some & every)]


def _marks(elements: IntArray | None, size: int) -> np.ndarray:
    found = np.zeros(size, bool)
    if elements is not None:
        found[elements] = True
    return found


def _present(labels: IntArray, size: int) -> np.ndarray:
    found = np.zeros(size, bool)
    found[labels[labels >= 0]] = True
    return found


def _compare(removal: Removal, uses: list[tuple[Use, str]], lost: Lost, first: Model) -> None:
    """Raise InputError where a weight would lose something else than it is to lose."""
    for use, root in uses:
        wanted, found = lost[root], removal.of(use)
        axis = next((a for a in sorted(wanted.keys() | found.keys()) if not _same(wanted.get(a), found.get(a))), None)
        if axis is None:
            continue
        sizes = [len(side[axis]) if axis in side else 0 for side in (wanted, found)]
        raise InputError(
            f"{removal.analysis.model.name}: axis {axis} of weight {root!r} is to lose {sizes[0]} elements, as in "
            f"{first.name}, and can lose {sizes[1]} of them here: this file ties them to others; prune this file "
            f"first, and apply its plan to {first.name}"
        )


def _same(a: IntArray | None, b: IntArray | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
