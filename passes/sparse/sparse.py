"""Weights with a pattern: what is asked for, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, patterns, shapes, sparsity, web
from graphprune.analysis.patterns import SPARSE, OfEvery, Pattern, Unstructured
from graphprune.analysis.sparsity import Layer
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.canonical import canonicalize
from graphprune.passes.fit import compensation, reconstruct
from graphprune.passes.fit.compensation import Compensated, Reference
from graphprune.passes.sparse import gradients, permutation, targets, thinning
from graphprune.passes.sparse.masks import AUTO, BY_GRADIENTS, METHODS, Thinner
from graphprune.passes.sparse.permutation import Ordered
from graphprune.passes.sparse.squares import squares
from graphprune.passes.sparse.targets import Scope, Skipped, Target
from graphprune.passes.sparse.thinning import Thinned, Weigh
from graphprune.progress import Steps, unseen
from graphprune.proof.proof import restrict
from graphprune.relation import Shape, Values
from graphprune.rewrite.removal import Selection
from graphprune.rewrite.rewrite import Rewritten
from graphprune.run import calibration
from graphprune.run.calibration import Batches, still
from graphprune.run.runtime import Feeds


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        pattern: as ``graphprune.analysis.patterns`` reads it: ``N:M``, ``1xW``, ``unstructured``, or another's.
        method: one of ``graphprune.passes.sparse.masks.METHODS``; by default ``sparsegpt`` with calibration inputs,
            ``magnitude`` without, and where single weights go; ``auto`` is the same.
        permute: look for the orders of channels in which the pattern keeps most.
        amount: the share of weights that go, for patterns that do not say it themselves.
        scope: which weights.
        steps: in how many rounds, each with more zeros than the last (see ``Pattern.growing``).
        rewind: in each round what stays goes back to the original's values before it is fitted.
    """

    pattern: str = "2:4"
    method: str | None = None
    permute: bool = False
    amount: float | None = None
    scope: Scope = field(default_factory=Scope)
    steps: int = 1
    rewind: bool = False

    def resolved(self, calibrated: bool) -> Request:
        """The request with its defaults.

        Raises:
            InputError: a value is out of range, needs inputs that there are none of, or makes no sense with others.
        """
        pattern = self.structure
        best = METHODS[-1] if calibrated and not isinstance(pattern, Unstructured) else METHODS[0]
        method = best if self.method is None or self.method == AUTO else self.method
        if method not in METHODS:
            raise InputError(f"--method {method}: there is none of this name; choose from {AUTO}, {', '.join(METHODS)}")
        if method != "magnitude" and not calibrated:
            raise InputError(f"--method {method} works on activations: give inputs by --calibration")
        if self.permute and (why := pattern.lacks("permute")):
            raise InputError(f"--permute: {why}")
        if self.steps < 1:
            raise InputError(f"--steps {self.steps} is out of range: it must be at least 1")
        pattern.growing(self.steps)
        if self.rewind and not (isinstance(pattern, Unstructured) and method == METHODS[0] and calibrated):
            raise InputError(
                "--rewind is for --pattern unstructured by --method magnitude, with inputs to fit on by --calibration: "
                "else weights are never elsewhere than in the original"
            )
        return replace(self, method=method)

    def rounds(self) -> list[Request]:
        """What is asked for in each round, the last of which is what is asked for in all."""
        return [replace(self, pattern=p, amount=a, steps=1) for p, a in self.structure.growing(self.steps)]

    @property
    def structure(self) -> Pattern:
        """The pattern.

        Raises:
            InputError: there is none of this text and amount.
        """
        return patterns.parse(self.pattern, self.amount)


@dataclass
class Sparse:
    """What became sparse.

    Attributes:
        request: what was asked for.
        thinned: every weight that is sparse now.
        skipped: products whose weights stayed dense, and why.
        ordered: groups with a new order.
        rounds: what share of the elements of these weights went, by round that fitted what stayed.
    """

    request: Request
    thinned: list[Thinned] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ordered: list[Ordered] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """What share of the elements of these weights went."""
        whole = sum(one.target.layers[0].elements for one in self.thinned)
        return float(sum(one.target.layers[0].elements * (1 - one.kept) for one in self.thinned) / max(whole, 1))

    def entries(self) -> list[dict[str, Any]]:
        """What the plan says of each weight."""
        found = []
        for one in self.thinned:
            layer = one.target.layers[0]
            entry: dict[str, Any] = {
                "name": one.target.weight,
                "nodes": one.target.nodes,
                "axis": layer.axis if self.request.structure.block > 1 else None,
                "pattern": self.request.pattern,
                "method": one.method,
                "kept_magnitude": round(one.kept_magnitude, 6),
                "kept": round(one.kept, 6),
            }
            if self.request.amount is not None:
                entry["amount"] = self.request.amount
            if len(self.rounds) > 1:
                entry["rounds"] = len(self.rounds)
            found.append(entry)
        return found


