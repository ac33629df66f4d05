"""Groups that go together: those that cut one shared weight alike, where cutting it differently would add copies.

A weight that several nodes read (a shared layer, a table of positions) is cut once where all of them lose the same
elements, and becomes one copy for each way in which it is cut where they do not. For a group of which the share ``s``
goes, cut apart from all others,

    saved = s * (elements of weights that it alone cuts)
    added = (1 - s) * (elements of weights that others read too)

1. Where more is added than saved, the group is tied to those that cut its shared weights along the same axis in the
   same way, the largest weight first, until that is no longer so. Groups that share little (one zero bias for many
   layers) stay free of each other.
2. Tied groups lose the same classes. Their shared weights then count as saved, once for all of them.
3. Sets for which even so more is added than saved are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple
from weakref import WeakKeyDictionary

import networkx as nx
import numpy as np

from graphprune.analysis import Analysis, FloatArray, Group
from graphprune.model import Use


@dataclass(frozen=True)
class Together:
    """Groups of one size that lose the same classes.

    Attributes:
        members: the groups.
        whole: elements of weights that become smaller in place, whatever share of the classes goes.
        shared: elements of weights of which a cut copy comes beside what others read.
    """

    members: tuple[Group, ...]
    whole: int = 0
    shared: int = 0

    @property
    def id(self) -> str:
        """That of the first group."""
        return self.members[0].id

    @property
    def size(self) -> int:
        """Number of classes."""
        return self.members[0].size

    @cached_property
    def free(self) -> np.ndarray:
        """Classes that every group can lose."""
        return np.flatnonzero(~np.logical_or.reduce([g.pinned for g in self.members]))

    @cached_property
    def most(self) -> int:
        """How many classes may go: some cannot, and as many stay as are chosen at once, or one."""
        return min(self.size - max(g.least for g in self.members), len(self.free))

    @cached_property
    def macs(self) -> FloatArray:
        """Multiply-accumulates that each class is worth in all groups; shape ``[size]``."""
        return np.asarray(sum(g.macs for g in self.members))

    @cached_property
    def parameters(self) -> FloatArray:
        """Elements of constants that each class is worth in all groups; shape ``[size]``."""
        return np.asarray(sum(g.parameters for g in self.members))

    def pays(self, share: float) -> bool:
        """Whether copies add no more than removal of a share of the classes saves."""
        return self.shared * (1 - share) <= self.whole * share


class _Cut(NamedTuple):
    """A constant that is cut along one axis in one way."""

    root: str
    axis: int
    labels: bytes


_KNOWN: WeakKeyDictionary[Analysis, dict[tuple[float | str, ...], list[Together]]] = WeakKeyDictionary()
"""Sets that were found of an analysis: a selection asks several times for the same ones."""
_KEPT = 4


def of(group: Group | Together) -> Together:
    """A group that is tied to no other."""
    return group if isinstance(group, Together) else Together((group,))


def together(analysis: Analysis, groups: Sequence[Group], share: float) -> list[Together]:
    """Groups in the sets in which they are to be pruned, in the order of their first groups.

    Args:
        analysis: of the model.
        groups: the groups.
        share: of the classes that will go.
    """
    asked: tuple[float | str, ...] = (share, *(g.id for g in groups))
    known = _KNOWN.setdefault(analysis, {})
    if asked not in known:
        if len(known) == _KEPT:
            del known[next(iter(known))]
        known[asked] = _together(analysis, groups, share)
    return list(known[asked])


def _together(analysis: Analysis, groups: Sequence[Group], share: float) -> list[Together]:
    found = _Cuts(analysis, groups)
    ties: nx.Graph[str] = nx.Graph()
    ties.add_nodes_from(g.id for g in groups)
    for group in groups:
        ties.add_edges_from((group.id, other) for other in found.needed(group, share))
    by_id, place = {g.id: g for g in groups}, {g.id: i for i, g in enumerate(groups)}
    sets = [sorted(ids, key=place.__getitem__) for ids in nx.connected_components(ties)]
    sets.sort(key=lambda ids: place[ids[0]])
    return [found.of([by_id[id] for id in ids]) for ids in sets]


def joint(sets: Sequence[Together], values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """By id of every group the sum of what the groups tied to it have; arrays are cut to the shortest."""
    found: dict[str, FloatArray] = {}
    for one in sets:
        own = [values[g.id] for g in one.members]
        total = np.asarray(sum(v[: min(map(len, own))] for v in own))
        found.update((g.id, total) for g in one.members)
    return found


class _Cuts:
    """Which groups cut which constants, and how."""

    def __init__(self, analysis: Analysis, groups: Sequence[Group]) -> None:
        self.analysis = analysis
        self.sizes = {g.id: g.size for g in groups}
        self.uses: dict[str, set[Use]] = {}
        for tensor in analysis.web.axis_of:
            if isinstance(tensor, Use):
                self.uses.setdefault(analysis.root(tensor), set()).add(tensor)
        self.read_outside = analysis.model.read_outside
        self.cuts: dict[str, dict[_Cut, set[Use]]] = {}
        self.owners: dict[_Cut, dict[str, set[Use]]] = {}
        for group in groups:
            own = self.cuts.setdefault(group.id, {})
            for use, axis in analysis.weights(group):
                root = analysis.root(use)
                alone = len(self.uses[root]) == 1  # the labels matter only beside those of other uses
                labels = b"" if alone else group.labels[analysis.web.axis_of[use] + axis].tobytes()
                cut = _Cut(root, axis, labels)
                own.setdefault(cut, set()).add(use)
                self.owners.setdefault(cut, {}).setdefault(group.id, own[cut])

    def of(self, groups: Sequence[Group]) -> Together:
        """Groups that lose the same classes, with what that saves and adds."""
        uses: dict[_Cut, set[Use]] = {}
        for group in groups:
            for cut, own in self.cuts[group.id].items():
                uses[cut] = uses.get(cut, set()) | own
        whole = {c: None for c, own in uses.items() if self._all(c.root, own)}
        shared = [c for c in uses if c not in whole]
        return Together(tuple(groups), sum(map(self._elements, whole)), sum(map(self._elements, shared)))

    def needed(self, group: Group, share: float) -> list[str]:
        """Groups that a group must be tied to, for copies to add no more than it saves."""
        alone = self.of([group])
        if alone.pays(share):
            return []
        found: list[str] = []
        whole, shared = alone.whole, alone.shared
        cuts = [c for c, own in self.cuts[group.id].items() if not self._all(c.root, own)]
        for cut in sorted(cuts, key=self._elements, reverse=True):
            owners = self.owners[cut]
            alike = all(self.sizes[id] == group.size for id in owners)
            if not alike or not self._all(cut.root, set().union(*owners.values())):
                continue
            found += [id for id in owners if id != group.id]
            whole, shared = whole + self._elements(cut), shared - self._elements(cut)
            if Together((group,), whole, shared).pays(share):
                break
        return found

    def _all(self, root: str, uses: set[Use]) -> bool:
        """Whether nothing else reads a constant."""
        return uses == self.uses[root] and root not in self.read_outside

    def _elements(self, cut: _Cut) -> int:
        return prod(self.analysis.model.sources[cut.root].shape)
