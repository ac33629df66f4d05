"""Classes whose value no input changes: a scale of zero, a channel of zero weights, and what comes of their biases.

Such a class says nothing, but its removal would take away what it adds to those who read it. So its value times the
weights that read it goes into their biases, which is exact. It is proven in two steps: a node that makes the class
gives the same whatever it is given (a product with zeros; of other operators that node alone, run on values of any
size), and the pruned model gives what the original gives with only the other classes masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

from graphprune.analysis import Analysis, Group
from graphprune.analysis.products import Product, find_products
from graphprune.errors import InputError, ProofError
from graphprune.model import Model, Use, node_name
from graphprune.model.editor import Editor
from graphprune.proof import proof
from graphprune.relation import IntArray, Shape, Values
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.rewrite import Rewritten, rewrite
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import exposing, generate, part, run, session

Constant = dict[str, IntArray]
"""Constant classes by group id."""


def constant(analysis: Analysis, groups: Iterable[Group]) -> Constant:
    """Classes of groups that some node makes constant, whatever it reads.

    Args:
        analysis: of the model.
        groups: the groups.

    Returns:
        Groups with none are left out.
    """
    net, found = analysis.web, {}
    whole: dict[str, bool] = {}  # constants without any zero, which most are
    stills: dict[object, bool] = {}
    for group in groups:
        marks = np.zeros(group.size, bool)
        for use, axis in analysis.weights(group):
            root = analysis.root(use)
            if root not in whole:
                whole[root] = _no_zero(analysis, use)
            if whole[root]:
                continue
            labels = group.labels[net.axis_of[use] + axis]
            classes = np.setdiff1d(_zero(analysis, use, axis, labels, group.size), np.flatnonzero(marks))
            if len(classes) and _stills(analysis, group, use, classes, stills):
                marks[classes] = True
        if marks.any():
            found[group.id] = np.flatnonzero(marks)
    return found


def _no_zero(analysis: Analysis, use: Use) -> bool:
    """Whether a constant is no floats, or none of them is zero."""
    source = analysis.model.sources.get(analysis.root(use))
    if source is None or source.kind == "fill":
        return source is None
    array = analysis.model.array(source.name)
    if array.dtype.kind not in "fV":
        return True
    flat = array.reshape(-1)  # copied in parts that stay in the cache: in a file numbers lie at odd places
    return not any((flat[start : start + _PART].copy() == 0).any() for start in range(0, flat.size, _PART))


_PART = 1 << 14
"""Numbers looked at together."""


def _zero(analysis: Analysis, use: Use, axis: int, labels: IntArray, size: int) -> IntArray:
    """Classes of which a constant holds nothing but zeros."""
    array = analysis.model.array(analysis.root(use))
    others = tuple(a for a in range(array.ndim) if a != axis)
    filled = np.asarray(array != 0).any(axis=others)
    held = labels >= 0
    has = np.zeros(size, bool)
    has[labels[held & filled]] = True
    present = np.zeros(size, bool)
    present[labels[held]] = True
    return np.flatnonzero(present & ~has)


def _stills(analysis: Analysis, group: Group, use: Use, classes: IntArray, known: dict[object, bool]) -> bool:
    """Whether zeros in a constant make what a node gives of some classes the same, whatever activations it reads.

    Args:
        analysis: of the model.
        group: the group of the classes.
        use: the use of the constant that is zero for them.
        classes: the classes.
        known: what is known of operators that were asked before; updated.
    """
    model, net = analysis.model, analysis.web
    proto, relation = model.nodes[use.node], net.relations[use.node]
    start = net.axis_of.get(proto.output[0])
    if start is None or relation is None:
        return False
    shape = net.shapes[proto.output[0]]
    axis = next((a for a in range(len(shape)) if start + a in group.labels), None)
    if axis is None:
        return False
    if relation.macs:  # a product with zeros is zero, if it is a matrix that they are in and no bias
        return sum(bool(a.dims) for a in relation.inputs[use.input] or ()) > 1
    reads = list(dict.fromkeys(n for n in proto.input if n and n not in model.constant_names))
    if not reads or any(analysis.witness.shape(n) != shape for n in reads):
        return False
    small = tuple(
        size if a == axis else 1 for a, size in enumerate(shape)
    )  # a node that works one by one shows it here
    key = (proto.domain, proto.op_type, use.input, small, len(reads), *(a.SerializeToString() for a in proto.attribute))
    if key not in known:
        labels = group.labels[start + axis]
        known[key] = _still(model, use.node, dict.fromkeys(reads, small), axis, np.isin(labels, classes))
    return known[key]


def _still(model: Model, node: int, shapes: Mapping[str, Shape], axis: int, chosen: np.ndarray) -> bool:
    """Whether some elements of an axis of a node's output are the same on several random inputs."""
    try:
        made = [np.compress(chosen, alone(model, node, shapes, seed)[1], axis) for seed in range(4)]
    except InputError:  # it reads other things than numbers
        return False
    return all(np.array_equal(made[0], other) for other in made[1:])


