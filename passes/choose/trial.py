"""Sensitivity: how far the outputs of a model go when one group alone loses some of its classes.

The error that a criterion foresees stands beside what reads a group; how much of it reaches the outputs depends on all
that lies behind. So a share of each group is removed for once, its readers adjusted in closed form, and the outputs are
compared on a few inputs. The root of the ratio of both errors weights the group: the ratio itself is taken at one point
only, and trusting it fully (or not at all) keeps less (``tests/benchmarks/bench_accuracy.py``).
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
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.surgeon import damped
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray, Values
from graphprune.rewrite.rewrite import rewrite
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds, run, session

SHARE = 0.25
"""Of a group that is removed for once."""
SAMPLES = 16
"""On which outputs are compared."""
_LEAST = 1e-9


def weigh(
    analysis: Analysis,
    groups: Sequence[Group],
    rankings: Mapping[str, Ranking],
    contractions: Sequence[Contraction],
    feeds: Sequence[Feeds],
    progress: Steps = unseen,
) -> dict[str, Ranking]:
    """Rankings whose errors are weighted by how much of them reaches the outputs.

    Args:
        analysis: of the model.
        groups: the groups.
        rankings: by group id.
        contractions: of the model on calibration inputs.
        feeds: some calibration inputs.
        progress: is told after each group how many of how many are done.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    wanted = _outputs(analysis.model.runnable, feeds)
    found = {}
    for number, group in enumerate(groups):
        free = np.flatnonzero(~group.pinned)
        count = min(max(1, int(SHARE * group.size)), len(free), group.size - 1)
        gone = free[np.argsort(rankings[group.id].scores[free], kind="stable")][:count]
        reached = _distance(wanted, _outputs(_without(analysis, group, gone, contractions), feeds))
        foreseen = max(float(rankings[group.id].errors[count]), _LEAST)
        weight = np.sqrt(max(reached, _LEAST) / foreseen)
        found[group.id] = Ranking(rankings[group.id].scores, rankings[group.id].errors * weight)
        progress(number + 1, len(groups))
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
        weight = _adjusted(contraction, kept)
        if product.matrix(held).shape == weight.shape:
            editor.renew(product.weight, product.weight_of(weight, held))
            if not product.inner:
                product.shift(editor, pruned, _shift(contraction, kept, weight))
    return editor.finish()


def _adjusted(contraction: Contraction, kept: IntArray) -> FloatArray:
    """Weights of the rows that stay, by least squares towards what all rows make."""
    gram = damped(contraction.gram)
    found = np.linalg.solve(gram[:, kept[:, None], kept], gram[:, kept] @ contraction.matrix)
    return np.asarray(found, np.float64)


def _shift(contraction: Contraction, kept: IntArray, weight: FloatArray) -> FloatArray:
    """What the bias gains: the mean of what all rows make, less that of what stays."""
    whole = np.einsum("gi,gio->go", contraction.mean, contraction.matrix)
    return np.asarray(whole - np.einsum("gi,gio->go", contraction.mean[:, kept], weight), np.float64)


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
    return float(np.mean(errors)) if errors else _LEAST
