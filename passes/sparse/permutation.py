"""Orders of channels, head dims and hidden features in which an N:M pattern keeps more.

What a group owns changes places everywhere at once, so a model computes what it did (see
``graphprune.analysis.ordering``). The order is sought jointly for all weights whose sums run over the group; other
groups' orders are no matter of its own, since a pattern lies along sums alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.analysis import Analysis, Group, ordering, sparsity
from graphprune.analysis.patterns import OfEvery
from graphprune.analysis.sparsity import Layer
from graphprune.passes.sparse.channel_swaps import search
from graphprune.passes.sparse.targets import Target
from graphprune.passes.sparse.thinning import Weigh
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray
from graphprune.rewrite.removal import Removal, Selection

Floats = npt.NDArray[np.float32]
COLUMNS = 8192
"""Columns of scores that are searched; of more, so many are drawn by chance."""


@dataclass(frozen=True)
class Ordered:
    """A group with its new order.

    Attributes:
        group: its id.
        order: the classes that stay.
        before, after: what the pattern keeps of the scores of all weights that sum over the group, as a share.
    """

    group: str
    order: list[int]
    before: float
    after: float


def permute(
    analysis: Analysis,
    targets: Sequence[Target],
    selection: Selection,
    pattern: OfEvery,
    seed: int = 0,
    weigh: Weigh = lambda _, magnitudes: magnitudes,
    progress: Steps = unseen,
) -> list[Ordered]:
    """Find a better order for every group that can have one.

    Args:
        analysis: of the model.
        targets: the weights that become sparse.
        selection: classes that are removed beforehand, by group id.
        pattern: the pattern.
        seed: of the search.
        weigh: what a weight is worth; by default its magnitude.
        progress: is told after each group how many of how many are done.
    """
    removal = Removal(analysis, selection)
    by_vertex: dict[int, list[tuple[int, Layer]]] = {}
    for place, layer in enumerate(n for t in targets for n in t.layers):
        if (vertex := _vertex(analysis, layer)) is not None:
            by_vertex.setdefault(vertex, []).append((place, layer))
    jobs = []
    for group in analysis.groups:
        own = [one for vertex in group.labels for one in by_vertex.get(vertex, ())]
        layers = [layer for _, layer in sorted(own, key=lambda one: one[0])]
        if layers and not group.interface:
            jobs.append(_Job(analysis, group, layers, removal, set(selection.get(group.id, ())), pattern, weigh, seed))
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, result in enumerate(pool.map(_Job.run, jobs)):
            found += [result] if result is not None else []
            progress(number + 1, len(jobs))
    return found


def _vertex(analysis: Analysis, layer: Layer) -> int | None:
    """The axis that a product sums over."""
    return None if layer.axis is None else analysis.web.axis(layer.index, ("in", layer.position), layer.axis)


@dataclass
class _Job:
    """One group, and the products that sum over it."""

    analysis: Analysis
    group: Group
    layers: Sequence[Layer]
    removal: Removal
    removed: set[int]
    pattern: OfEvery
    weigh: Weigh
    seed: int

    def run(self) -> Ordered | None:
        """The best order found; None where no other keeps more."""
        group, net = self.group, self.analysis.web
        kinds = ordering.kinds(net, group.labels, group.size, group.pinned)
        if kinds is None or len(np.unique(kinds)) == group.size:
            return None
        stripes = self._stripes()
        if len(stripes) < 2:
            return None
        found = search(self._scores(stripes), stripes, self.pattern, kinds, self.seed)
        source = np.arange(group.size)
        source[stripes] = found
        before, after, whole = self._kept(source)
        if after <= before or whole <= 0:
            return None
        order = [int(source[c]) for c in range(group.size) if c not in self.removed]
        return Ordered(group.id, order, before / whole, after / whole)

    def _blocks(self, layer: Layer) -> tuple[IntArray, IntArray]:
        """Classes of the blocks of a pattern along a sum, ``[blocks, M]``, and which of its elements each has there.

        Blocks that hold something else, or one class twice, have no class at all (-1).
        """
        vertex, m = _vertex(self.analysis, layer), self.pattern.m
        assert vertex is not None
        labels = self.group.labels[vertex][self.removal.kept(vertex)]
        labels = labels[: len(labels) - len(labels) % m]
        order = np.argsort(labels, kind="stable")
        rank = np.empty(len(labels), np.int64)
        rank[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
        blocks, ranks = labels.reshape(-1, m), rank.reshape(-1, m)
        apart = (np.diff(np.sort(blocks, axis=1), axis=1) > 0).all(1)
        whole = (blocks >= 0).all(1) & apart & (ranks == ranks[:, :1]).all(1)
        return np.where(whole[:, None], blocks, -1), ranks

    def _stripes(self) -> IntArray:
        """Classes that stand together in a block, ``[stripes, M]``: as the widest product has them."""
        widest = max(self.layers, key=lambda n: n.outputs)
        blocks = self._blocks(widest)[0]
        found: dict[tuple[int, ...], list[int]] = {}
        for block in blocks[blocks[:, 0] >= 0].tolist():
            found.setdefault(tuple(sorted(block)), block)
        seen = [c for block in found for c in block]
        return np.array(list(found.values()) if len(seen) == len(set(seen)) else [], np.int64)

    def _scores(self, stripes: IntArray) -> Floats:
        """What each class is worth in every column of every product, or in some drawn by chance."""
        rng = np.random.default_rng(self.seed)
        there = {tuple(sorted(block)) for block in stripes.tolist()}
        share = min(1.0, COLUMNS / max(sum(n.outputs for n in self.layers), 1))
        found = [self._columns(layer, real, there, share, rng) for layer, real in self._weights()]
        every = np.concatenate(found, axis=1)
        return every if every.shape[1] <= COLUMNS else every[:, np.sort(rng.choice(every.shape[1], COLUMNS, False))]

    def _columns(
        self, layer: Layer, real: Floats, there: set[tuple[int, ...]], share: float, rng: np.random.Generator
    ) -> Floats:
        """Scores of one product, ``[classes, elements of a class * columns]``."""
        rows = real.reshape(len(real), -1)
        if share < 1:
            count = max(1, round(share * rows.shape[1]))
            rows = rows[:, np.sort(rng.choice(rows.shape[1], count, replace=False))]
        blocks, rank = self._blocks(layer)
        held = np.array([tuple(sorted(block)) in there for block in blocks.tolist()], bool)
        classes, ranks = blocks[held].reshape(-1), rank[held].reshape(-1)
        places = np.arange(blocks.size).reshape(blocks.shape)[held].reshape(-1)
        found = np.zeros((self.group.size, int(ranks.max(initial=-1)) + 1, rows.shape[1]), np.float32)
        found[classes, ranks] = rows[places]
        return found.reshape(self.group.size, -1)

    def _weights(self) -> Iterator[tuple[Layer, Floats]]:
        """Scores of every product without what is removed, the axis of the sum first."""
        net = self.analysis.web
        for layer in self.layers:
            real = self.weigh(layer, sparsity.real(self.analysis.model, layer))
            for axis in range(real.ndim):
                vertex = net.axis(layer.index, ("in", layer.position), axis)
                if vertex is not None and self.removal.touches(vertex):
                    real = np.take(real, self.removal.kept(vertex), axis)
            yield layer, np.moveaxis(real, layer.axis or 0, 0)

    def _kept(self, source: IntArray) -> tuple[float, float, float]:
        """What the pattern keeps now, and with every class where it is to go; and all there is."""
        before = after = whole = 0.0
        for layer, real in self._weights():
            vertex = _vertex(self.analysis, layer)
            assert vertex is not None
            step = ordering.moved(self.group.labels[vertex], source)
            stay = self.removal.kept(vertex)
            place = np.empty(len(step), np.int64)
            place[stay] = np.arange(len(stay))
            for turn, rows in enumerate((real, real[place[step[stay]]])):
                value = float((rows * self.pattern.kept(rows, 0)).sum(dtype=np.float64))
                before, after = (before + value, after) if turn == 0 else (before, after + value)
            whole += float(real.sum(dtype=np.float64))
        return before, after, whole
