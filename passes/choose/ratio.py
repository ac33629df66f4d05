"""Selection by a ratio: the same share of the classes of every group, the least important first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from math import gcd, lcm
from typing import TypeVar

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.called import group_names
from graphprune.analysis.reasons import Reason
from graphprune.errors import InputError
from graphprune.model import naming
from graphprune.passes.choose import ties
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ties import Together

ALIGNMENTS = (4, 2, 1)
"""What widths are rounded up to where no alignment is asked for: the first that costs at most an eighth of a group.

ONNX Runtime's blocked kernels take convolutions of whole quads of channels, and TensorRT stops fusing norms over odd
widths; multiples of 8 and 16 gained nothing further (``tests/benchmarks/bench_align.py``).
"""
_GIVEN_UP = 1 / 8
_REPEATED = 4096
"""Answers that are kept: layers that repeat ask for the same."""
Steps = tuple[int, ...]
"""Multiples of which the first is taken that costs at most an eighth of a group, else the last; 1 is any width."""
Align = int | Steps | Mapping[str, int | Steps] | None
"""What widths that remain are rounded up to a multiple of: all, or by group id; None, and groups that are not named,
stand for :data:`ALIGNMENTS`."""
COPIED = "its weights are used elsewhere as a whole, so that removal would add a copy"
"""Why a group stays whose removal would add parameters."""
LIMITED = "a limit leaves no class of it to remove"
"""Why a group stays of which nothing may go, though something would."""
UNASKED = "nothing is asked of it"
"""Why a group stays where others have ratios of their own, and there is none for the rest."""
DEARER = "what reads it would lose more than what reads others"
"""Why a group stays where losses say who gives."""
SHARED_OUT = "what a softmax shares out over has a meaning of its own"
"""Why a group stays whose removal gives all of it to the others."""
EMPTIED = "an axis would be left empty"
"""Why no more of a group goes where groups share an axis."""
STRANGE = "after the last round it is no group of the original, in whose terms the plan is told"
"""Why a group stays that only a model that was cut has."""


class Cause(Enum):
    """What keeps a prunable group whole, or what is left of it."""

    ASKED = "the user leaves it out"
    INTERFACE = "inputs or outputs of the graph would change"
    STATISTICAL = "removal would not be exact"
    COPIES = "removal would add copies of its weights"
    TOO_FEW = "the share is less than one class"
    WIDTH = "no width that is left is a multiple of what is asked for"
    EMPTY = "an axis would be left empty"
    DEAR = "others lose less"
    REPEATS = "what it repeats stays"
    STRANGE = "it is no group of the original"
    LIMIT = "a limit of the user leaves no more"
    DEPTH = "no more of one group goes at once"
    PINNED = "its other classes cannot go"
    SHARE = "its share has gone"
    MET = "what is asked for is met without more"


@dataclass(frozen=True)
class Untouched(Reason):
    """Why nothing is removed of a prunable group.

    Attributes:
        group: its id.
        cause: the same as the text, for programs.
    """

    group: str = field(kw_only=True)
    cause: Cause = field(kw_only=True)


@dataclass
class Chosen:
    """What a selection came to.

    Attributes:
        selection: removed classes by group id, groups with none left out.
        untouched: prunable groups that stay whole.
    """

    selection: dict[str, list[int]] = field(default_factory=dict)
    untouched: list[Untouched] = field(default_factory=list)


def _of(groups: Together, align: Align) -> Steps:
    """The multiples of groups that go together: such that suit all that are named."""
    if align is None and all(g.picked for g in groups.members):
        return (1,)  # how many weights there are to look up is no width
    if isinstance(align, Mapping):
        named = [_steps(align[g.id]) for g in groups.members if g.id in align]
        longest = max(map(len, named), default=0)
        return tuple(lcm(*(one[min(k, len(one) - 1)] for one in named)) for k in range(longest)) or ALIGNMENTS
    return ALIGNMENTS if align is None else _steps(align)


def _steps(align: int | Steps) -> Steps:
    return (align,) if isinstance(align, int) else align


def check_ratio(ratio: float, align: Align) -> None:
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
    called: Mapping[str, str] | None = None,
) -> tuple[list[Group], list[Untouched]]:
    """Groups that a selection may touch: exact ones, filtered by names (``graphprune.model.naming``).

    Args:
        analysis: of the model.
        include, exclude: globs on, or modules of, group ids and names of nodes and weights.
        allow_statistical: whether statistical groups will do too.
        share: how much of a group will go: groups that would then cost more in copies than they save are left out.
        called: where the model was cut before, by id of a group what it is called in the original.

    Raises:
        InputError: a glob matches nothing, which is most likely a slip.
    """
    groups: list[Group] = []
    untouched: list[Untouched] = []
    matched: set[str] = set()
    every: list[str] = []
    for group in analysis.groups:
        names = [(called or {}).get(group.id, group.id), *group_names(analysis, group)[1:]]
        every += names
        inside = [g for g in include if naming.meets(names, [g])]
        outside = [g for g in exclude if naming.meets(names, [g])]
        matched.update(inside + outside)
        if outside:
            untouched.append(Untouched(f"excluded by {outside[0]!r}", group=group.id, cause=Cause.ASKED))
        elif include and not inside:
            untouched.append(Untouched("not included", group=group.id, cause=Cause.ASKED))
        elif group.interface and not inside and not _carried(analysis, group):
            shown = ", ".join(map(repr, group.interface))
            why = f"it would change {shown}, which nothing carries from an output to an input"
            remedy = "name it by --include"
            untouched.append(Untouched(why, remedy=remedy, group=group.id, cause=Cause.INTERFACE))
        elif group.choices and not group.picked and not inside:
            untouched.append(Untouched(SHARED_OUT, remedy="name it by --include", group=group.id, cause=Cause.ASKED))
        elif group.statistical and not allow_statistical:
            why = f"statistical: {group.statistics[0].text}"
            untouched.append(Untouched(why, group=group.id, cause=Cause.STATISTICAL))
        else:
            groups.append(group)
    groups, copied = _without_copies(analysis, groups, share)
    untouched += copied
    for glob in [*include, *exclude]:
        if glob not in matched and called is None:
            hint = naming.near(glob, every, otherwise="; 'graphprune inspect' lists the groups")
            raise InputError(f"{analysis.model.name}: {glob!r} matches no group, and no node or weight of one{hint}")
    return groups, untouched


def _carried(analysis: Analysis, group: Group) -> bool:
    """Whether a group is part of a state that a caller carries round: it reaches an input and an output alike."""
    outputs = set(analysis.model.output_names)
    return any(n in outputs for n in group.interface) and any(n not in outputs for n in group.interface)


def _without_copies(analysis: Analysis, groups: list[Group], share: float) -> tuple[list[Group], list[Untouched]]:
    """Leave out groups whose removal would cost more in copies than it saves (see ``ties``)."""
    sets = ties.together(analysis, groups, share)
    left = {g.id for one in sets if not one.pays(share) for g in one.members}
    copied = [Untouched(COPIED, group=g.id, cause=Cause.COPIES) for g in groups if g.id in left]
    return [g for g in groups if g.id not in left], copied


def going(groups: Sequence[Group], ratio: float, whole: Mapping[str, int] | None) -> float:
    """The share of what groups have now that goes where a share of what they had in the original is to be gone."""
    if not whole or not groups:
        return ratio
    had, have = (sum(sizes) for sizes in zip(*((whole.get(g.id, g.size), g.size) for g in groups), strict=True))
    return max(0.0, 1 - (1 - ratio) * had / have)


def usual(ratio: float, own: Mapping[str, float] | None) -> float:
    """The share that goes of groups without a ratio of their own; where all have one, the smallest of these."""
    return ratio or min((share for share in (own or {}).values() if share), default=0.0)


def select(
    analysis: Analysis,
    groups: Sequence[Group],
    scores: Scores,
    ratio: float,
    align: Align = None,
    whole: Mapping[str, int] | None = None,
    most: Mapping[str, int] | None = None,
    own: Mapping[str, float] | None = None,
) -> Chosen:
    """Choose ``floor(ratio * classes)`` of each group, less what has gone before.

    Args:
        analysis: of the model.
        groups: the groups to prune.
        scores: importance by group id, shape ``[classes]``.
        ratio: share of each group's classes to remove, in [0, 1).
        align: widths that remain are rounded up to a multiple of this, where the group allows it.
        whole: by group id how many classes it had in the original, where some have gone before.
        most: by group id how many classes may go at most (see ``steering``).
        own: by group id a ratio of its own.

    Raises:
        InputError: the ratio or the alignment is out of range.
    """
    check_ratio(ratio, align)
    why: dict[str, tuple[str, Cause]] = {}
    numbers = {}
    sets = ties.together(analysis, groups, going(groups, usual(ratio, own), whole))
    for one in sets:
        size = (whole or {}).get(one.id, one.size)
        share, cap = least(one, own, ratio), least(one, most, one.most)
        wanted = falls(one, share, whole)
        asked = min(wanted, cap, one.most)
        numbers[one.id] = count(analysis, one, asked, align)
        if not share:
            why[one.id] = UNASKED, Cause.ASKED
        elif not wanted:
            why[one.id] = f"{share:g} of {size} classes is less than one", Cause.TOO_FEW
        elif not asked:
            why[one.id] = LIMITED, Cause.LIMIT
        elif not numbers[one.id]:
            text = f"no width from {one.size - asked} up is a multiple of {_of(one, align)[-1]} and below {one.size}"
            why[one.id] = text, Cause.WIDTH
        elif not one.pays(numbers[one.id] / one.size):
            why[one.id], numbers[one.id] = (COPIED, Cause.COPIES), 0
    chosen = lowest(sets, ties.joint(sets, scores), numbers)
    for one in sets if ratio > 0 or own else ():
        if one.id not in chosen.selection:
            text, cause = why.get(one.id, (EMPTIED, Cause.EMPTY))
            chosen.untouched += [Untouched(text, group=g.id, cause=cause) for g in one.members]
    return chosen


def falls(groups: Together, share: float, whole: Mapping[str, int] | None) -> int:
    """How many classes a share comes to, less what has gone before, before widths are rounded."""
    size = (whole or {}).get(groups.id, groups.size)
    return max(0, min(int(share * size + 1e-9) - (size - groups.size), groups.most))


Number = TypeVar("Number", int, float)


def least(groups: Together, values: Mapping[str, Number] | None, default: Number) -> Number:
    """The smallest of what is said of groups that go together."""
    return min((values[g.id] for g in groups.members if g.id in values), default=default) if values else default


def lowest(sets: Iterable[Together], scores: Scores, numbers: Mapping[str, int]) -> Chosen:
    """The least important classes of groups, so many of each, as long as they leave something of every axis.

    Args:
        sets: the groups.
        scores: importance by group id, shape ``[classes]``; the same for groups that go together.
        numbers: how many to take, by id.
    """
    chosen = Chosen()
    alive: dict[int, np.ndarray] = {}
    for one in sets:
        order = one.free[np.argsort(scores[one.id][one.free], kind="stable")]
        removed = _within(one, order, numbers.get(one.id, 0), alive)
        if len(removed):
            classes = sorted(int(c) for c in removed)
            chosen.selection.update((g.id, list(classes)) for g in one.members)
    return chosen


def _within(groups: Together, order: np.ndarray, count: int, alive: dict[int, np.ndarray]) -> np.ndarray:
    """The first ``count`` classes of an order that leave something of every axis.

    Args:
        groups: groups that go together.
        order: candidate classes, the least important first.
        count: how many to take.
        alive: for each vertex, the elements that earlier groups have left; updated.
    """
    while count > 0:
        gone = np.zeros(groups.size + 1, bool)
        gone[order[:count]] = True
        left: dict[int, np.ndarray] = {}
        masks: dict[int, np.ndarray] = {}  # most vertices of a group share one array of labels
        for vertex, labels in (item for g in groups.members for item in g.labels.items()):
            mask = masks.get(id(labels))
            if mask is None:
                mask = masks[id(labels)] = ~gone[labels]
            before = left.get(vertex, alive.get(vertex))
            left[vertex] = mask if before is None or before is mask else before & mask
        if all(mask.any() for mask in {id(mask): mask for mask in left.values()}.values()):
            alive.update(left)
            return order[:count]
        count -= 1
    return order[:0]


def counts(analysis: Analysis, group: Group | Together, align: Align) -> list[int]:
    """All numbers of classes whose removal leaves aligned widths, ascending from 0."""
    groups = ties.of(group)
    return list(_counts(_widths(analysis, groups), group.size, _of(groups, align)))


@lru_cache(_REPEATED)
def _counts(widths: frozenset[int], size: int, steps: Steps) -> tuple[int, ...]:
    found: tuple[int, ...] = (0,)
    for one in steps:
        for unit in _units(widths, size, one):
            found = (0, *range(size - (size - 1) // unit * unit, size, unit))
            if len(found) > 1:
                break
        if max(np.diff([*found, size])) <= max(_GIVEN_UP * size, 1):
            break
    return found


def count(analysis: Analysis, groups: Together, asked: int, align: Align) -> int:
    """How many classes to remove, at most ``asked``, for widths to be aligned."""
    return _count(_widths(analysis, groups), groups.size, asked, _of(groups, align))


@lru_cache(_REPEATED)
def _count(widths: frozenset[int], size: int, asked: int, steps: Steps) -> int:
    *tries, last = (_aligned(widths, size, asked, one) for one in steps)
    return next((number for number in tries if number and asked - number <= _GIVEN_UP * size), last)


def _aligned(widths: frozenset[int], size: int, count: int, align: int) -> int:
    """The largest number to remove, at most ``count``, that leaves every width a multiple of ``align``."""
    tries = (count - (count - size) % unit for unit in _units(widths, size, align))
    return next((number for number in tries if number > 0), 0)


def _widths(analysis: Analysis, groups: Together) -> frozenset[int]:
    if len(groups.members) == 1:
        return analysis.widths(groups.members[0])
    return frozenset().union(*(analysis.widths(g) for g in groups.members))


def _units(widths: frozenset[int], size: int, align: int) -> list[int]:
    """What the number of classes that stay must be a multiple of, for every width to be a multiple of ``align``.

    Widths are the dims that products sum over or produce. Where no number does, only widths that were multiples
    before must remain so; a group whose widths are all odd is left alone.
    """
    wanted = (widths, {w for w in widths if (w * size) % align == 0})
    return [lcm(*(align // gcd(w, align) for w in own)) for own in wanted if own]


def width(analysis: Analysis, group: Group) -> int:
    """How many elements of the narrowest dim that a product sums over or produces one class is worth."""
    return min(analysis.widths(group))
