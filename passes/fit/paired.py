"""Both models on the same inputs: what each operator of a pruned model is given, and what it is to come to.

They run in stages, wave by wave, the pruned one with the weights of now. Where an output is added to what has been made
before (a residual branch), the target is what the original's sum lacks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from graphprune.analysis.contractions import chance, rows_of_run
from graphprune.analysis.products import Product, alike, find_products, joined
from graphprune.analysis.rulings import Rulings
from graphprune.model import Model
from graphprune.passes.fit.laid import Laid
from graphprune.passes.fit.least_squares import Split
from graphprune.passes.kept import Kept
from graphprune.passes.sparse.masks import Thinner
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray, Gathered
from graphprune.run.runtime import Feeds
from graphprune.run.samples import count, held_out
from graphprune.run.staged import Staged

Restrict = Callable[[Values, str], Values]
Cut = Callable[[Values, Product], Values]


@dataclass(frozen=True)
class Task:
    """What is wanted of every operator.

    Attributes:
        original: as it runs; tensors that both models have bear the same names.
        rulings: what is known of the original's nodes.
        batches: gives the calibration inputs, from the start at each call.
        restrict: takes out of an original activation, by name, what was removed from it.
        cut: takes out of what a product of the original inside a node comes to, ``[groups, rows, outputs]``, what was
            removed from it.
        seed: of the choice of rows.
        fit: ``refit``; ``repair`` gives outputs the mean and the variance of the original's; ``none`` fits nothing.
        thin: by weight what makes it sparse, of weights that one operator alone reads.
        sparse: weights that are sparse already, and stay so.
        again: whether the result will be fitted again, so that no biases of their own come in.
        kept: where finished waves are kept for another run of the same job.
        scores: products of two activations that have lost elements of what they sum over.
    """

    original: Model
    rulings: Rulings
    batches: Callable[[], Iterable[Feeds]]
    restrict: Restrict
    cut: Cut = lambda value, _: value
    seed: int = 0
    fit: str = "refit"
    thin: Mapping[str, Thinner] = field(default_factory=dict)
    sparse: Set[str] = frozenset()
    again: bool = False
    kept: Kept | None = None
    scores: Sequence[Laid] = ()


class Pair:
    """The original and the pruned model, both run in stages on the same inputs.

    Args:
        task: what is wanted.
        pruned: the model as it is at first.
        steps: operators whose moments will be asked for, wave by wave.
    """

    def __init__(self, task: Task, pruned: Model, steps: Sequence[Sequence[Product]]) -> None:
        self.task = task
        self.number_of = {product.output: k for k, step in enumerate(steps) for product in step}
        self.originals = {
            product.output: product for product in find_products(task.original, task.rulings, shared=True)
        }
        self.inputs = {i.name for i in pruned.inputs}
        self.pruned = pruned
        self.sizes: list[int] = []

    def __enter__(self) -> Pair:
        self.folder = tempfile.TemporaryDirectory()
        first, second = (Path(self.folder.name) / n for n in ("original", "pruned"))
        first.mkdir()
        second.mkdir()
        self.wanted = Staged(self.task.original, self.number_of, False, first)
        self.given = Staged(self.pruned, self.number_of, True, second)
        for number, feeds in enumerate(self.task.batches()):
            self.wanted.start(number, feeds)
            self.given.start(number, {n: self.task.restrict(v, n) for n, v in feeds.items() if n in self.inputs})
            self.sizes.append(count(feeds))
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def sums(
        self, pruned: Model, number: int, products: Sequence[Product], bare: bool = False, again: bool = False
    ) -> list[Split]:
        """Second moments of every operator of one wave, batch by batch.

        Args:
            pruned: the model as it is now.
            number: of the wave.
            products: its operators.
            bare: whether of what is wanted a bias of the pruned model is taken off.
            again: whether there is more to be asked of this wave.
        """
        beside = {}
        for product in products if not bare else ():
            other = _beside(self.task.rulings, pruned, product, number, self.given, self.wanted)
            if other is not None:
                beside[product.output] = other
        found: dict[str, Split] = {}
        rows: dict[str, Gathered] = {}
        seen, runs, sets = 0, len(self.sizes), alike(products)
        for run, ((inputs, outputs), size) in enumerate(
            zip(self._runs(pruned, number, products, beside, again), self.sizes, strict=True)
        ):
            for own in sets:
                first = own[0]
                rng, most = chance(self.task.seed, first.input, run), rows_of_run(first.widths[1], runs)
                chosen, sample = first.choose(inputs[first.input], most, rng)
                x = first.rows(inputs[first.input], chosen)
                y = []
                for product in own:
                    made = self._results(product, outputs, chosen)
                    if product.output in beside:
                        lacks = beside[product.output], inputs, outputs, self.task.restrict, chosen
                        made = made + _missing(product, *lacks)
                    if bare:
                        made = made - bias(pruned, product, x.shape[0], made.shape[2])[:, None].astype(np.float32)
                    y.append(made)
                wanted = np.concatenate(y, axis=2) if len(y) > 1 else y[0]
                if first.output not in found:
                    found[first.output] = Split.empty(x.shape[0], x.shape[2], wanted.shape[2])
                    rows[first.output] = Gathered(found[first.output].add, x.shape[2])
                rows[first.output].add(x, wanted, held_out(seen + sample, self.task.seed))
            seen += size
        for one in rows.values():
            one.finish()
        apart = {n: split for own in sets for n, split in _apart(own, found[own[0].output]).items()}
        return [apart[product.output] for product in products]

    def pass_by(self, pruned: Model, number: int) -> None:
        """Run one wave, of which nothing is to be known, for the sake of those behind it."""
        for _ in self._runs(pruned, number, (), {}, False):
            pass

    def _runs(
        self, pruned: Model, number: int, products: Sequence[Product], beside: Mapping[str, str], again: bool
    ) -> Iterator[tuple[Feeds, Feeds]]:
        """What the pruned model makes in one stage, and what the original does."""
        names = [self.originals[n.output].input if n.inner else n.output for n in products]
        given, wanted = ([*own, *beside.values()] for own in ([n.input for n in products], names))
        yield from self.both(pruned, number, given, wanted, again)

    def both(
        self, pruned: Model, number: int, given: Sequence[str], wanted: Sequence[str], again: bool
    ) -> Iterator[tuple[Feeds, Feeds]]:
        """Tensors of the pruned model, and of the original, that a stage makes or has; batch by batch.

        Args:
            pruned: the model as it is now.
            number: of the stage.
            given, wanted: names of them.
            again: whether there is more to be asked of this stage.
        """
        count = len(self.sizes)
        yield from zip(
            self.given.run(pruned, number, count, list(dict.fromkeys(given)), again),
            self.wanted.run(self.task.original, number, count, list(dict.fromkeys(wanted)), again),
            strict=True,
        )

    def _results(self, product: Product, outputs: Feeds, chosen: IntArray) -> Values:
        """What some rows are to come to."""
        if not product.inner:
            return product.results(self.task.restrict(outputs[product.output], product.output), chosen)
        whole = self.originals[product.output]
        matrix = whole.matrix(self.task.original.array(whole.weight))
        return self.task.cut(whole.rows(outputs[whole.input], chosen) @ matrix, whole)


def _apart(products: Sequence[Product], sums: Split) -> dict[str, Split]:
    """By output what each of some products that sum the same rows is to come to."""
    if len(products) == 1:
        return {products[0].output: sums}
    ends = np.cumsum([prod(product.sizes[n] for n in product.form.outputs) for product in products]).tolist()
    places = zip(products, [0, *ends], ends, strict=False)
    return {product.output: sums.part(slice(start, end)) for product, start, end in places}


def _beside(rulings: Rulings, model: Model, product: Product, number: int, given: Staged, wanted: Staged) -> str | None:
    """What the output of an operator is added to, where both models have made it before the operator is fitted."""
    if product.inner:
        return None
    output = product.output if product.adder is None else model.nodes[product.adder].output[0]
    for _, other in joined(model, rulings, output):
        if other != output and all(other not in s.constants and s.holds(other, number) for s in (given, wanted)):
            return other
    return None


def _missing(
    product: Product,
    name: str,
    inputs: Feeds,
    outputs: Feeds,
    restrict: Restrict,
    chosen: IntArray,
) -> Values:
    """By how much what an output is added to has changed so far, at some rows; zero where it is broadcast."""
    was, now = restrict(outputs[name], name), inputs[name]
    channels, made = product.form.channels, outputs[product.output]
    places = [[n for axis, n in enumerate(v.shape) if axis not in channels] for v in (was, made)]
    if was.shape != now.shape or places[0] != places[1]:
        return np.zeros(1, np.float32)
    return product.results(was.astype(np.float32) - now.astype(np.float32), chosen)


def bias(model: Model, product: Product, groups: int, outputs: int) -> FloatArray:
    """The bias that a node adds itself, ``[groups, outputs]``; none where another adds it to the product."""
    found = product.added(model) if product.adder is None else None
    return np.zeros((groups, outputs), np.float64) if found is None else found
