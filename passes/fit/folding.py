"""Folding of similar channels, without data: what a removed class did is done by the one that is most like it.

Two channels that are computed with nearly the same weights are nearly the same; so the weights that read the one are
added to those that read the other, scaled by how much the two differ in length (Model Folding, Wang et al., ICLR 2025;
for positively homogeneous activations the scale passes through). How a channel is computed is the row of weights that
makes it with its bias, and what normalisations behind it make of these, which is found by running them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.products import Product, find_products
from graphprune.analysis.spans import Span
from graphprune.errors import InputError
from graphprune.model import Model, node_name
from graphprune.model.editor import Editor
from graphprune.passes.choose.constants import alone
from graphprune.relation import IntArray
from graphprune.rewrite.removal import Removal
from graphprune.run.moments import FloatArray

LEAST = 0.3
"""Cosine below which two classes are not alike."""


def partners(
    analysis: Analysis, group: Group, gone: Sequence[int], products: Sequence[Product]
) -> dict[int, tuple[int, float]]:
    """For each removed class the most similar one that stays, and by how much that is to be scaled.

    Args:
        analysis: of the original.
        group: the group.
        gone: its removed classes.
        products: of the original.
    """
    vectors = _vectors(analysis, group, products)
    if vectors is None:
        return {}
    lengths = np.linalg.norm(vectors, axis=1)
    kept = np.setdiff1d(np.flatnonzero(lengths > 0), gone)
    lost = np.intersect1d(np.flatnonzero(lengths > 0), gone)
    if not len(kept) or not len(lost):
        return {}
    cosines = (vectors[lost] @ vectors[kept].T) / np.outer(lengths[lost], lengths[kept])
    best = cosines.argmax(1)
    found = cosines[np.arange(len(lost)), best]
    scales = found * lengths[lost] / lengths[kept[best]]
    return {
        int(c): (int(kept[b]), float(s))
        for c, b, s, cosine in zip(lost, best, scales, found, strict=True)
        if cosine >= LEAST
    }


def _vectors(analysis: Analysis, group: Group, products: Sequence[Product]) -> FloatArray | None:
    """How each class is computed, shape ``[classes, all weights that make it]``; None where nothing linear does."""
    parts = []
    for product in products:
        labels = _made(analysis, product).labels(group.labels)
        if labels is None or (labels < 0).all():
            continue
        matrix = product.matrix(analysis.model.array(product.weight)).astype(np.float64)
        rows = matrix.transpose(0, 2, 1).reshape(-1, matrix.shape[1])
        added = product.added(analysis.model)
        bias = np.zeros(len(rows)) if added is None else added.reshape(-1)
        gain, shift = _affine(analysis, product, len(rows))
        own = np.concatenate([rows * gain[:, None], (bias * gain + shift)[:, None]], axis=1)
        parts.append(_by_class(own / max(np.linalg.norm(own), 1e-30), labels, group.size))
    return np.concatenate(parts, axis=1) if parts else None


def _made(analysis: Analysis, product: Product) -> Span:
    """What a product makes, all groups of it."""
    return analysis.rulings.span(product.output, product.form, (*product.form.groups, *product.form.outputs))


def _by_class(rows: FloatArray, labels: IntArray, size: int) -> FloatArray:
    """Rows ``[outputs, n]`` side by side for each class; classes of fewer rows end in zeros."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    counts = np.bincount(labels[order], minlength=size)
    found = np.zeros((size, int(counts.max(initial=0)), rows.shape[1]))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    found[labels[order], place] = rows[order]
    return found.reshape(size, -1)


def _affine(analysis: Analysis, product: Product, outputs: int) -> tuple[FloatArray, FloatArray]:
    """What the nodes behind a product make of each output, as long as that is a scale and a shift."""
    model, gain, shift = analysis.model, np.ones(outputs), np.zeros(outputs)
    name = product.output
    if product.adder is not None:
        name = model.nodes[product.adder].output[0]
    form = product.form  # of a step inside the node, what lies behind is made of more than its outputs
    axes = [a for a, own in enumerate(form.made) if own == (*form.groups, *form.outputs) and not form.inner]
    while axes and len(uses := model.uses.get(name, [])) == 1 and name not in model.output_names:
        node, shape = uses[0].node, analysis.witness.shape(name)
        reads = {n for n in model.nodes[node].input if n and n not in model.constant_names}
        if reads != {name} or shape is None:
            break
        one = _step(model, node, name, shape, axes[0])
        if one is None:
            break
        gain, shift = gain * one[0], shift * one[0] + one[1]
        name = model.nodes[node].output[0]
    return gain, shift


def _step(
    model: Model, node: int, name: str, shape: tuple[int, ...], axis: int
) -> tuple[FloatArray, FloatArray] | None:
    """Scale and shift of each element of an axis, None where a node is anything else."""
    try:
        pairs = [alone(model, node, {name: shape}, seed) for seed in range(2)]
    except InputError:
        return None
    if any(y.shape != shape for _, y in pairs):
        return None
    (x, y), (u, v) = ([np.moveaxis(t.astype(np.float64), axis, 0).reshape(shape[axis], -1) for t in p] for p in pairs)
    gain = np.einsum("ij,ij->i", x - x.mean(1, keepdims=True), y) / np.maximum(x.var(1) * x.shape[1], 1e-30)
    shift = y.mean(1) - gain * x.mean(1)
    close = np.allclose(u * gain[:, None] + shift[:, None], v, rtol=1e-3, atol=1e-3 * np.abs(v).max(initial=0))
    return (gain, shift) if close else None


def fold_classes(
    analysis: Analysis, pruned: Model, removal: Removal, selection: Mapping[str, Sequence[int]]
) -> tuple[Model, list[tuple[str, str]]]:
    """Add the weights that read removed classes to those that read the classes most like them.

    Args:
        analysis: of the original.
        pruned: the model; it is not changed.
        removal: what was removed, by axis.
        selection: removed classes by group id.

    Returns:
        The model, and which weights changed: names of their nodes, and theirs in the pruned model.
    """
    rulings = analysis.rulings
    products = find_products(analysis.model, rulings, shared=True)
    there = {product.output: product for product in find_products(pruned, rulings)}
    pairs = {id: partners(analysis, g, c, products) for id, c in selection.items() if (g := analysis.group(id))}
    editor, changed = Editor(pruned), []
    for product in products:
        form, target = product.form, there.get(product.output)
        if target is None:
            continue
        groups, summed, made = (rulings.span(product.output, form, n) for n in (form.groups, form.sums, form.outputs))
        weight = None
        for id, own in pairs.items():
            group = analysis.group(id)
            labels = None if group is None else summed.labels(group.labels)
            if labels is None or not own:
                continue
            if weight is None:
                weight = product.matrix(analysis.model.array(product.weight)).astype(np.float64)
            _merge(weight, labels, own)
        if weight is None:
            continue
        held = pruned.array(target.weight)
        kept = weight[groups.kept(removal.kept)][:, summed.kept(removal.kept)][:, :, made.kept(removal.kept)]
        if kept.shape == target.matrix(held).shape:
            editor.renew(target.weight, target.weight_of(kept, held))
            changed.append((node_name(pruned, target.node), target.weight))
    return editor.finish(), changed


def _merge(weight: FloatArray, rows: IntArray, own: Mapping[int, tuple[int, float]]) -> None:
    """Add rows of removed classes, by the class of each, to those of their partners; where both have equally many."""
    for lost, (kept, scale) in own.items():
        a, b = np.flatnonzero(rows == lost), np.flatnonzero(rows == kept)
        if len(a) == len(b):
            weight[:, b] += scale * weight[:, a]
