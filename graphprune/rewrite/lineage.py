"""Which classes of a model that was cut are which of the model that it was cut from.

A model may be cut in rounds, and is analysed anew before each. Its plan speaks of the first model alone, so what is
chosen of a later one is told in terms of the first. Tensors keep their names when a model is cut, and the removal says
which elements of their axes stayed: a group of the later model and one of the first are the same where they tell the
same elements apart on every axis that both models have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.relation import IntArray
from graphprune.rewrite.removal import Removal


@dataclass(frozen=True)
class Ancestor:
    """What a group of a later model was in the first.

    Attributes:
        group: of the first model.
        classes: of each class of the later group, which class of the first it is.
    """

    group: Group
    classes: IntArray

    def told(self, classes: Iterable[int]) -> list[int]:
        """Classes of the later group as those of the first."""
        return [int(self.classes[c]) for c in classes]

    def here(self, classes: Iterable[int]) -> list[int]:
        """Classes of the first group as those of the later one, without those that it has no more."""
        places = {int(c): k for k, c in enumerate(self.classes)}
        return [places[c] for c in classes if c in places]


def ancestors(removal: Removal, later: Analysis) -> dict[str, Ancestor]:
    """By id of a group of a later model what it was; groups that were none are left out.

    Args:
        removal: all that was removed from the first model so far.
        later: of the model that this came to.
    """
    back = dict(_axes(removal, later))
    forth = {b: v for v, b in back.items()}
    holders: dict[int, list[Group]] = {}
    for group in removal.analysis.groups:
        for vertex in group.labels:
            holders.setdefault(vertex, []).append(group)
    found: dict[str, Ancestor] = {}
    for group in later.groups:
        own = next((v for v in group.labels if v in back), None)
        candidates = [] if own is None else holders.get(back[own], [])
        for one in sorted(candidates, key=lambda g: g.id != group.id):
            classes = _same(group, one, removal, back, forth)
            if classes is not None:
                found[group.id] = Ancestor(one, classes)
                break
    return found


def disagreement(removal: Removal, later: Analysis, own: Removal, whole: Removal) -> str | None:
    """Where two cuts, one after the other, leave other elements than one cut that is to be both.

    Args:
        removal: the first cut.
        later: of the model that it came to.
        own: the second cut, of that model.
        whole: of the first model.

    Returns:
        The axis, in words; None where they agree.
    """
    for vertex, before in _axes(removal, later):
        if not np.array_equal(removal.kept(before)[own.kept(vertex)], whole.kept(before)):
            return whole.analysis.web.label(before, whole.analysis.model)
    return None


def _axes(removal: Removal, later: Analysis) -> Iterator[tuple[int, int]]:
    """Axes of the later model with those of the first that they are."""
    first = removal.analysis
    home = {name: k for k, node in enumerate(first.model.nodes) for name in node.output[:1]}
    for tensor, start in later.web.axis_of.items():
        known: Tensor | None = tensor
        if isinstance(tensor, Use):
            node = later.model.nodes[tensor.node]
            index = home.get(node.output[0]) if node.output else None
            alike = index is not None and _operator(first, index) == _operator(later, tensor.node)
            known = Use(index, tensor.input) if alike and index is not None else None
        if known is None or known not in first.web.axis_of:
            continue
        before = first.web.axis_of[known]
        shape = later.web.shapes[tensor]
        if len(first.web.shapes[known]) == len(shape):
            yield from ((start + a, before + a) for a, n in enumerate(shape) if removal.size(before + a) == n)


def _operator(analysis: Analysis, index: int) -> tuple[str, str]:
    node = analysis.model.nodes[index]
    return node.domain, node.op_type


def _same(
    group: Group, one: Group, removal: Removal, back: Mapping[int, int], forth: Mapping[int, int]
) -> IntArray | None:
    """Which classes of a group of the first model those of a later one are; None where it is not the same group."""
    classes = np.full(group.size, -1)
    for vertex, labels in group.labels.items():
        if vertex not in back:
            continue
        if back[vertex] not in one.labels:
            return None
        before = one.labels[back[vertex]][removal.kept(back[vertex])]
        held = labels >= 0
        if (held != (before >= 0)).any():
            return None
        classes[labels[held]] = before[held]
        if (classes[labels[held]] != before[held]).any():
            return None
    for vertex, labels in one.labels.items():
        if vertex in forth and forth[vertex] not in group.labels and (labels[removal.kept(vertex)] >= 0).any():
            return None
    distinct = np.unique(classes)
    return classes if len(distinct) == group.size and (distinct >= 0).all() else None
