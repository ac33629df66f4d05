"""What a plan takes from a model, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis import Analysis
from graphprune.errors import InputError
from graphprune.rewrite.plan import Plan


@dataclass
class Cut:
    """What is left of axes and dims, by vertices of the web; all of them where there is no plan.

    Attributes:
        analysis: of the model.
        removed: for each group the classes that go.
        blocks: what is replaced, as pairs of tensors: output, and what stands for it.
        missed: groups of the plan that this analysis does not have.
        plan: the plan, if there is one.
    """

    analysis: Analysis
    removed: dict[str, list[int]] = field(default_factory=dict)
    blocks: list[tuple[str, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    plan: Plan | None = None
    _gone: dict[int, int] = field(default_factory=dict)

    def left(self, vertex: int) -> int:
        """Elements of a vertex that stay."""
        return self.analysis.web.sizes[vertex] - self._gone.get(vertex, 0)

    def told(self) -> list[str]:
        """What a picture must say of a plan that it cannot show all of."""
        if not self.missed:
            return []
        names, more = ", ".join(self.missed[:3]), len(self.missed) - 3
        which = f"{names} and {more} more" if more > 0 else names
        return [f"not shown, since this model has no such groups at these sizes: {which}"]

    def size(self, vertex: int) -> str:
        """A vertex' size in words: ``64``, or ``64 → 48`` where some go."""
        whole, left = self.analysis.web.sizes[vertex], self.left(vertex)
        return str(whole) if whole == left else f"{whole} → {left}"

    def shape(self, tensor: str) -> str:
        """The shape of an activation in words, as ``1x(64→48)x7x7``; empty where it is not known."""
        net = self.analysis.web
        shape = self.analysis.witness.shape(tensor)
        if shape is None:
            return ""
        start = net.axis_of.get(tensor)
        if start is None or not shape:
            return "x".join(map(str, shape)) or "scalar"
        sizes = [self.size(start + k).replace(" ", "") for k in range(len(shape))]
        return "x".join(f"({size})" if "→" in size else size for size in sizes)


def cut(analysis: Analysis, plan: Plan | None) -> Cut:
    """What a plan takes from the model that it was made for.

    Raises:
        InputError: it was made for another model.
    """
    if plan is None:
        return Cut(analysis)
    if plan.model["sha256"] != analysis.model.sha256:
        raise InputError(
            f"{plan.where}: made for another file than {analysis.model.name}: {plan.model['file']}, sha256 "
            f"{plan.model['sha256'][:12]}...; give that one"
        )
    found = Cut(analysis, blocks=[(b.output, b.by) for b in plan.blocks], plan=plan)
    masks: dict[int, np.ndarray] = {}
    for entry in plan.groups:
        group = analysis.group(entry.id)
        if group is None:
            found.missed.append(entry.id)
            continue
        found.removed[entry.id] = entry.removed
        gone = np.zeros(group.size + 1, bool)  # the last is for elements in no class
        gone[entry.removed] = True
        for vertex, labels in group.labels.items():
            masks[vertex] = masks.get(vertex, np.zeros(len(labels), bool)) | gone[labels]
    found._gone = {vertex: int(mask.sum()) for vertex, mask in masks.items()}
    return found
