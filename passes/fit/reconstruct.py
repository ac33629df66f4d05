"""Layer-wise reconstruction: what is left of each linear operator is fitted to what the original made.

For each operator with rows x of the pruned model and outputs y of the original, on unlabelled calibration inputs,

    minimise  sum |y - x W - b|^2 + lambda |W - W0|^2

by ridge least squares that shrinks towards the weights that were kept (AIMET's and ThiNet's reconstruction of a pruned
layer's consumer; Luo et al., ICCV 2017). Operators are taken in the order in which data passes them, those side by side
together; inputs come from the model with everything before already fitted, so that errors do not pile up. Of the
samples a quarter is held out (``run.samples``): it chooses lambda, and a fit that does not help there is dropped.

A weight that several operators share is fitted first, to what all of them made together, with everything before as it
was cut. What the input weights of a recurrent operator come to is no tensor of the model; it is computed.

Where an output is added to what has been made before (a residual branch), the target is what the original's sum lacks:
so a branch makes up for what the stream has lost (He, Zhang and Sun, ICCV 2017, for multi-branch networks).

Beside it stands repair of statistics alone: each output's mean and variance are brought back to the original's.

Weights that are to become sparse do so on the way (see ``masks``), on the inputs that they will see: the mask is chosen
for the dense fit, and what stays is fitted with the mask fixed.

Only second moments are kept of the data (``X^T X`` and ``X^T Y``), so memory does not grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis.patterns import Mask
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.rulings import Rulings
from graphprune.model import Model, node_name
from graphprune.model.editor import Editor
from graphprune.passes.fit import scores, waved
from graphprune.passes.fit.least_squares import Split, masked, repaired, solve
from graphprune.passes.fit.paired import Pair, Task
from graphprune.passes.fit.paired import bias as added
from graphprune.passes.fit.waved import Fit, Settled
from graphprune.passes.kept import content
from graphprune.passes.sparse.masks import Thinner
from graphprune.passes.sparse.thinning import share
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray
from graphprune.run.moments import FloatArray
from graphprune.run.staged import waves

_GAIN, _EXACT = 1e-3, 1e-9
"""A fit must win this share of the error, and there must be some: else rounding would decide."""
_NODE = 0.02
"""A bias that needs a node of its own must win this share more."""
MOMENTS = 1 << 30
"""Bytes of second moments that are held at once."""


@dataclass
class Reconstructed:
    """A model with fitted weights, and what was done to each operator.

    Attributes:
        model: the model.
        fits: of operators that were fitted.
        kept: of weights that became sparse, the share of their magnitude and of their elements that stayed.
        own: whether nobody else holds the model, so that weights are renewed in it.
    """

    model: Model
    fits: list[Fit] = field(default_factory=list)
    kept: dict[str, tuple[float, float]] = field(default_factory=dict)
    own: bool = False


def reconstruct(task: Task, pruned: Model, progress: Steps = unseen) -> Reconstructed:
    """Fit the linear operators of a pruned model to the original.

    Args:
        task: what is wanted of them.
        pruned: the model; it is not changed.
        progress: is told after each step how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run a model on these inputs.
    """
    shared = _sweep_shared(task, pruned)
    own = _sweep(task, shared.model, progress)
    return Reconstructed(own.model, shared.fits + own.fits, own.kept)


def reached(original: Model, pruned: Model, rulings: Rulings) -> dict[str, Product]:
    """By weight the operators of a pruned model that a sweep comes by, each with a weight of its own."""
    there = _fed(original, rulings)
    return {n.weight: n for n in find_products(pruned, rulings) if n.output in there}


def _fed(original: Model, rulings: Rulings) -> set[str]:
    """Outputs of the products of the original that read an activation: what reads a constant makes no samples."""
    products = (n for n in find_products(original, rulings, shared=True) if n.input not in original.constant_names)
    return {n.output for n in products} & set(original.producer)


def _sweep(task: Task, pruned: Model, progress: Steps) -> Reconstructed:
    """Fit every operator with a weight of its own, one wave after the other."""
    result = Reconstructed(pruned)
    own = reached(task.original, pruned, task.rulings)
    if task.fit == "none":
        own = {weight: n for weight, n in own.items() if weight in task.thin}
    steps = waves(pruned, {n.node: n for n in own.values()})
    mixed = scores.turns(task, steps) if task.fit == "refit" else {}
    kept = None if task.kept is None else task.kept.on(content(pruned))
    apart = None if kept is None else kept.on("scores")
    before = waved.read_all(kept, len(steps))
    again = {number: settled for number in mixed if (settled := waved.read(apart, number)) is not None}
    if len(before) == len(steps) and len(again) == len(mixed):  # nothing is left to be run
        for number in range(_stages(steps, mixed)):
            _mix(result, task, again.get(number, ()))
            _change(result, task, steps[number : number + 1], before[number : number + 1])
        return result
    with Pair(task, pruned, steps) as pair:
        for number in range(_stages(steps, mixed)):
            if number in mixed:
                found = (
                    again[number] if number in again else scores.settle(task, pair, result.model, number, mixed[number])
                )
                _mix(result, task, found)
                if number not in again:
                    waved.write(apart, number, found)
            if number == len(steps):
                continue
            settled = before[number] if number < len(before) else _wave(task, pair, result.model, number, steps[number])
            if number < len(before):
                pair.pass_by(result.model, number)
            else:
                waved.write(kept, number, settled)
            _change(result, task, [steps[number]], [settled])
            progress(number + 1, len(steps))
    return result


def _stages(steps: Sequence[Sequence[Product]], mixed: Mapping[int, object]) -> int:
    """How many stages there are: scores may be fitted behind the last wave."""
    return max(len(steps), max(mixed, default=-1) + 1)


def _mix(result: Reconstructed, task: Task, settled: Sequence[Settled]) -> None:
    """Write into the model what has become of scores."""
    products = {p.weight: p for p in find_products(result.model, task.rulings)}
    result.model = scores.change(result.model, products, settled) if settled else result.model
    result.fits += [one.fit for one in settled if one.fit is not None]


def _products(task: Task, model: Model, step: Sequence[Product]) -> list[Product]:
    """The operators of a wave as they are now: nodes move as biases are added."""
    names = {product.output for product in step}
    return [n for n in find_products(model, task.rulings) if n.output in names]


def _wave(task: Task, pair: Pair, model: Model, number: int, step: Sequence[Product]) -> list[Settled]:
    """What becomes of the operators of one wave."""
    found: list[Settled] = []
    parts = portions(model, _products(task, model, step))
    for part in parts:
        sums = pair.sums(model, number, part, again=part is not parts[-1])
        found += [_settle(model, product, own, task) for product, own in zip(part, sums, strict=True)]
    return found


def _change(
    result: Reconstructed, task: Task, steps: Sequence[Sequence[Product]], waves: Sequence[Sequence[Settled]]
) -> None:
    """Write into the model what has become of the operators of waves."""
    for step, settled in zip(steps, waves, strict=True):
        _written(result, task, step, settled)


def _written(result: Reconstructed, task: Task, step: Sequence[Product], settled: Sequence[Settled]) -> None:
    editor = Editor(result.model)
    for product, one in zip(_products(task, result.model, step), settled, strict=True):
        if one.weight is not None:
            editor.renew(product.weight, one.weight)
        if one.shift is not None:
            product.shift(editor, result.model, one.shift)
        if one.stayed is not None:
            result.kept[product.weight] = one.stayed
        if one.fit is not None:
            result.fits.append(one.fit)
    result.model, result.own = editor.settle() if result.own else editor.finish(), True


def portions(model: Model, products: Sequence[Product]) -> list[list[Product]]:
    """Operators whose second moments are held at once."""
    found: list[list[Product]] = []
    held = 0.0
    for product in products:
        groups, sums, outputs = product.matrix(model.array(product.weight)).shape
        own = 2.0 * 8 * groups * sums * (sums + outputs)
        if not found or held + own > MOMENTS:
            found.append([])
            held = 0.0
        found[-1].append(product)
        held += own
    return found


def _sweep_shared(task: Task, pruned: Model) -> Reconstructed:
    """Fit every weight that several operators share, and nothing else reads."""
    own = {product.output for product in find_products(pruned, task.rulings)}
    there = _fed(task.original, task.rulings)
    readers: dict[str, list[Product]] = {}
    for product in find_products(pruned, task.rulings, shared=True):
        if product.output in there and product.output not in own:
            readers.setdefault(product.weight, []).append(product)
    readers = {w: own for w, own in readers.items() if len(pruned.uses.get(w, ())) == len(own) and _alike(own)}
    fits: list[Fit] = []
    if not readers or task.fit != "refit":  # outputs of one weight have statistics of their own
        return Reconstructed(pruned, fits)
    steps = waves(pruned, {product.node: product for own in readers.values() for product in own})
    found: dict[str, Split] = {}
    with Pair(task, pruned, steps) as pair:
        for number, step in enumerate(steps):
            for product, sums in zip(step, pair.sums(pruned, number, step, bare=True), strict=True):
                found[product.weight] = found[product.weight].joined(sums) if product.weight in found else sums
    editor = Editor(pruned)
    for name, products in readers.items():
        fits.append(_fit_shared(editor, pruned, products, found[name], name in task.sparse))
    return Reconstructed(editor.finish(), fits)


def _alike(products: Sequence[Product]) -> bool:
    """Whether operators read one weight in the same way."""
    first = products[0]
    return all(n.layout == first.layout and _same(n.order, first.order) for n in products)


def _same(one: IntArray | None, other: IntArray | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _settle(model: Model, product: Product, sums: Split, task: Task) -> Settled:
    """Make the weight of one operator sparse where that is asked for, and fit it."""
    thinner, stayed = task.thin.get(product.weight), None
    held = model.array(product.weight)
    first = product.matrix(held).astype(np.float64)
    bias = added(model, product, first.shape[0], first.shape[2])
    if thinner is not None:
        start, stay, fitted = _thinned(product, sums, first, bias, task, thinner)
        stayed = share(np.abs(first), ~stay), float(stay.mean())
    else:
        start, fitted = first, _fitted(product, sums, first, bias, task, _zeros_stay(task, product, first))
    before = sums.held.error(start, bias)
    error, weight, shift = fitted
    kept = error < (1 - _GAIN) * before and before > _EXACT and sums.enough
    renewed = product.weight_of(weight if kept else start, held) if kept or thinner is not None else None
    fit = Fit(node_name(model, product.node), product.weight, before, error if kept else before, kept)
    moved = shift - bias if kept and (shift != bias).any() else None
    return Settled(None if task.fit == "none" else fit, renewed, moved, stayed)


Solution = tuple[float, FloatArray, FloatArray]
"""A held-out error, and the weight and bias that it is of."""


def _zeros_stay(task: Task, product: Product, first: FloatArray) -> Mask | None:
    """What may be other than zero of a weight that is sparse already; None where all may."""
    return first != 0 if product.weight in task.sparse else None


def _thinned(
    product: Product, sums: Split, first: FloatArray, bias: FloatArray, task: Task, thinner: Thinner
) -> tuple[FloatArray, Mask, Solution]:
    """A weight with what stays of it as it was, what stays, and the best that could be made of that.

    With a refit the mask is chosen for the dense weight that does best on what the operator is given now: of all with a
    mask, that nearest to it in what they make is the best.
    """
    refit = task.fit == "refit"
    dense = _fitted(product, sums, first, bias, task, _zeros_stay(task, product, first))[1] if refit else first
    gram = sums.fitting.rows.centred if refit and not product.inner else sums.fitting.rows.xx
    stay, thinned = thinner.choose(dense, gram)
    found = [(sums.held.error(thinned, bias), thinned, bias)]
    if task.fit != "none":
        found.append(_fitted(product, sums, thinned, bias, task, stay))
    return first * stay, stay, min(found, key=lambda one: one[0])


def _fitted(
    product: Product, sums: Split, first: FloatArray, bias: FloatArray, task: Task, stay: Mask | None
) -> Solution:
    """The best of all lambdas."""

    def best(given: FloatArray | None) -> Solution:
        return solve(sums, first, given) if stay is None else masked(sums, first, given, stay)

    bare = product.bias is None and product.form.slot is None  # a bias would be a node more
    known = task.again or any(laid.scores.product.output == product.output for laid in task.scores)
    if product.inner or (bare and known):  # that must be known again later on
        return (sums.held.error(first, bias), first, bias) if task.fit == "repair" else best(bias)
    if task.fit == "repair":
        return repaired(sums, first)
    found = best(None)
    if bare:
        plain = best(bias)
        return plain if plain[0] <= (1 + _NODE) * found[0] else found
    return found


def _fit_shared(editor: Editor, model: Model, products: Sequence[Product], sums: Split, sparse: bool) -> Fit:
    """Solve for one weight that several operators share; their biases stay."""
    held = model.array(products[0].weight)
    first = products[0].matrix(held).astype(np.float64)
    none = np.zeros((first.shape[0], first.shape[2]), np.float64)
    before = sums.held.error(first, none)
    error, weight, _ = masked(sums, first, none, first != 0) if sparse else solve(sums, first, none)
    kept = error < (1 - _GAIN) * before and before > _EXACT and sums.enough
    if kept:
        editor.renew(products[0].weight, products[0].weight_of(weight, held), len(products))
    name = ", ".join(node_name(model, n.node) for n in products)
    return Fit(name, products[0].weight, before, error if kept else before, kept)
