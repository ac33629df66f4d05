"""Scores by gradients: how far the outputs go, to first order, when a class is scaled down.

No labels are asked for: in place of a loss stand random directions of the outputs (see ``backward``), so that a squared
derivative is the squared error of the outputs, and what nothing in them depends on is worth nothing. With g the
gradient of one direction, and E over directions and inputs, a class c is worth

- ``fisher``: ``E (sum_c w g)^2`` over the weights that read it: the derivative by a mask of 1 that multiplies the class
  where it is read (Kwon et al., A Fast Post-Training Pruning Framework for Transformers, NeurIPS 2022). Products of
  activations have no weights; there it is the sum over one of both activations;
- ``taylor``: ``E (sum_c w g)^2`` over all weights of the class, those that make it too (Molchanov et al., Importance
  Estimation for Neural Network Pruning, CVPR 2019);
- ``snip``: ``E sum_c |w g|`` over the same weights (Lee et al., SNIP, ICLR 2019);
- ``movement``: ``-sum_c w g`` over the same weights and the steps of a short training (see ``movement``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.rulings import first
from graphprune.gradients.terms import Term
from graphprune.passes.choose import magnitude, movement
from graphprune.passes.choose.backward import Reading, Scene, backward
from graphprune.relation import IntArray, Values
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds

CRITERIA = ("fisher", "taylor", "snip", "movement")
DRAWS = 4
"""Random directions for each run: a class has one number in each, and these differ."""

Told = Callable[[Values], FloatArray]
Parts = Sequence[tuple[str, Told]]
"""Tensors whose gradients tell of a group, each with what it says of the classes in one direction."""


def score(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: str,
    contractions: Sequence[Contraction],
    feeds: Sequence[Feeds],
    seed: int = 0,
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """What classes are worth by gradients; and for groups of which these are not to be had, why not.

    Args:
        analysis: of the model.
        groups: the groups.
        criterion: one of :data:`CRITERIA`.
        contractions: of the model on calibration inputs.
        feeds: some calibration inputs.
        seed: of random directions.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    asked: dict[str, Reading] = {}
    if criterion == "movement":
        return _moved(analysis, groups, feeds, seed)
    if criterion == "fisher":
        parts = _read(analysis, groups, contractions, asked)
    else:
        parts = _owned(analysis, groups, asked, _absolute if criterion == "snip" else _contributed)
    found = backward(analysis.model.runnable, feeds, asked, seed, DRAWS)
    why = _without(groups, parts, found.stopped)
    there = [group.id for group in groups if group.id not in why]
    total, count = {id: np.zeros(()) for id in there}, 0
    for values in found.runs:
        count += 1
        for id in there:
            one = np.sum([told(values[name]) for name, told in parts[id]], axis=0)
            total[id] = total[id] + (one if criterion == "snip" else one**2)
    why.update((id, "its gradient is not finite") for id, value in total.items() if not np.isfinite(value).all())
    return {id: np.asarray(value / max(count, 1), np.float64) for id, value in total.items() if id not in why}, why


def _moved(
    analysis: Analysis, groups: Sequence[Group], feeds: Sequence[Feeds], seed: int
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """What a short training says of classes: what they gain beside the one that loses most, which is worth nothing."""
    asked: dict[str, Reading] = {}
    parts = _owned(analysis, groups, asked, lambda _, worth: worth)
    found = movement.moved(analysis.model.runnable, feeds, list(asked), seed)
    why, scores = _without(groups, parts, found.stopped), {}
    for group in (g for g in groups if g.id not in why):
        own = np.sum([told(found.worth[name]) for name, told in parts[group.id]], axis=0)
        scores[group.id] = np.asarray(own - own.min(), np.float64)
    return scores, why


def _without(groups: Sequence[Group], parts: Mapping[str, Parts], stopped: Mapping[str, str]) -> dict[str, str]:
    """Groups that nothing is known of, and why."""
    why: dict[str, str] = {}
    for group in groups:
        own = parts.get(group.id, ())
        reason = next((stopped[name] for name, _ in own if name in stopped), None)
        if not own or reason is not None:
            why[group.id] = reason or "no product with a weight reads it"
    return why


def _read(
    analysis: Analysis, groups: Sequence[Group], contractions: Sequence[Contraction], asked: dict[str, Reading]
) -> dict[str, Parts]:
    """For each group the weights that read it, and activations whose products sum over it."""
    products = {p.output: p for p in find_products(analysis.model, analysis.rulings, shared=True)}
    parts: dict[str, dict[tuple[str, object], tuple[str, Told]]] = {}
    axes: dict[str, int] = {}
    for contraction in contractions:
        node = analysis.model.nodes[contraction.node]
        name, axis = node.input[0], contraction.axis or 0
        reading: Reading = partial(_along, name=name, axis=axis)
        sums: Callable[[Values], Values] = np.asarray
        by: object = axis  # an activation counts once, however many read it
        if contraction.adjustable:
            product = products[first(node)]
            name, reading, sums = product.weight, _itself, partial(_rows, product, contraction.matrix)
            by = product.output  # a weight that several read counts for each
        elif axes.setdefault(name, axis) != axis:
            continue  # its gradient is read along one axis; the group has other readers, or goes by magnitude
        for group in groups:
            labels = contraction.labels(group)
            if labels is not None:
                asked[name] = reading
                parts.setdefault(group.id, {})[name, by] = name, partial(_classes, sums, labels, group.size)
    return {id: list(own.values()) for id, own in parts.items()}


def _owned(
    analysis: Analysis, groups: Sequence[Group], asked: dict[str, Reading], of: Callable[[Values, Values], Values]
) -> dict[str, Parts]:
    """For each group the weights of its classes, those that multiply where there are any."""
    parts: dict[str, Parts] = {}
    for group in groups:
        own: dict[tuple[str, int], Told] = {}
        for use, axis in magnitude.counting(analysis, group):
            name = analysis.root(use)
            asked[name] = _itself
            labels = group.labels[analysis.web.axis_of[use] + axis]
            sums = partial(_marginal, analysis.model.array(name), axis, of)
            own[name, axis] = partial(_classes, sums, labels, group.size)
        parts[group.id] = [(name, told) for (name, _), told in own.items()]
    return parts


def _itself(gradient: Term, _: Scene) -> Term:
    return gradient


def _along(gradient: Term, scene: Scene, name: str, axis: int) -> Term:
    """The sum of what an activation contributes, along one of its axes."""
    made = gradient * scene.tensor(name)
    return made.sum([a for a in range(made.rank or 0) if a != axis], keep=False)


def _rows(product: Product, matrix: FloatArray, gradient: Values) -> Values:
    """The sum of what a weight contributes, by row of its matrix."""
    return np.asarray(np.einsum("gio,gio->i", matrix, product.matrix(gradient)))


def _contributed(weight: Values, gradient: Values) -> Values:
    return np.asarray(weight.astype(np.float32) * gradient)


def _absolute(weight: Values, gradient: Values) -> Values:
    return np.abs(_contributed(weight, gradient))


def _marginal(weight: Values, axis: int, of: Callable[[Values, Values], Values], gradient: Values) -> Values:
    """The sum of what a weight contributes, along one of its axes."""
    made = of(weight, gradient)
    return np.asarray(np.moveaxis(made, axis, 0).reshape(made.shape[axis], -1).sum(1, dtype=np.float64))


def _classes(sums: Callable[[Values], Values], labels: IntArray, size: int, gradient: Values) -> FloatArray:
    held = labels >= 0
    return np.bincount(labels[held], sums(gradient)[held], minlength=size).astype(np.float64)