def find_targets(analysis: Analysis, request: Request) -> tuple[list[Target], list[Skipped]]:
    """The weights that become sparse, and those that do not.

    Raises:
        InputError: there is none that could.
    """
    found, skipped = targets.choose(analysis, request.structure, request.scope)
    if not found:
        name = analysis.model.name
        if not skipped:
            raise InputError(f"{name}: nothing can become sparse: it holds no product with a weight")
        largest = max(skipped, key=lambda s: prod(_shape(analysis.model, s.weight)))
        raise InputError(
            f"{name}: nothing becomes {request.pattern}: of {len(skipped)} products with a weight the largest, "
            f"{largest.node!r}, stays because {largest}; name nodes by --also to take them all the same"
        )
    return found, skipped


def _shape(model: Model, weight: str) -> Shape:
    source = model.sources.get(weight)
    return () if source is None else source.shape


def order(
    analysis: Analysis,
    found: list[Target],
    selection: Selection,
    request: Request,
    batches: Batches | None = None,
    seed: int = 0,
    progress: Steps = unseen,
) -> list[Ordered]:
    """New orders for groups.

    They are to keep most magnitude, or with a method that looks at inputs least error: squares of weights times mean
    squares of what they multiply, beside all of their layer.

    Raises:
        InputError: orders are not sought for such a pattern.
    """
    pattern = request.structure
    if not isinstance(pattern, OfEvery):
        raise InputError(f"permute: {pattern.lacks('permute')}")
    errors = None if batches is None else _worth(analysis, found, request.method or METHODS[0], batches, seed)
    if errors is None:
        return permutation.permute(analysis, found, selection, pattern, seed, progress=progress)

    def weigh(layer: Layer, real: Values) -> Values:
        own = errors(layer, real)
        return own / max(float(own.sum(dtype=np.float64)), 1e-30)

    return permutation.permute(analysis, found, selection, pattern, seed, weigh, progress)


def expected(analysis: Analysis, found: list[Target], batches: Batches) -> Weigh:
    """What is lost by each weight that goes, from its magnitude: its square times the mean square of what it meets.

    That is the score of Wanda, squared.
    """
    layers = [n for t in found for n in t.layers]
    seen = squares(analysis.model, analysis.web, layers, batches)

    def weigh(layer: Layer, real: Values) -> Values:
        own = seen.get((layer.index, layer.position))
        if own is None or layer.axis is None or len(own) != real.shape[layer.axis]:
            return real**2
        return real**2 * own.astype(np.float32).reshape([-1 if a == layer.axis else 1 for a in range(real.ndim)])

    return weigh


def alignments(analysis: Analysis, found: list[Target], request: Request) -> dict[str, int]:
    """What widths must stay multiples of, by group id, for weights to keep the pattern and their sparse kernels."""
    pattern, wanted = request.structure, dict[str, int]()
    for layer in (n for t in found for n in t.layers) if pattern.block > 1 else ():
        net, tensor = analysis.web, ("in", layer.position)
        sums = (32 if layer.eight_bits else 16) if pattern == SPARSE else pattern.block
        for group in analysis.groups:
            for axis in range(len(net.shapes[net.tensors[(layer.index, tensor)]])):
                if net.axis(layer.index, tensor, axis) in group.labels:
                    least = sums if axis == layer.axis else 8
                    wanted[group.id] = max(wanted.get(group.id, 1), least)
    return wanted


@dataclass(frozen=True)
class Earlier:
    """What an earlier round came to.

    Attributes:
        unfitted: the model with the weights of the original.
        sparse: weights that are sparse already.
    """

    unfitted: Model
    sparse: frozenset[str] = frozenset()