def alone(model: Model, node: int, shapes: Mapping[str, Shape], seed: int) -> tuple[Values, Values]:
    """One node on random values, large and small: its first activation, and its first output.

    Raises:
        InputError: it reads no weight of floats, or does not run on such values.
    """
    rng = np.random.default_rng(seed)
    proto = model.nodes[node]
    weights = [model.sources[n].dtype for n in map(model.root, proto.input) if n in model.sources]
    if not weights:
        raise InputError(f"{model.name}: node {node_name(model, node)!r} reads no constant")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(weights[0])
    inputs = [onnx.helper.make_tensor_value_info(n, weights[0], s) for n, s in shapes.items()]
    makers: list[onnx.NodeProto] = []
    read, pending = set(proto.input), list(proto.input)
    while pending:  # constants that are reached through other nodes
        name = pending.pop()
        if name in model.producer and name in model.constant_names and name not in shapes:
            maker = model.nodes[model.producer[name]]
            makers += [] if maker in makers else [maker]
            read.update(maker.input)
            pending += maker.input
    feeds = {n: (rng.standard_normal(s) * 10.0 ** rng.integers(-2, 3, s)).astype(dtype) for n, s in shapes.items()}
    with session(part(model, [*makers[::-1], proto], read, inputs, [proto.output[0]])) as active:
        return next(iter(feeds.values())), np.asarray(run(active, feeds, [proto.output[0]])[0])


def fold_into_biases(
    analysis: Analysis,
    done: Rewritten,
    found: Constant,
    tries: Sequence[Mapping[str, Shape]],
    prove: bool = True,
    seed: int = 0,
) -> tuple[Model, dict[str, list[int]], proof.Proof | None]:
    """Give the readers of removed constant classes what these have added to them.

    Args:
        analysis: of the original.
        done: the rewrite.
        found: constant classes.
        tries: input shapes to prove at.
        prove: whether to prove it; where the proof fails nothing is folded.
        seed: of the generated inputs.

    Returns:
        The model, which classes were folded, and the proof.
    """
    selection = {g.id: g.removed for g in done.plan.groups}
    folded = {id: [int(c) for c in np.intersect1d(cs, selection.get(id, []))] for id, cs in found.items()}
    folded = {id: classes for id, classes in folded.items() if classes}
    pruned = done.model
    changes = _changes(analysis, folded, done.removal, seed) if folded else {}
    if not changes:
        return pruned, {}, None
    editor = Editor(pruned)
    products = {product.output: product for product in find_products(pruned, analysis.rulings, shared=True)}
    for output, change in changes.items():
        if output in products and not products[output].inner:
            products[output].shift(editor, pruned, change)
    model = editor.finish()
    if not prove:
        return model, folded, None
    others = {id: [c for c in classes if c not in folded.get(id, ())] for id, classes in selection.items()}
    rest = rewrite(analysis, {id: classes for id, classes in others.items() if classes}).plan
    try:
        return model, folded, proof.prove(analysis.model, model, rest, done.removal, tries, seed)
    except ProofError:  # something reads them that no bias stands for: nothing is lost by leaving them out
        return pruned, {}, None


def _changes(
    analysis: Analysis, folded: Mapping[str, Sequence[int]], removal: Removal, seed: int
) -> dict[str, FloatArray]:
    """By output of a product what folded classes add to each of its outputs that stay."""
    runs, rulings = analysis.model.runnable, analysis.rulings
    readers: list[tuple[Product, np.ndarray]] = []
    for product in find_products(analysis.model, rulings, shared=True):
        form = product.form
        summed = rulings.span(product.output, form, form.sums)
        marks = np.zeros(summed.size, bool)
        for id, classes in folded.items():
            group = analysis.group(id)
            labels = None if group is None else summed.labels(group.labels)
            marks |= False if labels is None else np.isin(labels, classes)
        if marks.any() and (product.input in runs.producer or product.input in {i.name for i in runs.inputs}):
            readers.append((product, marks))
    values = _values(analysis, [product for product, _ in readers], seed)
    found = {}
    for product, rows in readers:
        value = values[product.output]
        matrix = product.matrix(analysis.model.array(product.weight)).astype(np.float64)
        change = np.einsum("gi,gio->go", np.where(rows & np.isfinite(value), value, 0.0), matrix).reshape(-1)
        made = rulings.span(product.output, product.form, (*product.form.groups, *product.form.outputs))
        change = change[made.kept(removal.kept)]
        if change.any():
            found[product.output] = change
    return found


def _values(analysis: Analysis, products: Sequence[Product], seed: int) -> dict[str, FloatArray]:
    """What each row of an operator's input always holds, NaN where that differs; shape ``[groups, sums]``."""
    runs = analysis.model.runnable
    names = list(dict.fromkeys(p.input for p in products if p.input in runs.producer))
    found: dict[str, FloatArray] = {}
    with session(exposing(runs, names)) as active:
        for number, shapes in enumerate((analysis.witness.first.inputs, analysis.witness.second.inputs)):
            feeds = generate(runs, shapes, seed + number)
            made = {**feeds, **dict(zip(names, run(active, feeds, names) if names else [], strict=True))}
            for product in products:
                x = made[product.input]
                chosen, _ = product.choose(x, 4096, np.random.default_rng(seed))
                rows = product.rows(x, chosen).astype(np.float64)
                first = found.setdefault(product.output, rows[:, 0])
                # kernels round in more than one way, by where an element lies
                same = np.isclose(rows, first[:, None], rtol=1e-5, atol=1e-6).all(1)
                found[product.output] = np.where(same, first, np.nan)
    return found
