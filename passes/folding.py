"""Folding of similar channels, without data: what a removed class did is done by the one that is most like it.

Two channels that are computed with nearly the same weights are nearly the same; so the weights that read the one are
added to those that read the other, scaled by how much the two differ in length (Model Folding, Wang et al., ICLR 2025;
for positively homogeneous activations the scale passes through). How a channel is computed is the row of weights that
makes it with its bias, and what normalisations behind it make of these, which is found by running them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from graphprune.passes.constants import alone

from graphprune.analysis import Analysis, Group
from graphprune.editor import Editor
from graphprune.errors import InputError
from graphprune.linear import Linear
from graphprune.linears import find
from graphprune.model import Model, node_name
from graphprune.moments import FloatArray
from graphprune.relation import IntArray
from graphprune.removal import Removal

LEAST = 0.3
"""Cosine below which two classes are not alike."""


def partners(
    analysis: Analysis, group: Group, gone: Sequence[int], linears: Sequence[Linear]
) -> dict[int, tuple[int, float]]:
    """For each removed class the most similar one that stays, and by how much that is to be scaled.

    Args:
        analysis: of the original.
        group: the group.
        gone: its removed classes.
        linears: linear operators of the original.
    """
    vectors = _vectors(analysis, group, linears)
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


def _vectors(analysis: Analysis, group: Group, linears: Sequence[Linear]) -> FloatArray | None:
    """How each class is computed, shape ``[classes, all weights that make it]``; None where nothing linear does."""
    net, parts = analysis.web, []
    for linear in linears:
        made = net.axis(linear.node, ("in", 1), linear.made)
        labels = None if made is None else group.labels.get(made)
        if labels is None or (linear.backward and linear.groups > 1) or (labels < 0).all():
            continue
        matrix = linear.matrix(analysis.model.array(linear.weight)).astype(np.float64)
        rows = matrix.transpose(0, 2, 1).reshape(-1, matrix.shape[1])
        bias = np.zeros(len(rows))
        if linear.bias is not None:
            bias = analysis.model.array(analysis.model.root(linear.bias)).astype(np.float64)
        gain, shift = _affine(analysis, linear, len(rows))
        own = np.concatenate([rows * gain[:, None], (bias * gain + shift)[:, None]], axis=1)
        parts.append(_by_class(own / max(np.linalg.norm(own), 1e-30), labels, group.size))
    return np.concatenate(parts, axis=1) if parts else None


def _by_class(rows: FloatArray, labels: IntArray, size: int) -> FloatArray:
    """Rows ``[outputs, n]`` side by side for each class; classes of fewer rows end in zeros."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    counts = np.bincount(labels[order], minlength=size)
    found = np.zeros((size, int(counts.max(initial=0)), rows.shape[1]))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    found[labels[order], place] = rows[order]
    return found.reshape(size, -1)


def _affine(analysis: Analysis, linear: Linear, outputs: int) -> tuple[FloatArray, FloatArray]:
    """What the nodes behind a linear operator make of each output, as long as that is a scale and a shift."""
    model, gain, shift = analysis.model, np.ones(outputs), np.zeros(outputs)
    name = linear.output
    if linear.adder is not None:
        name = model.nodes[linear.adder].output[0]
    while len(uses := model.uses.get(name, [])) == 1 and name not in model.output_names:
        node, shape = uses[0].node, analysis.witness.shape(name)
        reads = {n for n in model.nodes[node].input if n and n not in model.constant_names}
        if reads != {name} or shape is None:
            break
        axis = 1 if linear.kernel else len(shape) - 1
        one = _step(model, node, name, shape, axis)
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


def fold(
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
    net, linears = analysis.web, find(analysis.model, shared=True)
    there = {linear.output: linear for linear in find(pruned)}
    pairs = {id: partners(analysis, g, c, linears) for id, c in selection.items() if (g := analysis.group(id))}
    editor, changed = Editor(pruned), []
    for linear in linears:
        summed, made = (net.axis(linear.node, ("in", 1), a) for a in (linear.summed, linear.made))
        target = there.get(linear.output)
        if summed is None or made is None or target is None or (linear.backward and linear.groups > 1):
            continue
        weight = None
        for id, own in pairs.items():
            group = analysis.group(id)
            labels = None if group is None else group.labels.get(summed)
            if labels is None or not own:
                continue
            if weight is None:
                weight = linear.matrix(analysis.model.array(linear.weight)).astype(np.float64)
            _merge(weight, labels, own)
        if weight is None:
            continue
        held = pruned.array(target.weight)
        repeat = weight.shape[1] // net.sizes[summed]
        rows = removal.kept(summed)[:, None] * repeat + np.arange(repeat)
        kept = weight[:, rows.reshape(-1)]
        if linear.groups == 1:
            kept = kept[:, :, removal.kept(made)]
        if kept.shape == target.matrix(held).shape:
            editor.renew(target.weight, target.weight_of(kept, held))
            changed.append((node_name(pruned, target.node), target.weight))
    return editor.finish(), changed


def _merge(weight: FloatArray, labels: IntArray, own: Mapping[int, tuple[int, float]]) -> None:
    """Add rows of removed classes to those of their partners, in place; where both have equally many."""
    repeat = weight.shape[1] // len(labels)
    rows = np.repeat(labels, repeat)
    for lost, (kept, scale) in own.items():
        a, b = np.flatnonzero(rows == lost), np.flatnonzero(rows == kept)
        if len(a) == len(b):
            weight[:, b] += scale * weight[:, a]
