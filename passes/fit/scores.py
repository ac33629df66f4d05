"""Queries and keys: what scores have lost with the elements of a head is brought back through those that stay.

A fit of single products (``reconstruct``) makes what is left of queries and keys what it was, and what they come to
together still lacks the elements that went. So behind the wave that fits them, scores of the original are what the
pruned model's are fitted to, by a mixture of each head's elements (``mixing``) that goes into the weight and the bias
which make the queries, or the keys where those cannot take it. No node comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphprune.analysis.contractions import chance
from graphprune.analysis.products import Product, find_products
from graphprune.model import Model, node_name
from graphprune.model.editor import Editor
from graphprune.passes.fit.laid import Laid, chosen
from graphprune.passes.fit.mixing import Seen, refit, solve
from graphprune.passes.fit.paired import Pair, Task
from graphprune.passes.fit.passing import Between, Passed, between, passed
from graphprune.passes.fit.waved import Fit, Settled
from graphprune.relation import Values
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds
from graphprune.run.samples import held_out

MANY, KEYS, LEAST = 1 << 18, 256, 8
"""Scores of one head that are looked at, over all runs; of one instance so many keys at most, and queries at least."""
_GAIN, _EXACT = 1e-3, 1e-9
"""As in ``reconstruct``."""
_SUM = 1e-2
"""How near to 1 shares must add up."""


def turns(task: Task, steps: Sequence[Sequence[Product]]) -> dict[int, list[Laid]]:
    """By number of the stage, which is behind the wave that fits their weights, the scores to be fitted."""
    wave = {product.output: k for k, step in enumerate(steps) for product in step if _free(task, product)}
    found: dict[int, list[Laid]] = {}
    for laid in task.scores:
        if laid.scores.product.output in wave:
            found.setdefault(wave[laid.scores.product.output] + 1, []).append(laid)
    return found


def _free(task: Task, product: Product) -> bool:
    """Whether every element of a weight may change."""
    return product.weight not in task.thin and product.weight not in task.sparse


def settle(task: Task, pair: Pair, model: Model, number: int, scores: Sequence[Laid]) -> list[Settled]:
    """What becomes of weights that make operands of scores.

    Args:
        task: what is wanted.
        pair: both models.
        model: the pruned model as it is now.
        number: of the stage.
        scores: as :func:`turns` lists them.
    """
    products = {p.output: p for p in find_products(model, task.rulings)}
    asked = [
        _Asked(laid, products[laid.scores.product.output], between(model, laid.scores.end, _operand(laid)))
        for laid in scores
        if laid.scores.product.output in products and _there(pair, laid, number)
    ]
    for run, (given, wanted) in enumerate(_runs(pair, model, number, asked)):
        if run == 0:
            asked = _passing(model, asked, given)
        for one in asked:
            one.add(given, wanted, task.seed, run, pair.sizes)
    return [_settled(model, one, task) for one in asked if one.enough]


def _operand(laid: Laid) -> str:
    return laid.scores.reads[laid.scores.mixed]


def _there(pair: Pair, laid: Laid, number: int) -> bool:
    """Whether both models have all that is to be looked at in this stage, and the weight is not used before."""
    reads = laid.scores.reads
    shares = [] if laid.scores.shares is None else [laid.scores.shares[0]]
    return (
        pair.given.stage.get(laid.scores.end) == number
        and all(pair.given.holds(n, number) for n in reads)
        and all(pair.wanted.holds(n, number) for n in [*reads, *shares])
    )


def _runs(pair: Pair, model: Model, number: int, asked: Sequence[_Asked]) -> Iterator[tuple[Feeds, Feeds]]:
    """What is to be seen, batch by batch."""
    if not asked:
        return iter(())
    given = [n for one in asked for n in (*one.laid.scores.reads, one.way.start, *one.way.reads, one.product.input)]
    wanted = [n for one in asked for n in one.wanted]
    return pair.both(model, number, given, wanted, again=True)


def _passing(model: Model, asked: Sequence[_Asked], values: Feeds) -> list[_Asked]:
    """Of each score the first weight that mixtures pass from."""
    found: dict[str, _Asked] = {}
    for one in asked:
        if one.laid.scores.name not in found:
            passes = passed(one.laid, model, one.product, one.way, values)
            if passes is not None:
                operand = values[_operand(one.laid)]
                wide = passes.gain is not None and one.laid.places(operand, one.product) is not None
                laid = replace(one.laid, table=passes.table)
                found[one.laid.scores.name] = replace(one, laid=laid, passes=passes, wide=wide)
    return list(found.values())


@dataclass
class _Asked:
    """A score, and what is seen of it; if it is wide, with what the weight reads in place of what it makes."""

    laid: Laid
    product: Product
    way: Between
    passes: Passed | None = None
    wide: bool = False
    seen: list[Seen] = field(default_factory=list)
    samples: int = 0

    @property
    def wanted(self) -> list[str]:
        """Tensors of the original."""
        scores = self.laid.scores
        return [*scores.reads, *([] if scores.shares is None else [scores.shares[0]])]

    @property
    def shifts(self) -> bool:
        """Whether a constant can be added as well, without a node more."""
        return self.passes is not None and self.passes.gain is not None and self.product.bias is not None

    @property
    def enough(self) -> bool:
        """Whether there is something to fit on, and something held out."""
        held = [one.held for one in self.seen]
        return bool(held) and bool(np.concatenate(held).any()) and not bool(np.concatenate(held).all())

    def add(self, given: Feeds, wanted: Feeds, seed: int, run: int, sizes: Sequence[int]) -> None:
        """Some rows of one run."""
        laid, mixed = self.laid, self.laid.scores.mixed
        reads = laid.scores.reads
        order = (mixed, 1 - mixed)
        now = [laid.arranged(given[reads[k]], k, whole=False) for k in order]
        was = [laid.arranged(wanted[reads[k]], k, whole=True) for k in order]
        shares = None if laid.scores.shares is None else laid.shares(wanted[laid.scores.shares[0]])
        if any(v is None for v in (*now, *was)):
            return
        (x, y), (u, v) = ([np.asarray(one) for one in side] for side in (now, was))
        if x.shape[:3] != u.shape[:3] or y.shape[:3] != v.shape[:3] or not x.size:
            return
        along = _along(shares, mixed)
        rng = chance(seed, laid.scores.name, run)
        n, m, t = x.shape[1], x.shape[2], y.shape[2]
        budget = MANY // len(sizes)
        columns = chosen(t, KEYS, rng)
        rows = chosen(m, max(LEAST, budget // (n * len(columns))), rng)
        which = chosen(n, budget // (len(rows) * len(columns)), rng)
        sample = self.samples + which * sizes[run] // n
        x, y, u, v = (_picked(a, which, r) for a, r in ((x, rows), (y, columns), (u, rows), (v, columns)))
        if self.wide:
            places = laid.places(given[reads[mixed]], self.product)
            assert places is not None and self.passes is not None and self.passes.gain is not None
            read = self.product.rows(given[self.product.input], places[which][:, rows].reshape(-1))
            x, y = read.reshape(1, len(which), len(rows), -1), y * self.passes.gain[:, None, None, None].astype(y.dtype)
        known = along is not None and shares is not None
        shares = _picked(np.asarray(shares), which, rows)[..., columns] if known else None
        if self.shifts:
            x = np.concatenate([x, np.ones((*x.shape[:3], 1), np.float32)], axis=3)
        self.seen.append(Seen(x, y, u @ v.swapaxes(2, 3), shares, along or -1, held_out(sample, seed)))
        self.samples += sizes[run]

    def whole(self) -> Seen:
        """All that was seen; what is shorter ends in zeros, which count nothing."""
        rows, columns = (max(s.wanted.shape[k] for s in self.seen) for k in (2, 3))
        known = all(s.shares is not None for s in self.seen)

        def joined(arrays: Sequence[Values], *sizes: int) -> Values:
            padded = [
                np.pad(a, [(0, 0), (0, 0), *((0, n - a.shape[k + 2]) for k, n in enumerate(sizes))]) for a in arrays
            ]
            return np.concatenate(padded, axis=1)

        shares = joined([np.asarray(s.shares) for s in self.seen], rows, columns) if known else None
        return Seen(
            joined([s.x for s in self.seen], rows, self.seen[0].x.shape[3]),
            joined([s.y for s in self.seen], columns, self.seen[0].y.shape[3]),
            joined([s.wanted for s in self.seen], rows, columns),
            shares,
            self.seen[0].along,
            np.concatenate([s.held for s in self.seen]),
        )


def _picked(value: Values, which: Values, rows: Values) -> Values:
    return np.ascontiguousarray(value[:, which][:, :, rows], np.float32)


def _along(shares: Values | None, mixed: int) -> int | None:
    """The axis along which what became of scores adds up to 1; None where it does not, and so is no softmax."""
    if shares is None or not shares.size or (shares < 0).any():
        return None
    sums = [np.abs(shares.sum(axis, dtype=np.float64) - 1).max() <= _SUM for axis in (-1, -2)]
    if sums[0] == sums[1]:
        return None
    return -1 if sums[0] else -2


def _settled(model: Model, one: _Asked, task: Task) -> Settled:
    """Fit a mixture, and put it into the weight."""
    assert one.passes is not None
    seen = one.whole()
    m, before, after = refit(seen, _matrices(model, one), one.shifts) if one.wide else solve(seen, one.laid.family)
    energy = float(seen.part(seen.held).energy().sum())
    errors = [float(e.sum()) / energy if energy > 0 else float(e.sum() > 0) for e in (before, after)]
    name = node_name(model, model.producer[one.laid.scores.name])
    kept = errors[1] < (1 - _GAIN) * errors[0] and errors[0] > _EXACT
    if not kept:
        return Settled(Fit(name, one.product.weight, errors[0], errors[0], False))
    weight, shift = _folded(model, one, m)
    return Settled(Fit(name, one.product.weight, errors[0], errors[1], True), weight, shift)


def _folded(model: Model, one: _Asked, m: FloatArray) -> tuple[Values, FloatArray | None]:
    """The weight with mixed columns, and what its bias gains."""
    product, table = one.product, one.laid.table
    held = model.array(product.weight)
    matrix = product.matrix(held).astype(np.float64)
    size = table.shape[1]
    bias = product.added(model)
    if one.wide:
        matrix[0][:, table] = m[:, : len(matrix[0])].transpose(1, 0, 2)
        if bias is None:
            return product.weight_of(matrix, held), None
        shift = np.zeros_like(bias)
        shift[0, table] = m[:, -1] - bias[0, table]
        return product.weight_of(matrix, held), shift
    matrix[0][:, table] = np.einsum("shi,hij->shj", matrix[0][:, table], m[:, :size])
    if bias is None:
        return product.weight_of(matrix, held), None
    shift = np.zeros_like(bias)
    shift[0, table] = np.einsum("hi,hij->hj", bias[0, table], m[:, :size]) - bias[0, table]
    if m.shape[1] > size:
        assert one.passes is not None and one.passes.gain is not None
        shift[0, table] += m[:, size] / one.passes.gain[:, None]
    return product.weight_of(matrix, held), shift


def _matrices(model: Model, one: _Asked) -> FloatArray:
    """The weight of each head, the bias below it where there is one: ``[heads, columns of x, d]``."""
    matrix = one.product.matrix(model.array(one.product.weight)).astype(np.float64)[0]
    bias = one.product.added(model)
    rows = matrix if bias is None else np.concatenate([matrix, bias])
    return rows[:, one.laid.table].transpose(1, 0, 2)


def change(model: Model, products: Mapping[str, Product], settled: Sequence[Settled]) -> Model:
    """The model with the weights that mixtures went into.

    Args:
        model: the pruned model.
        products: its products, by weight.
        settled: what became of them.
    """
    editor = Editor(model)
    for one in settled:
        if one.fit is not None and one.weight is not None:
            product = products[one.fit.weight]
            editor.renew(product.weight, one.weight)
            if one.shift is not None:
                product.shift(editor, model, one.shift)
    return editor.finish()