def make(
    request: Request,
    compensate: str,
    reference: Reference,
    done: Rewritten,
    input_shapes: Mapping[str, Shape] | None = None,
    progress: Steps = unseen,
    earlier: Earlier | None = None,
) -> tuple[Compensated, Sparse]:
    """Make weights of a model sparse, and let the rest make up for what went, here and in what was cut.

    Args:
        request: what is asked for, resolved.
        compensate: one of ``compensation.COMPENSATIONS``.
        reference: what weights are fitted towards.
        done: the rewrite; it is not changed.
        input_shapes: sizes of inputs that cannot be guessed.
        progress: is told after each step how many of how many are done.
        earlier: what an earlier round came to.
    """
    method, batches = request.method or METHODS[0], reference.batches
    if batches is None or (compensate not in compensation.NEED_INPUTS and method == METHODS[0]):
        made = compensation.compensate(compensate, replace(reference, batches=None), done)  # looks at dense weights
        here, found, skipped = _here(made.model, request, input_shapes)
        result = Sparse(request, skipped=skipped)
        made.model, result.thinned = thinning.mask(made.model, here.model, found, request.structure)
    else:
        here, found, skipped = _here(done.model, request, input_shapes)
        result, thin = (
            Sparse(request, skipped=skipped),
            _thinners(request, found, reference.original, reference.analysis, done.model),
        )
        model = done.model
        first = [t for t in found if t.weight not in thin]
        if first:
            weigh = _worth(here, first, method, partial(_fed, done, batches), reference.seed)
            used = "wanda" if weigh is not None and method not in BY_GRADIENTS else method
            model, result.thinned = thinning.mask(model, here.model, first, request.structure, weigh, used)
            if request.rewind and earlier is not None:
                model = thinning.rewound(model, earlier.unfitted, first)
        ready = frozenset(t.weight for t in first) | (frozenset() if earlier is None else earlier.sparse)
        changed = replace(done, model=model)
        made = compensation.compensate(compensate, reference, changed, progress, thin=thin, sparse=ready)
        result.thinned += [Thinned(t, *made.kept[t.weight], method) for t in found if t.weight in thin]
    if earlier is not None and earlier.sparse:
        result.thinned = thinning.beside(earlier.unfitted, made.model, result.thinned)
    _ensure(made.model, result, input_shapes)
    return made, result


def _worth(here: Analysis, found: list[Target], method: str, batches: Batches, seed: int) -> Weigh | None:
    """What weights are worth at the start; None where it is their magnitude."""
    if method in BY_GRADIENTS:
        some = calibration.first(batches, gradients.SAMPLES)
        return gradients.attributed(here.model, [n for t in found for n in t.layers], method, some, seed)
    return expected(here, found, batches) if method != METHODS[0] else None


def _here(
    model: Model, request: Request, input_shapes: Mapping[str, Shape] | None
) -> tuple[Analysis, list[Target], list[Skipped]]:
    """A model as it is now, without its groups, and the weights that become sparse or do not."""
    flat = canonicalize(model)
    witness = shapes.find_witness(flat, still(input_shapes, flat))
    here = Analysis(flat, witness, web.build(flat, witness), [], [])
    return here, *find_targets(here, request)


def _thinners(
    request: Request, found: Sequence[Target], original: Model, analysis: Analysis, model: Model
) -> dict[str, Thinner]:
    """What makes weights sparse on the way, those that one operator alone reads and a fit comes by."""
    if request.method in BY_GRADIENTS or (isinstance(request.structure, Unstructured) and request.method == METHODS[0]):
        return {}  # layers compete by what they are at the start
    products = reconstruct.reached(original, model, analysis.rulings)
    return {
        t.weight: Thinner(request.method or METHODS[0], request.structure, products[t.weight].positions)
        for t in found
        if t.weight in products and len(t.layers) == 1
    }


def _fed(done: Rewritten, batches: Batches) -> Iterator[Feeds]:
    """Inputs of a pruned model: where its interface has shrunk, what stays of the original's."""
    there = {i.name for i in done.model.inputs}
    for feeds in batches():
        yield {n: restrict(v, n, done.removal) for n, v in feeds.items() if n in there}


def _ensure(model: Model, result: Sparse, input_shapes: Mapping[str, Shape] | None) -> None:
    """What has become sparse follows the pattern as its nodes read it: anything else is an error of this program."""
    pattern = result.request.structure
    if pattern.block == 1:
        return  # how many go of each layer is a matter of them all
    flat = canonicalize(model)
    witness = shapes.find_witness(flat, still(input_shapes, flat))
    wanted = {(n, one.target.weight) for one in result.thinned for n in one.target.nodes}
    found = sparsity.find_layers(flat, witness, web.build(flat, witness), True, pattern)
    layers = [layer for layer in found if (layer.node, layer.weight) in wanted]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for layer, sparse in zip(layers, pool.map(lambda n: sparsity.follows(flat, n, pattern), layers), strict=True):
            assert sparse, f"{layer.node!r} does not follow {pattern}"
