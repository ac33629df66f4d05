"""Scores of a pruned model: where on tensors and weights their heads, rows and summed elements lie, at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphprune.analysis.forms import Cut, Letter, solve
from graphprune.analysis.products import Product
from graphprune.analysis.scores import Scores, find_scores
from graphprune.passes.fit.mixing import Family
from graphprune.relation import IntArray, Values
from graphprune.rewrite.removal import Removal


@dataclass(frozen=True, eq=False)
class Laid:
    """A score, as the original and the pruned model have it.

    Attributes:
        scores: in the original.
        sizes: of the letters of heads, and of the summed one, in the original.
        kept: of each of these letters the elements that stay.
        table: the outputs of the pruned model's product, ``[heads, elements of a head]``.
        family: mixtures of a head that may pass between product and score.
    """

    scores: Scores
    sizes: Mapping[Letter, int]
    kept: Mapping[Letter, IntArray]
    table: IntArray
    family: Family

    @property
    def heads(self) -> int:
        """Number of heads that stay."""
        return len(self.table)

    def arranged(self, value: Values, which: int, whole: bool) -> Values | None:
        """An operand as ``[heads, instances, rows, d]``; one for all heads has one there.

        Args:
            value: the operand.
            which: the first or the second.
            whole: whether it is the original's, of which the heads that stay are taken; all d are.
        """
        return self._cut(value, self.scores.cuts[which], (self._rows(which), (self.scores.summed,)), whole)

    def places(self, operand: Values, product: Product) -> IntArray | None:
        """For each row of what is mixed the row of the product that makes it, ``[instances, rows]``.

        None where several rows come from one, or one from several.
        """
        scores = self.scores
        cut, known = scores.cuts[scores.mixed], {n: len(kept) for n, kept in self.kept.items()}
        sizes = solve(cut, operand.shape, known)
        parts = (self._instances(), self._rows(scores.mixed))
        own = [n for part in parts for n in part]
        if scores.rows is None or sizes is None or {n for n in scores.rows if n is not None} != {*own}:
            return None
        grid = np.indices([sizes[n] for n in own])
        found = np.zeros([sizes[n] for n in own], np.intp)
        for n in scores.rows:
            found = found if n is None else found * sizes[n] + grid[own.index(n)]
        return found.reshape([prod(sizes[n] for n in part) for part in parts])

    def shares(self, value: Values) -> Values | None:
        """What the original made of its scores, ``[heads, instances, rows of what is mixed, rows of the other]``."""
        assert self.scores.shares is not None
        mixed = self.scores.mixed
        return self._cut(value, self.scores.shares[1], (self._rows(mixed), self._rows(1 - mixed)), True)

    def _rows(self, which: int) -> tuple[Letter, ...]:
        own, other = (
            [n for axis in cut for n in axis] for cut in (self.scores.cuts[which], self.scores.cuts[1 - which])
        )
        return tuple(n for n in own if n not in other and n not in self.scores.heads)

    def _instances(self) -> tuple[Letter, ...]:
        own, other = ([n for axis in cut for n in axis] for cut in self.scores.cuts)
        return tuple(n for n in own if n in other and n not in self.scores.heads and n != self.scores.summed)

    def _cut(self, value: Values, cut: Cut, last: Sequence[tuple[Letter, ...]], whole: bool) -> Values | None:
        known = {n: size if whole else len(self.kept[n]) for n, size in self.sizes.items()}
        if value.ndim != len(cut) or (sizes := solve(cut, value.shape, known)) is None:
            return None
        letters = [n for axis in cut for n in axis]
        parts = [self.scores.heads, self._instances(), *last]
        apart = value.reshape([sizes[n] for n in letters])
        there = [n for part in parts for n in part if n in letters]
        if len(there) != len(letters):
            return None
        found = apart.transpose([letters.index(n) for n in there])
        for place, n in enumerate(parts[0]):
            if n not in letters:
                found = np.expand_dims(found, place)
            elif whole:
                found = found.take(self.kept[n], place)
        heads = [len(self.kept[n]) if n in self.kept else 1 for n in parts[0]]
        found = np.broadcast_to(found, (*heads, *found.shape[len(heads) :]))
        return found.reshape(prod(heads), *(prod(sizes[n] for n in part if n in letters) for part in parts[1:]))

    def mixed(self, value: Values, product: Product, m: Values, shift: Values | None = None) -> Values:
        """What a product makes, behind its bias, mixed, and shifted by ``[heads, d]``."""
        form = product.form
        sizes = solve(form.made, value.shape, product.sizes)
        assert sizes is not None
        letters = [n for axis in form.made for n in axis]
        own = [*form.groups, *form.outputs]
        order = [letters.index(n) for n in [*(n for n in letters if n not in own), *own]]
        turned = value.reshape([sizes[n] for n in letters]).transpose(order)
        flat = turned.reshape(-1, prod(sizes[n] for n in own)).astype(np.float64)
        flat[:, self.table] = np.einsum("rhi,hij->rhj", flat[:, self.table], m) + (0 if shift is None else shift)
        back = flat.reshape(turned.shape).transpose(np.argsort(order))
        return np.ascontiguousarray(back.reshape(value.shape), value.dtype)


def lay(removal: Removal) -> list[Laid]:
    """The scores that a removal takes elements from, of each weight that could make up for it."""
    found = []
    for scores in find_scores(removal.analysis, removal.gone):
        product, form = scores.product, scores.product.form
        own = (*form.groups, *form.outputs)
        stays = removal.analysis.rulings.span(product.output, form, own).kept(removal.kept)
        letters = (*scores.heads, scores.summed)
        sizes: dict[Letter, int] = {n: removal.analysis.web.sizes[n] for n in letters}
        kept: dict[Letter, IntArray] = {n: removal.kept(n) for n in letters}
        family = _family(scores, kept[scores.summed])
        table = None if form.groups else _table(scores, stays, kept)
        if table is not None and family is not None:
            found.append(Laid(scores, sizes, kept, table, family))
    return found


def _family(scores: Scores, stays: IntArray) -> Family | None:
    """Any mixture, where nothing tells elements apart; else those within classes."""
    if not scores.tangled and not scores.bound.any():
        return Family(np.arange(len(stays)), np.zeros((0, 2), np.intp))
    classes = np.unique(scores.classes[stays], return_inverse=True)[1].reshape(-1)
    within = Family.of(classes, scores.bound[stays])
    return within if within is not None and (len(within.pairs) or len(within.free)) else None


def _table(scores: Scores, stays: IntArray, kept: Mapping[Letter, IntArray]) -> IntArray | None:
    """Where each element of each head lies among the outputs that stay; None where that is not one place.

    Where sums tangle elements that hang together, they are taken in the order in which they lie.
    """
    place: dict[Letter, IntArray] = {}
    for letter, elements in kept.items():
        assert isinstance(letter, int)
        back = np.full(int(elements.max(initial=0)) + 2, -1)
        back[elements] = np.arange(len(elements))
        held = scores.channels[letter][stays]
        place[letter] = np.where(held >= 0, back[np.minimum(held, len(back) - 1)], -1)
    own = np.flatnonzero(np.all([held >= 0 for held in place.values()], axis=0))
    heads, size = prod(len(kept[n]) for n in scores.heads), len(kept[scores.summed])
    if len(own) != heads * size:
        return None
    head = np.zeros(len(own), np.intp)
    for n in scores.heads:
        head = head * len(kept[n]) + place[n][own]
    element = place[scores.summed][own]
    if scores.tangled:
        classes = scores.classes[kept[scores.summed]]
        lies = np.lexsort((own, classes[element], head))
        wanted = np.tile(np.argsort(classes, kind="stable"), heads)
        element = np.empty_like(element)
        element[lies] = wanted
    table = np.full((heads, size), -1)
    table[head, element] = own
    return None if (table < 0).any() else table


def chosen(count: int, most: int, rng: np.random.Generator) -> IntArray:
    """Some of so many, ascending."""
    return np.arange(count) if count <= most else np.sort(rng.choice(count, max(most, 1), replace=False))
