"""Trials: how far the outputs of a model go when one group alone loses some of its classes.

Classes are removed for once, what reads them is adjusted in closed form, and the outputs are compared on a few inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.products import find_products
from graphprune.analysis.rulings import first
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.passes.choose import surgeon
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.rewrite.rewrite import rewrite
from graphprune.run import calibration
from graphprune.run.runtime import Feeds, run, session

SAMPLES = 16
"""On which outputs are compared."""


def tried(
    analysis: Analysis,
    gone: Mapping[str, IntArray],
    contractions: Sequence[Contraction],
    feeds: Sequence[Feeds],
    progress: Steps = unseen,
) -> dict[str, float]:
    """By group the squared error of the outputs, each beside its variance, once some of its classes are gone.

    Args:
        analysis: of the model.
        gone: by group id the classes.
        contractions: of the model on calibration inputs.
        feeds: some calibration inputs.
        progress: is told after each group how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    if not gone:
        return {}
    some = calibration.first(lambda: feeds, SAMPLES)
    wanted = _outputs(analysis.model.runnable, some)
    found = {}
    for group in (g for g in analysis.groups if g.id in gone):
        without = _without(analysis, group, gone[group.id], contractions)
        found[group.id] = _distance(wanted, _outputs(without, some))
        progress(len(found), len(gone))
    return found


def _without(analysis: Analysis, group: Group, gone: IntArray, contractions: Sequence[Contraction]) -> Model:
    """The model without some classes of one group, its readers adjusted."""
    pruned = rewrite(analysis, {group.id: [int(c) for c in gone]}).model
    products = {product.output: product for product in find_products(pruned, analysis.rulings)}
    editor = Editor(pruned)
    marks = np.zeros(group.size + 1, bool)
    marks[gone] = True
    for contraction in contractions:
        labels = contraction.labels(group)
        product = products.get(first(analysis.model.nodes[contraction.node]))
        if labels is None or product is None or not contraction.adjustable:
            continue
        kept = np.flatnonzero(~marks[labels])
        held = pruned.array(product.weight)
        change = surgeon.change(contraction, np.flatnonzero(marks[labels]))
        weight = (contraction.matrix + change)[:, kept]
        if product.matrix(held).shape == weight.shape:
            editor.renew(product.weight, product.weight_of(weight, held))
            if not product.inner:
                product.shift(editor, pruned, -np.einsum("gi,gio->go", contraction.mean, change))
    return editor.finish()


def _outputs(model: Model, feeds: Sequence[Feeds]) -> list[list[Values]]:
    with session(model) as active:
        return [[np.asarray(v, np.float64) for v in run(active, one)] for one in feeds]


def _distance(wanted: list[list[Values]], found: list[list[Values]]) -> float:
    """Mean squared error of all outputs, each beside its variance; outputs whose shapes change say nothing."""
    errors = [
        float(np.square(a - b).sum() / max(np.square(a - a.mean()).sum(), 1e-30))
        for one, other in zip(wanted, found, strict=True)
        for a, b in zip(one, other, strict=True)
        if a.shape == b.shape and a.size
    ]
    return float(np.mean(errors)) if errors else 0.0
