"""What a plan asks of the training code beyond the widths of tensors: single numbers, and what groups there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from graphprune.analysis import Analysis
from graphprune.model import Model
from graphprune.rewrite.plan import Plan

HEADS = "head", "head_dim"
"""Kinds of groups that no axis of a tensor has for itself: only fields and attributes count them."""


@dataclass(frozen=True)
class Number:
    """A single number that a correction changed: the epsilon of a norm.

    Attributes:
        before, after: what it was and is.
        consumers: first outputs of the nodes that read it.
    """

    before: float
    after: float
    consumers: tuple[str, ...]

    def __str__(self) -> str:
        more = f" (and {len(self.consumers) - 1} more)" if len(self.consumers) > 1 else ""
        made = f"the node that makes {self.consumers[0]!r}{more}"
        return f"{self.before:.6g} that {made} reads is {self.after:.6g} now"


@dataclass(frozen=True)
class Count:
    """How many classes of a group there were and are, and whose tensors have them.

    Attributes:
        kind: of the group (``head``, ``head_dim``, ``channel``, ...).
        before, after: number of classes.
        tensors: names in the state dict.
    """

    kind: str
    before: int
    after: int
    tensors: tuple[str, ...]


def numbers(model: Model, plan: Plan) -> list[Number]:
    """What single numbers have become, which are settings of the training code."""
    nodes: dict[tuple[float, float], list[str]] = {}
    for entry in plan.slices:
        source = model.sources.get(entry.source)
        if entry.scaled is not None and source is not None and prod(source.shape) == 1:
            before = float(model.array(entry.source).reshape(-1)[0])
            nodes.setdefault((before, before * entry.scaled), []).append(entry.consumer)
    return [Number(before, after, tuple(own)) for (before, after), own in nodes.items()]


def counts(analysis: Analysis, plan: Plan, sources: Mapping[str, Iterable[str]]) -> list[Count]:
    """The groups of a plan, and those of heads that stay, with the tensors of a state dict that they reach.

    Args:
        analysis: of the original model.
        plan: the plan.
        sources: by name of a tensor the constants of the model that it was found in.
    """
    removed = {entry.id: len(entry.removed) for entry in plan.groups}
    found = []
    for group in (*analysis.groups, *analysis.fixed):
        gone = removed.get(group.id, 0)
        if gone or group.kind in HEADS:
            roots = {analysis.root(use) for use, _ in analysis.weights(group)}
            names = tuple(name for name, own in sources.items() if not roots.isdisjoint(own))
            found.append(Count(group.kind, group.size, group.size - gone, names))
    return found
