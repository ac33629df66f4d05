"""Selection by a ratio: the same share of the classes of every group, the least important first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import gcd, lcm, prod

import numpy as np
from graphprune.passes.magnitude import Scores

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.model import Use, node_name

ALIGNMENTS = (4, 2, 1)
"""What widths are rounded up to where no alignment is asked for: the first that costs at most an eighth of a group.

ONNX Runtime's blocked kernels take convolutions of whole quads of channels, and TensorRT stops fusing norms over odd
widths; multiples of 8 and 16 gained nothing further (``tests/benchmarks/bench_align.py``).
"""
_GIVEN_UP = 1 / 8
Align = int | Mapping[str, int] | None
"""What widths that remain are rounded up to a multiple of: all, or by group id; None, and groups that are not named,
stand for :data:`ALIGNMENTS`."""


@dataclass(frozen=True, slots=True)
class Untouched:
    """A prunable group of which nothing is removed, and why."""

    group: str
    reason: str


@dataclass
class Chosen:
    """What a selection came to.

    Attributes:
        selection: removed classes by group id, groups with none left out.
        untouched: prunable groups that stay whole.
    """

    selection: dict[str, list[int]] = field(default_factory=dict)
    untouched: list[Untouched] = field(default_factory=list)


def _of(group: Group, align: Align) -> int | None:
    """The alignment of one group."""
    return align.get(group.id) if isinstance(align, Mapping) else align


def check(ratio: float, align: Align) -> None:
    """Raise InputError where the ratio or the alignment is out of range."""
    if not 0 <= ratio < 1:
        raise InputError(f"--ratio {ratio:g} is out of range: it is the share to remove, at least 0 and below 1")
    if isinstance(align, int) and align < 1:
        raise InputError(f"--align {align} is out of range: it must be at least 1")


def candidates(
    analysis: Analysis,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    share: float = 0.5,
) -> tuple[list[Group], list[Untouched]]:
    """Groups that a selection may touch: exact ones, filtered by globs on group ids and node names.

    Args:
        analysis: of the model.
        include, exclude: globs.
        allow_statistical: whether statistical groups will do too.
        share: how much of a group will go: groups that would then cost more in copies than they save are left out.

    Raises:
        InputError: a glob matches nothing, which is most likely a slip.
    """
    groups: list[Group] = []
    untouched: list[Untouched] = []
    matched: set[str] = set()
    for group in analysis.groups:
        names = [group.id, *_nodes(analysis, group)]
        inside = [g for g in include if any(fnmatchcase(n, g) for n in names)]
        outside = [g for g in exclude if any(fnmatchcase(n, g) for n in names)]
        matched.update(inside + outside)
        if outside:
            untouched.append(Untouched(group.id, f"excluded by {outside[0]!r}"))
        elif include and not inside:
            untouched.append(Untouched(group.id, "not included"))
        elif group.interface and not inside and not _carried(analysis, group):
            shown = ", ".join(map(repr, group.interface))
            why = f"it would change {shown}, which nothing carries from an output to an input; name it by --include"
            untouched.append(Untouched(group.id, why))
        elif group.statistical and not allow_statistical:
            untouched.append(Untouched(group.id, f"statistical: {group.statistics[0].text}"))
        else:
            groups.append(group)
    groups, copied = _without_copies(analysis, groups, share)
    untouched += copied
    for glob in [*include, *exclude]:
        if glob not in matched:
            raise InputError(f"{analysis.model.name}: {glob!r} matches no group and no node of one")
    return groups, untouched


def _carried(analysis: Analysis, group: Group) -> bool:
    """Whether a group is part of a state that a caller carries round: it reaches an input and an output alike."""
    outputs = set(analysis.model.output_names)
    return any(n in outputs for n in group.interface) and any(n not in outputs for n in group.interface)


def _without_copies(analysis: Analysis, groups: list[Group], share: float) -> tuple[list[Group], list[Untouched]]:
    """Leave out groups whose removal would cost more in copies than it saves.

    A weight that is used in several places (a shared layer, a tied embedding) is cut once where all uses lose the same
    elements; where one of them cannot, the cut one becomes a copy beside the whole.
    """
    net = analysis.web
    uses: dict[str, list[Use]] = {}
    for tensor in net.axis_of:
        if isinstance(tensor, Use):
            uses.setdefault(analysis.root(tensor), []).append(tensor)
    owned: dict[tuple[Use, int], set[bytes]] = {}
    for group in groups:
        for use, axis in analysis.weights(group):
            own = group.labels[net.axis_of[use] + axis]
            owned.setdefault((use, axis), set()).add(own.tobytes())
    kept, left = [], []
    for group in groups:
        saved = copied = 0.0
        for root, axis, labels in {
            (analysis.root(use), axis, group.labels[net.axis_of[use] + axis].tobytes())
            for use, axis in analysis.weights(group)
        }:
            alike = all(labels in owned.get((use, axis), ()) for use in uses[root])
            elements = prod(net.shapes[uses[root][0]])
            saved, copied = saved + elements * alike, copied + elements * (not alike)
        if copied * (1 - share) > saved * share:
            why = "its weights are used elsewhere as a whole, so that removal would add a copy"
            left.append(Untouched(group.id, why))
        else:
            kept.append(group)
    return kept, left


def select(analysis: Analysis, groups: Sequence[Group], scores: Scores, ratio: float, align: Align = None) -> Chosen:
    """Choose ``floor(ratio * classes)`` of each group.

    Args:
        analysis: of the model.
        groups: the groups to prune.
        scores: importance by group id, shape ``[classes]``.
        ratio: share of each group's classes to remove, in [0, 1).
        align: widths that remain are rounded up to a multiple of this, where the group allows it.

    Raises:
        InputError: the ratio or the alignment is out of range.
    """
    check(ratio, align)
    why: dict[str, str] = {}
    numbers = {}
    for group in groups:
        asked = min(int(ratio * group.size + 1e-9), int((~group.pinned).sum()), group.size - 1)
        own = _of(group, align)
        numbers[group.id] = _count(analysis, group, asked, own)
        if not asked:
            why[group.id] = f"{ratio:g} of {group.size} classes is less than one"
        elif not numbers[group.id]:
            why[group.id] = f"no width from {group.size - asked} up is a multiple of {own} and below {group.size}"
    chosen = lowest(groups, scores, numbers)
    for group in groups if ratio > 0 else ():
        if group.id not in chosen.selection:
            reason = why.get(group.id, "an axis would be left empty")
            chosen.untouched.append(Untouched(group.id, reason))
    return chosen


def lowest(groups: Iterable[Group], scores: Scores, numbers: Mapping[str, int]) -> Chosen:
    """The least important classes of groups, so many of each, as long as they leave something of every axis.

    Args:
        groups: the groups.
        scores: importance by group id, shape ``[classes]``.
        numbers: how many to take, by group id.
    """
    chosen = Chosen()
    alive: dict[int, np.ndarray] = {}
    for group in groups:
        free = np.flatnonzero(~group.pinned)
        order = free[np.argsort(scores[group.id][free], kind="stable")]
        removed = _within(group, order, numbers.get(group.id, 0), alive)
        if len(removed):
            chosen.selection[group.id] = sorted(int(c) for c in removed)
    return chosen


def _within(group: Group, order: np.ndarray, count: int, alive: dict[int, np.ndarray]) -> np.ndarray:
    """The first ``count`` classes of an order that leave something of every axis.

    Args:
        group: the group.
        order: candidate classes, the least important first.
        count: how many to take.
        alive: for each vertex, the elements that earlier groups have left; updated.
    """
    while count > 0:
        gone = np.zeros(group.size + 1, bool)
        gone[order[:count]] = True
        left = {v: alive.get(v, np.ones(len(a), bool)) & ~gone[a] for v, a in group.labels.items()}
        if all(mask.any() for mask in left.values()):
            alive.update(left)
            return order[:count]
        count -= 1
    return order[:0]


def counts(analysis: Analysis, group: Group, align: Align) -> list[int]:
    """All numbers of classes whose removal leaves aligned widths, ascending from 0."""
    found: list[int] = [0]
    align = _of(group, align)
    for one in ALIGNMENTS if align is None else (align,):
        for unit in _units(analysis, group, one):
            found = [0, *(n for n in range(1, group.size) if (group.size - n) % unit == 0)]
            if len(found) > 1:
                break
        if align is None and max(np.diff([*found, group.size])) <= max(_GIVEN_UP * group.size, 1):
            break
    return found


def _count(analysis: Analysis, group: Group, asked: int, align: int | None) -> int:
    """How many classes to remove, at most ``asked``, for widths to be aligned."""
    if align is not None:
        return _aligned(analysis, group, asked, align)
    tries = (_aligned(analysis, group, asked, a) for a in ALIGNMENTS)
    return next((count for count in tries if count and asked - count <= _GIVEN_UP * group.size), asked)


def _aligned(analysis: Analysis, group: Group, count: int, align: int) -> int:
    """The largest number to remove, at most ``count``, that leaves every width a multiple of ``align``."""
    tries = (count - (count - group.size) % unit for unit in _units(analysis, group, align))
    return next((number for number in tries if number > 0), 0)


def _units(analysis: Analysis, group: Group, align: int) -> list[int]:
    """What the number of classes that stay must be a multiple of, for every width to be a multiple of ``align``.

    Widths are the dims that products sum over or produce. Where no number does, only widths that were multiples
    before must remain so; a group whose widths are all odd is left alone.
    """
    widths = _widths(analysis, group)
    wanted = (widths, {w for w in widths if (w * group.size) % align == 0})
    return [lcm(*(align // gcd(w, align) for w in own)) for own in wanted if own]


def _widths(analysis: Analysis, group: Group) -> set[int]:
    """How many elements one class has in each dim that a product sums over or produces."""
    net = analysis.web
    found: set[int] = set()
    for vertex, labels in group.labels.items():
        if vertex < net.axes:
            continue
        node, dim = net.dim(vertex)
        relation = net.relations[node]
        assert relation is not None
        shared = all(
            any(dim in a.dims for a in axes) for axes in (*relation.inputs, *relation.outputs) if axes is not None
        )
        if relation.macs and not shared and (labels >= 0).all() and len(labels) % group.size == 0:
            found.add(len(labels) // group.size)
    return found or {1}


def _nodes(analysis: Analysis, group: Group) -> list[str]:
    return list(dict.fromkeys(node_name(analysis.model, use.node) for use, _ in analysis.weights(group)))
