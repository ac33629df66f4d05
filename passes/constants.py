"""Classes whose value no input changes: a scale of zero, a channel of zero weights, and what comes of their biases.

Such a class says nothing, but its removal would take away what it adds to those who read it. So its value times the
weights that read it goes into their biases, which is exact. It is proven in two steps: a node that makes the class
gives the same whatever it is given (that node alone, run on values of any size), and the pruned model gives what the
original gives with only the other classes masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx

from graphprune import proof
from graphprune.analysis import Analysis, Group
from graphprune.editor import Editor
from graphprune.errors import InputError, ProofError
from graphprune.linear import Linear
from graphprune.linears import find
from graphprune.model import Model, Use, node_name
from graphprune.moments import FloatArray
from graphprune.relation import IntArray, Shape, Values
from graphprune.removal import Removal
from graphprune.rewrite import Rewritten, rewrite
from graphprune.run import exposing, generate, part, run, session

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
    for group in groups:
        marks = np.zeros(group.size, bool)
        for use, axis in analysis.weights(group):
            labels = group.labels[net.axis_of[use] + axis]
            classes = np.setdiff1d(_zero(analysis, use, axis, labels, group.size), np.flatnonzero(marks))
            if len(classes):
                marks[_unmoved(analysis, group, use.node, classes)] = True
        if marks.any():
            found[group.id] = np.flatnonzero(marks)
    return found


def _zero(analysis: Analysis, use: Use, axis: int, labels: IntArray, size: int) -> IntArray:
    """Classes of which a constant holds nothing but zeros."""
    source = analysis.model.sources.get(analysis.root(use))
    if source is None:
        return np.zeros(0, int)
    array = analysis.model.array(analysis.root(use))
    if array.dtype.kind not in "fV":
        return np.zeros(0, int)
    others = tuple(a for a in range(array.ndim) if a != axis)
    filled = np.asarray(array != 0).any(axis=others)
    held = labels >= 0
    has = np.zeros(size, bool)
    has[labels[held & filled]] = True
    present = np.zeros(size, bool)
    present[labels[held]] = True
    return np.flatnonzero(present & ~has)


def _unmoved(analysis: Analysis, group: Group, node: int, classes: IntArray) -> IntArray:
    """Those of some classes that a node gives the same of, whatever activations it reads."""
    model, net = analysis.model, analysis.web
    proto = model.nodes[node]
    output = proto.output[0]
    labels = [group.labels.get(net.axis_of[output] + a) for a in range(len(net.shapes[output]))]
    axis = next((a for a, own in enumerate(labels) if own is not None), None)
    reads = list(dict.fromkeys(n for n in proto.input if n and n not in model.constant_names))
    shapes = {n: analysis.witness.shape(n) for n in reads}
    if axis is None or not reads or None in shapes.values():
        return classes[:0]
    try:
        made = [alone(model, node, {n: s for n, s in shapes.items() if s is not None}, k) for k in range(3)]
    except InputError:  # it reads other things than numbers
        return classes[:0]
    own = labels[axis]
    assert own is not None
    found = []
    for c in classes:
        first, *others = (np.take(values, np.flatnonzero(own == c), axis) for _, values in made)
        if all(np.array_equal(first, other) for other in others):
            found.append(c)
    return np.asarray(found, int)


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


def fold(
    analysis: Analysis,
    done: Rewritten,
    pruned: Model,
    found: Constant,
    tries: Sequence[Mapping[str, Shape]],
    prove: bool = True,
    seed: int = 0,
) -> tuple[Model, dict[str, list[int]], proof.Proof | None]:
    """Give the readers of removed constant classes what these have added to them.

    Args:
        analysis: of the original.
        done: the rewrite.
        pruned: the model that came of it.
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
    changes = _changes(analysis, folded, done.removal, seed) if folded else {}
    if not changes:
        return pruned, {}, None
    editor = Editor(pruned)
    linears = {linear.output: linear for linear in find(pruned, shared=True)}
    for output, change in changes.items():
        if output in linears and not linears[output].inner:
            linears[output].shift(editor, pruned, change)
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
    """By output of a linear operator what folded classes add to each of its outputs that stay."""
    net, runs = analysis.web, analysis.model.runs_as or analysis.model
    readers: list[tuple[Linear, np.ndarray]] = []
    for linear in find(analysis.model, shared=True):
        summed = net.axis(linear.node, ("in", 1), linear.summed)
        if summed is None or (linear.backward and linear.groups > 1):
            continue
        marks = np.zeros(net.sizes[summed], bool)
        for id, classes in folded.items():
            group = analysis.group(id)
            labels = None if group is None else group.labels.get(summed)
            marks |= False if labels is None else np.isin(labels, classes)
        if marks.any() and (linear.input in runs.producer or linear.input in {i.name for i in runs.inputs}):
            readers.append((linear, marks))
    values = _values(analysis, [linear for linear, _ in readers], seed)
    found = {}
    for linear, marks in readers:
        value = values[linear.output]
        rows = np.repeat(marks, value.shape[1] // len(marks))
        matrix = linear.matrix(analysis.model.array(linear.weight)).astype(np.float64)
        change = np.einsum("gi,gio->go", np.where(rows & np.isfinite(value), value, 0.0), matrix).reshape(-1)
        outputs = net.axis(linear.node, ("in", 1), linear.made)
        change = change if outputs is None else change[removal.kept(outputs)]
        if change.any():
            found[linear.output] = change
    return found


def _values(analysis: Analysis, linears: Sequence[Linear], seed: int) -> dict[str, FloatArray]:
    """What each row of an operator's input always holds, NaN where that differs; shape ``[groups, sums]``."""
    runs = analysis.model.runs_as or analysis.model
    names = list(dict.fromkeys(n.input for n in linears if n.input in runs.producer))
    found: dict[str, FloatArray] = {}
    with session(exposing(runs, names)) as active:
        for number, shapes in enumerate((analysis.witness.first.inputs, analysis.witness.second.inputs)):
            feeds = generate(runs, shapes, seed + number)
            made = {**feeds, **dict(zip(names, run(active, feeds, names), strict=True))}
            for linear in linears:
                x = made[linear.input]
                chosen, _ = linear.choose(x, 4096, np.random.default_rng(seed))
                rows = linear.rows(x, chosen).astype(np.float64)
                first = found.setdefault(linear.output, rows[:, 0])
                found[linear.output] = np.where((rows == first[:, None]).all(1), first, np.nan)
    return found
