"""Merging of experts: one that is gone is joined with the most similar one that stays, where that keeps more.

The weights of both are averaged, each as often as it was picked on calibration inputs (M-SMoE: Li et al., ICLR 2024;
hidden units are taken as they stand: experts that began as copies of one layer have theirs in one order, and of others
an average helps nobody). The router's row is left as it is, or averaged too. Nothing of this is believed: the layer
alone runs on what the original feeds it, with the expert gone, and what it loses of the original's output is held
against what it loses without the merge. One half of the inputs says which way is best, the other whether it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.blocks import find_blocks
from graphprune.model import Model, Use
from graphprune.model.editor import Editor
from graphprune.passes.choose.routed import Layer
from graphprune.relation import IntArray, Values
from graphprune.rewrite.plan import Slice
from graphprune.rewrite.rewrite import Rewritten
from graphprune.run import calibration
from graphprune.run.calibration import Batches
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds, run, session, upto

SAMPLES = 64
"""On which merges are tried."""
WORTH = 0.98
"""What a merge leaves of the loss at most, to be taken: less is no gain that other inputs would see."""


def merge(analysis: Analysis, done: Rewritten, batches: Batches) -> tuple[Rewritten, list[dict[str, Any]]]:
    """Join removed experts with others, where these then do more of what the layer did.

    Args:
        analysis: of the original.
        done: what was cut of it, with the weights of the original.
        batches: calibration inputs.

    Returns:
        The same with other weights; and for each weight that changed what the plan says of it.

    Raises:
        InputError: ONNX Runtime cannot run the original on these inputs.
    """
    gone = {e.id: e.removed for e in done.plan.groups if e.removed}
    groups = [g for g in analysis.groups if g.id in gone and g.picked]
    if not groups:
        return done, []
    feeds, blocks = calibration.first(batches, SAMPLES), find_blocks(analysis)
    editor, entries = Editor(done.model), list[dict[str, Any]]()
    for group in groups:
        parts = _parts(analysis, group)
        layer = Layer.of(analysis, group, blocks, [part.use for part in parts])
        if layer is None or not any(part.expert for part in parts):
            continue
        found = _Merging(layer, parts, gone[group.id], picked(analysis, group, feeds), layer.inputs(feeds))
        found.run()
        if found.pairs:
            entries += _written(editor, done.model, done.plan.slices, layer.weights, found)
    return (replace(done, model=editor.finish()), entries) if entries else (done, [])


@dataclass(frozen=True)
class _Part:
    """One weight that the classes of a group have shares of.

    Attributes:
        use: where it is read.
        root: its name.
        axis: the axis along which it is shared out.
        places: its elements along the axis by class, shape ``[classes, elements]``.
        expert: whether it is of what is picked, and not of what picks.
    """

    use: Use
    root: str
    axis: int
    places: IntArray
    expert: bool

    def of(self, value: Values, number: int) -> Values:
        """What a class has."""
        return np.take(value, self.places[number], self.axis)

    def put(self, value: Values, number: int, own: Values) -> None:
        """Give a class another share."""
        value[(slice(None),) * self.axis + (self.places[number],)] = own


def _parts(analysis: Analysis, group: Group) -> list[_Part]:
    """The weights of a group of which all classes have as much; numbers that stand for positions are none."""
    model, found = analysis.model, dict[tuple[str, int], _Part]()
    deciding = _before(model, {analysis.web.dim(one.vertex)[0] for one in group.choices})
    for use, axis in analysis.weights(group):
        root, labels = analysis.root(use), group.labels[analysis.web.axis_of[use] + axis]
        counts = np.bincount(labels[labels >= 0], minlength=group.size)
        if model.array(root).dtype.kind == "f" and counts.min() == counts.max() and len(labels) == counts.sum():
            places = np.argsort(labels, kind="stable").reshape(group.size, -1)
            found.setdefault((root, axis), _Part(use, root, axis, places, use.node not in deciding))
    return list(found.values())


def _before(model: Model, nodes: set[int]) -> set[int]:
    """Nodes that lead to others, and these."""
    found, front = set(nodes), list(nodes)
    while front:
        for name in model.nodes[front.pop()].input:
            maker = model.producer.get(name)
            if maker is not None and maker not in found:
                found.add(maker)
                front.append(maker)
    return found


def picked(analysis: Analysis, group: Group, feeds: Sequence[Feeds]) -> FloatArray:
    """How often each class is picked; shape ``[classes]``. All alike where no tensor says it."""
    model, net, found = analysis.model.runnable, analysis.web, np.ones(group.size)
    for one in group.choices:
        node, d = net.dim(one.vertex)
        relation = net.relations[node]
        slots = [s for s, dim in relation.counts.items() if dim == d and s[0] == "out"] if relation is not None else []
        names = [analysis.model.nodes[node].output[place] for _, place in slots]
        if names and names[0] in model.producer:
            labels = group.labels[one.vertex]
            with session(upto(model, names[:1])) as active:
                read = {i.name for i in active.get_inputs()}
                for feed in feeds:
                    (places,) = run(active, {n: v for n, v in feed.items() if n in read}, names[:1])
                    classes = labels[np.asarray(places).reshape(-1)]
                    found += np.bincount(classes[classes >= 0], minlength=group.size)
    return found


class _Merging:
    """One layer, and what was merged in it so far.

    Attributes:
        values: its weights.
        pairs: by removed class the one that it was merged into.
        before, after: what is lost on inputs that chose nothing, without merges and with them.
    """

    def __init__(
        self, layer: Layer, parts: Sequence[_Part], gone: Sequence[int], uses: FloatArray, inputs: Sequence[Feeds]
    ) -> None:
        self.layer, self.parts, self.uses = layer, parts, uses.astype(np.float64)
        self.gone = np.zeros(layer.group.size, bool)
        self.gone[list(gone)] = True
        self.trying, self.judging = (inputs[::2], inputs[1::2]) if len(inputs) > 1 else (inputs, inputs)
        self.values = {name: np.array(value) for name, value in layer.weights.items()}
        self.pairs: dict[int, int] = {}
        self.before = self.after = self._lost(self.values, self.judging)

    def run(self) -> None:
        """Try removed classes, the most used one first."""
        alike = self._alike()
        now = self._lost(self.values, self.trying)
        for number in sorted(np.flatnonzero(self.gone).tolist(), key=lambda c: (-self.uses[c], c)):
            partner = int(np.argmax(np.where(self.gone, -np.inf, alike[number])))
            tries = [self._merged(number, partner, router) for router in (False, True)]
            losses = [self._lost(one, self.trying) for one in tries]
            best = int(np.argmin(losses))
            judged = self._lost(tries[best], self.judging) if losses[best] < WORTH * now else np.inf
            if judged < WORTH * self.after:
                self.values, now, self.after = tries[best], losses[best], judged
                self.pairs[number] = partner
                self.uses[partner] += self.uses[number]

    def _lost(self, values: Feeds, inputs: Sequence[Feeds]) -> float:
        return float(self.layer.lost(self.gone[None], inputs, values)[0])

    def _alike(self) -> FloatArray:
        """Cosines of the weights of experts; shape ``[classes, classes]``."""
        size = self.layer.group.size
        rows = []
        for part in (one for one in self.parts if one.expert):
            value = self.values[part.root].astype(np.float64)
            own = np.stack([part.of(value, number).reshape(-1) for number in range(size)])
            rows.append(own / max(float(np.linalg.norm(own)), 1e-30))
        flat = np.concatenate(rows, axis=1)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
        return flat @ flat.T

    def _merged(self, number: int, partner: int, router: bool) -> dict[str, Values]:
        share = self.uses[partner] / (self.uses[partner] + self.uses[number])
        values = dict(self.values)
        for part in self.parts:
            if part.expert or router:
                value = values[part.root] = np.array(values[part.root])
                own = share * part.of(value, partner) + (1 - share) * part.of(value, number)
                part.put(value, partner, own.astype(value.dtype))
        return values


def _written(
    editor: Editor, model: Model, slices: Sequence[Slice], original: Feeds, found: _Merging
) -> list[dict[str, Any]]:
    """Put what merges change into the pruned weights."""
    entries, done = [], set()
    pairs = {str(number): partner for number, partner in found.pairs.items()}
    for entry in slices:
        if entry.source not in original or entry.result in done:
            continue
        change = found.values[entry.source].astype(np.float64) - original[entry.source]
        if not change.any():
            continue
        done.add(entry.result)
        for axis, elements in entry.removed.items():
            if axis not in (entry.order or {}):
                change = np.delete(change, elements, int(axis))
        for axis, order in (entry.order or {}).items():
            change = np.take(change, order, int(axis))
        held = model.array(entry.result)
        if editor.replace(entry.result, (held + change * (entry.scaled or 1.0)).astype(held.dtype)):
            losses = {"before": round(found.before, 6), "after": round(found.after, 6)}
            entries.append({"node": entry.consumer, "weight": entry.result, **losses, "merged": pairs})
    return entries
