"""Which weights are trained, why others are not, and how they get back into the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from graphprune.analysis import Analysis
from graphprune.analysis.products import FLOATS, find_products
from graphprune.analysis.rulings import first
from graphprune.errors import InputError
from graphprune.gradients.errors import Stop
from graphprune.gradients.training import float_constants, tied
from graphprune.model import Model, naming, node_name
from graphprune.model.editor import Editor
from graphprune.relation import Values

TRAINED = ("weights", "all")


@dataclass(frozen=True)
class Untrained:
    """A weight that is not trained.

    Attributes:
        weight: its name.
        node: that reads it, or that stops its gradient.
        op: the operator of that node.
        reason: why.
    """

    weight: str
    node: str
    op: str
    reason: str

    @classmethod
    def of(cls, stop: Stop) -> Untrained:
        """What the gradient of a weight stops at."""
        return cls(stop.tensor, stop.node, stop.op, stop.reason)

    def __str__(self) -> str:
        return f"{self.weight!r} at {self.op} node {self.node!r}: {self.reason}"


@dataclass(frozen=True)
class Subjects:
    """What is trained.

    Attributes:
        names: of the constants, as the model has them that is laid open.
        free: those of them that are no weights of products: their zeros are numbers like others, and no mask.
        untrained: weights of products that are not trained.
    """

    names: Sequence[str]
    free: Sequence[str]
    untrained: Sequence[Untrained]


def find(
    analysis: Analysis, opened: ModelProto, train: str, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Subjects:
    """The constants to train.

    Args:
        analysis: of the model.
        opened: the same model laid open (see ``graphprune.gradients.expansion``).
        train: one of :data:`TRAINED`.
        include: globs on names of weights: these and no others.
        exclude: globs: not these.

    Raises:
        InputError: there is none, or a glob matches nothing, which is most likely a slip.
    """
    model, there = analysis.model, float_constants(opened)
    products = find_products(model, analysis.rulings, shared=True)
    weights = dict.fromkeys(product.weight for product in products)
    nodes = {product.weight: product.node for product in reversed(products)}
    untrained = _others(analysis, {product.node for product in products})
    for name in weights:
        if name not in there or not _same(model, name, there[name]):
            reason = "it is not found again where the model is laid open for gradients"
            untrained.append(Untrained(name, node_name(model, nodes[name]), model.nodes[nodes[name]].op_type, reason))
    lost = {one.weight for one in untrained}
    if train == "all":
        found = [n for n, t in there.items() if np.prod(t.dims) > 1 and n in model.sources and _same(model, n, t)]
    else:
        found = [name for name in weights if name not in lost]
    for glob in (*include, *exclude):
        if not naming.meets((*found, *lost), [glob]):
            hint = naming.near(glob, (*found, *lost))
            raise InputError(f"{model.name}: {glob!r} matches no weight that could be trained{hint}")
    chosen = [name for name in found if _asked(name, include, exclude)]
    if not chosen:
        why = f": {untrained[0]}" if untrained and not (include or exclude) else ""
        raise InputError(f"{model.name}: it has no float weight that could be trained{why}")
    chosen += _twins(chosen, {n: t for n, t in there.items() if n in model.sources}, exclude)
    return Subjects(chosen, [name for name in chosen if name not in weights], untrained)


def _asked(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return (not include or naming.meets([name], include)) and not naming.meets([name], exclude)


def _same(model: Model, name: str, tensor: TensorProto) -> bool:
    """Whether a constant of the model laid open is the model's own of this name."""
    source = model.sources.get(name)
    return source is not None and source.shape == tuple(tensor.dims) and source.dtype == tensor.data_type


def _twins(chosen: Sequence[str], there: Mapping[str, TensorProto], exclude: Sequence[str]) -> list[str]:
    """Constants that equal one that is trained: they were one, and stay so (an embedding that is read twice)."""
    kinds = {(tuple(there[name].dims), there[name].data_type) for name in chosen}
    alike = {n: numpy_helper.to_array(t) for n, t in there.items() if (tuple(t.dims), t.data_type) in kinds}
    own = set(chosen)
    return [
        name
        for group in tied(alike)
        if own.intersection(group)
        for name in group
        if name not in own and _asked(name, (), exclude)
    ]


def _others(analysis: Analysis, known: set[int]) -> list[Untrained]:
    """Products with a constant that cannot be trained as it is stored."""
    model, found = analysis.model, []
    for index, node in enumerate(model.nodes):
        ruling = analysis.rulings.of(node)
        if index in known or ruling is None or not ruling.forms or not first(node):
            continue
        sources = _sources(model, node.input[ruling.forms[0].w])
        if not sources:
            continue
        largest = max(sources, key=lambda name: np.prod(model.sources[name].shape))
        kind = model.sources[largest].dtype
        reason = "it is computed otherwise than by moving or converting a constant"
        if kind not in FLOATS:
            reason = f"it is stored as {TensorProto.DataType.Name(kind).lower()}; float weights are trained"
        found.append(Untrained(largest, node_name(model, index), node.op_type, reason))
    return found


def _sources(model: Model, name: str) -> list[str]:
    """The constants that a tensor is computed from; none where an input is among what it is computed from."""
    found, ahead = dict[str, None](), [name]
    seen = {name}
    while ahead:
        root = model.root(ahead.pop())
        if root in model.sources:
            found[root] = None
        elif root in model.producer:
            fresh = [n for n in model.nodes[model.producer[root]].input if n and n not in seen]
            seen.update(fresh)
            ahead += fresh
        else:
            return []
    return list(found)


def changed(model: Model, canonical: Model, values: Mapping[str, Values]) -> Model:
    """A model with other values of some constants.

    Args:
        model: it is not changed.
        canonical: the same in canonical form, which has constants of bodies too.
        values: by the names that constants have in the canonical form.
    """
    editor = Editor(model if all(name in model.sources for name in values) else canonical)
    for name, value in values.items():
        if editor.outside(name):
            editor.replace_later(name, lambda value=value: value)  # type: ignore[misc]
        else:
            editor.replace(name, value)
    return editor.finish()
