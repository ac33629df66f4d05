"""At which widths each piece is timed, and what its nodes are there.

A piece is timed on a full grid: one axis for each set of groups that a tensor axis ties together, since what a product
costs depends on the width of the axis and not on which groups it is joined from. Points of different pieces that ask
nothing contradictory of a group are read off one removal (first fit), so that a model is refitted about as often as
one piece has points.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.errors import InputError
from graphprune.rewrite.operands import Refit
from graphprune.rewrite.removal import Removal, Selection
from graphprune.rewrite.rewrite import resized
from graphprune.verdict.latency.pieces import Piece
from graphprune.verdict.latency.time_layers import Told, untold

Levels = Sequence[float]
"""Shares of a full width, in (0, 1], descending from 1."""

LEVELS: Mapping[int, Levels] = {
    1: (1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125),
    2: (1, 0.75, 0.5, 0.25),
    3: (1, 0.5, 0.25),
}
"""By number of axes. Products of two widths grow as both do, which interpolation in both follows exactly."""
_UNIT = 8
"""Widths are rounded to multiples of this where a group has at least twice as many: what kernels are made for."""


@dataclass(frozen=True)
class Knob:
    """Groups that are made narrower together, and the axis that says how wide they are.

    Attributes:
        vertex: the axis.
        counts: for each level how many classes of each group stay, by group id.
        widths: elements of the axis at each level, ascending.
    """

    vertex: int
    counts: tuple[Mapping[str, int], ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """A piece at one point of its grid.

    Attributes:
        piece: place among the pieces.
        place: which level of each knob.
        counts: how many classes stay, by id of a group; of groups that are not named all do.
    """

    piece: int
    place: tuple[int, ...]
    counts: Mapping[str, int]


def knobs(analysis: Analysis, piece: Piece, levels: Levels | None, memo: dict[object, Knob | None]) -> list[Knob]:
    """The axes of a piece's grid; none where no group touches it.

    Args:
        analysis: of the model.
        piece: the piece.
        levels: the same for all; None stands for :data:`LEVELS`.
        memo: knobs that are known.
    """
    axes = _axes(analysis, piece)
    parts = _merged(axes, max(LEVELS))
    chosen = levels or LEVELS[max(len(parts), 1)]
    found = []
    for vertex, groups in parts:
        key = (vertex, groups, tuple(chosen))
        if key not in memo:
            memo[key] = _knob(analysis, vertex, [analysis.groups[g] for g in sorted(groups)], chosen)
        knob = memo[key]
        if knob is not None:
            found.append(knob)
    return found


def points(number: int, found: Sequence[Knob]) -> Iterator[Point]:
    """All points of the grid of a piece, in the order of a C array."""
    for place in itertools.product(*(range(len(k.widths)) for k in found)):
        counts = {id: n for k, level in zip(found, place, strict=True) for id, n in k.counts[level].items()}
        yield Point(number, place, counts)


def visit(
    analysis: Analysis,
    wanted: Sequence[Point],
    see: Callable[[Point, Refit | str], None],
    told: Told = untold,
) -> None:
    """Show each point together with the nodes as they are there, or why they cannot be had.

    Args:
        analysis: of the model.
        wanted: the points.
        see: is shown each once.
        told: is told how many of how many have been.
    """
    done = 0
    for batch in _batches(wanted):
        given = _resized(analysis, {id: n for p in batch for id, n in p.counts.items()})
        for point in batch:
            alone = given if len(batch) == 1 or isinstance(given, Refit) else _resized(analysis, point.counts)
            see(point, alone)
        done += len(batch)
        told(done, len(wanted))


def _resized(analysis: Analysis, counts: Mapping[str, int]) -> Refit | str:
    try:
        return resized(analysis, _selection(analysis, counts))
    except InputError as error:
        return str(error)


def _batches(wanted: Sequence[Point]) -> list[list[Point]]:
    """Points that can be had at once: no two ask for different widths of a group."""
    batches: list[tuple[dict[str, int], list[Point]]] = []
    for point in wanted:
        for counts, members in batches:
            if all(counts.get(id, n) == n for id, n in point.counts.items()):
                counts.update(point.counts)
                members.append(point)
                break
        else:
            batches.append((dict(point.counts), [point]))
    return [members for _, members in batches]


def _selection(analysis: Analysis, counts: Mapping[str, int]) -> Selection:
    """Removed classes, spread over each group so that the parts of a joined axis shrink alike."""
    found = {}
    for id, stay in counts.items():
        group = analysis.group(id)
        assert group is not None
        free, gone = np.flatnonzero(~group.pinned), group.size - stay
        if gone:
            found[id] = free[(np.arange(gone) * len(free) + len(free) - 1) // gone].tolist()
    return found


def _axes(analysis: Analysis, piece: Piece) -> dict[int, frozenset[int]]:
    """For each axis of an activation of a piece the groups that have elements on it."""
    net, nodes = analysis.web, analysis.model.nodes
    names = dict.fromkeys(name for n in piece.nodes for name in [*nodes[n].input, *nodes[n].output])
    found: dict[int, frozenset[int]] = {}
    for name in names:
        start = net.axis_of.get(name)
        for vertex in range(start, start + len(net.shapes[name])) if start is not None else ():
            held = frozenset(g for g in piece.groups if vertex in analysis.groups[g].labels)
            if held:
                found[vertex] = held
    return found


def _merged(axes: Mapping[int, frozenset[int]], most: int) -> list[tuple[int, frozenset[int]]]:
    """Groups that share an axis, together, each set with the axis that holds most of them; at most so many sets."""
    sets: list[frozenset[int]] = []
    for held in axes.values():
        apart = [s for s in sets if not s & held]
        sets = [*apart, held.union(*(s for s in sets if s & held))]
    sets.sort(key=min)
    while len(sets) > most:
        last = sets.pop()
        sets[-1] |= last
    return [(max((v for v in axes if axes[v] <= s), key=lambda v: (len(axes[v]), -v)), s) for s in sets]


def _knob(analysis: Analysis, vertex: int, groups: Sequence[Group], levels: Levels) -> Knob | None:
    """The levels of some groups; None where the axis has one width only."""
    depth = np.zeros(analysis.web.sizes[vertex], int)
    for group in groups:
        if vertex in group.labels:
            depth += group.labels[vertex] >= 0
    power = 1 / max(int(depth.max()), 1)  # heads times their sizes: each gives its root
    found: dict[int, dict[str, int]] = {}
    for level in levels:
        counts = {g.id: _stay(g, vertex, level**power) for g in groups}
        try:
            width = Removal(analysis, _selection(analysis, counts)).size(vertex)
        except InputError:  # an axis would be left empty
            continue
        found.setdefault(width, counts)
    widths = tuple(sorted(found))
    return Knob(vertex, tuple(found[w] for w in widths), widths) if len(widths) > 1 else None


def _stay(group: Group, vertex: int, share: float) -> int:
    """How many classes stay: a share of them, so that the axis is a multiple of :data:`_UNIT` wide where it can be."""
    labels = group.labels.get(vertex)
    per = max(len(labels) // group.size, 1) if labels is not None else 1
    unit = _UNIT // gcd(per, _UNIT)
    stay = round(share * group.size)
    if group.size >= 2 * unit and share < 1:
        stay = max(round(share * group.size / unit), 1) * unit
    return min(max(stay, int(group.pinned.sum()), 1), group.size)
