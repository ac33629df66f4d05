"""Reach: how far a model's outputs go, to first order, when each group alone loses some of its classes.

What reads a group makes an error d then: of a product of rows x with weights W that are adjusted by D in closed form
``d = (x - mean) D``, of a product of activations what went. With g the gradient there of random directions of the
outputs (see ``backward``), and sums over all outputs o and rows n of all that reads the group,

    E |change of the outputs|^2 = E (sum_no g_no d_no)^2

The errors are made inside the model that has the gradients, by the same operators with D for W, and a number for each
sample leaves it. So all groups are told of by the same few backward passes. Taking errors for independent of one
another (``sum_o E g_o^2 E d_o^2``, as K-FAC's second factors or Fisher's diagonal would) keeps less: errors of
neighbouring positions are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from graphprune.analysis import Analysis
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.rulings import first
from graphprune.errors import InputError
from graphprune.gradients.terms import Term
from graphprune.model import node_name
from graphprune.passes.choose import surgeon
from graphprune.passes.choose.backward import Scene, backward
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.run.runtime import Feeds


def reached(
    analysis: Analysis,
    gone: Mapping[str, IntArray],
    contractions: Sequence[Contraction],
    feeds: Sequence[Feeds],
    seed: int = 0,
    progress: Steps = unseen,
) -> tuple[dict[str, float], dict[str, str]]:
    """By group the squared error of the outputs, each beside its variance; for groups that cannot be told of, why not.

    Args:
        analysis: of the model.
        gone: by group id the classes that go.
        contractions: of the model on calibration inputs.
        feeds: some calibration inputs.
        seed: of random directions.
        progress: is told after each run how many of how many are done.
    """
    errors, why = _errors(analysis, gone, contractions)
    asked = {name: _Read(tuple(own.values())) for name, own in errors.items()}
    found = backward(analysis.model.runnable, feeds, asked, seed)
    for name, own in errors.items():
        if name in found.stopped:
            why.update((id, found.stopped[name]) for id in own if id not in why)
    total, count = dict.fromkeys((id for id in gone if id not in why), 0.0), 0
    try:
        for values in found.runs:
            parts: dict[str, list[Values]] = {}
            for name, value in values.items():
                for id, row in zip(errors[name], value.astype(np.float64), strict=True):
                    parts.setdefault(id, []).append(row)
            count += 1
            progress(count, len(feeds))
            for id in total:
                total[id] += _squared(parts[id])
    except InputError as error:  # there is another way, which says whether the model itself fails
        return {}, {**dict.fromkeys(total, str(error)), **why}
    why.update((id, "its gradient is not finite") for id, value in total.items() if not np.isfinite(value))
    return {id: value / max(count, 1) for id, value in total.items() if id not in why}, why


def _squared(parts: Sequence[Values]) -> float:
    """The square of what all that reads a group adds up to, for each sample where all tell samples apart."""
    alike = len({part.shape for part in parts}) == 1
    return float(np.square(np.sum(parts, axis=0) if alike else np.sum([part.sum() for part in parts])).sum())


@dataclass(frozen=True)
class _Error:
    """What one node makes wrong when one group loses classes.

    Attributes:
        contraction: what it sums.
        product: the same as a product with a weight; None of a product of activations.
        node: the node.
        gone: for each of its rows whether it goes.
    """

    contraction: Contraction
    product: Product | None
    node: NodeProto
    gone: Values

    def term(self, scene: Scene) -> Term:
        """The error."""
        node = scene.like(self.node)
        inputs: list[Term | None] = [scene.tensor(name) if name else None for name in node.input]
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if self.product is None:
            factor = inputs[0]
            assert factor is not None
            shape = [len(self.gone) if k == self.contraction.axis else 1 for k in range(factor.rank or 0)]
            inputs[0] = factor * scene.constant(-self.gone.reshape(shape).astype(np.float64))
            return scene.tape.op(node.op_type, *inputs, domain=node.domain, **attributes)
        change, form = surgeon.change(self.contraction, np.flatnonzero(self.gone)), self.product.form
        shift = scene.constant(self.product.beside(-np.einsum("gi,gio->go", self.contraction.mean, change)))
        inputs[form.w] = scene.constant(self.product.read_of(change))
        if form.slot is None:
            return scene.tape.op(node.op_type, *inputs, domain=node.domain, **attributes) + shift
        inputs += [None] * (form.slot + 1 - len(inputs))
        inputs[form.slot] = shift
        return scene.tape.op(node.op_type, *inputs, domain=node.domain, **attributes)


@dataclass(frozen=True)
class _Read:
    """What the gradient of one tensor says of errors in it: ``[errors, samples]``."""

    errors: Sequence[_Error]

    def __call__(self, gradient: Term, scene: Scene) -> Term:
        product, size = self.errors[0].product, gradient.dims[0] if gradient.dims else None
        apart = product is None or 0 not in product.form.channels
        samples = scene.samples if apart and isinstance(size, int) and size % scene.samples == 0 else 1
        told = [(gradient * error.term(scene)).reshape([1, samples, -1]).sum([2], keep=False) for error in self.errors]
        return scene.tape.join(told)


def _errors(
    analysis: Analysis, gone: Mapping[str, IntArray], contractions: Sequence[Contraction]
) -> tuple[dict[str, dict[str, _Error]], dict[str, str]]:
    """By tensor and group the errors in it; and for groups of which some are in no tensor, or none in any, why."""
    products = {p.output: p for p in find_products(analysis.model, analysis.rulings, shared=True)}
    groups = [group for group in analysis.groups if group.id in gone]
    found: dict[str, dict[str, _Error]] = {}
    why = {group.id: "no product that is observed sums over it" for group in groups}
    inner: dict[str, str] = {}
    for contraction in contractions:
        node = analysis.model.nodes[contraction.node]
        product = products[first(node)] if contraction.adjustable else None
        for group in groups:
            labels = contraction.labels(group)
            if labels is None:
                continue
            why.pop(group.id, None)
            if product is not None and product.inner:
                inner[group.id] = f"the product of {node_name(analysis.model, contraction.node)!r} is no tensor"
                continue
            marks = np.zeros(group.size + 1, bool)
            marks[gone[group.id]] = True
            error = _Error(contraction, product, node, marks[labels])
            found.setdefault(first(node), {})[group.id] = error
    return found, {**why, **inner}
