"""Plan and model in, model out. Chooses nothing.

Slices and reorders constants, refits attributes and shape operands, and leaves everything else as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from graphprune.analysis import Analysis
from graphprune.analysis import verify as well_formed
from graphprune.analysis.ordering import Orders
from graphprune.analysis.origins import readers
from graphprune.model import Model, Source, Use
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Shape, Values
from graphprune.rewrite import corrections
from graphprune.rewrite.operands import Refit
from graphprune.rewrite.plan import AttributeChange, GroupPlan, Plan, Slice
from graphprune.rewrite.removal import Removal, Selection
from graphprune.rewrite.verify import verify

Cuts = dict[int, IntArray]
"""Elements by axis: those that are removed, or those that stay in their new order."""
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f/\\]")
"""What no name of a file holds in a plan: a model that was given in memory goes by the name of its graph."""


@dataclass
class Rewritten:
    """A pruned model and what was done to it."""

    model: Model
    plan: Plan
    removal: Removal


def rewrite(analysis: Analysis, selection: Selection, orders: Orders | None = None) -> Rewritten:
    """Remove classes, and let others change places.

    Args:
        analysis: of the original.
        selection: removed classes by group id.
        orders: by group id the classes that stay in their new order.

    Raises:
        InputError: the selection names no group, a pinned class, or everything.
    """
    orders = orders or {}
    removal = Removal(analysis, selection, orders)
    editor = Editor(analysis.model)
    plan = Plan(model=described(analysis))
    for id in dict.fromkeys([*selection, *orders]):
        group = analysis.group(id)
        assert group is not None
        classes = sorted(int(c) for c in selection.get(id, ()))
        order = [int(c) for c in orders[id]] if id in orders else None
        if classes or order:
            plan.groups.append(GroupPlan(id, group.kind, group.size, group.statistical, classes, order))
    if plan.groups:
        scales = corrections.apply(removal, editor, plan)
        cut = _slice_constants(removal, editor, plan, scales)
        _attributes(removal, editor)
        Refit(removal, editor).run()
        plan.attributes = [
            AttributeChange(next(o for o in editor.model.nodes[i].output if o), name, before, after)
            for i, name, before, after in sorted(editor.attributes, key=lambda change: change[:2])
        ]
        _declared_shapes(removal, editor, cut)
        plan.interface = _interface(removal, editor)
        lost = [tensor for tensor in analysis.web.axis_of if removal.of(tensor)]
        roots = {analysis.root(tensor) for tensor in lost if isinstance(tensor, Use)}
        editor.shrunk = {tensor for tensor in lost if isinstance(tensor, str)}
        editor.shrunk |= {name for name in analysis.model.constant_names if analysis.model.root(name) in roots}
    if well_formed.always:
        verify(analysis, plan)
    return Rewritten(editor.finish() if plan.groups else analysis.model.source, plan, removal)


def resized(analysis: Analysis, selection: Selection) -> Refit:
    """What removal makes of nodes, without cutting any constant: for questions about shapes, at a fraction of the cost.

    Returns:
        The nodes with their attributes and operands (``editor.nodes``), what these hold, and the removal behind it.

    Raises:
        InputError: as :func:`rewrite`.
    """
    removal = Removal(analysis, selection)
    refit = Refit(removal, Editor(analysis.model))
    _attributes(removal, refit.editor)
    refit.run()
    return refit


def described(analysis: Analysis) -> dict[str, Any]:
    """What a plan says of the model that it is for."""
    return {
        "file": _NO_NAME.sub("_", analysis.model.name),
        "sha256": analysis.model.sha256,
        "witness": {n: list(s) for n, s in analysis.witness.inputs.items()},
    }


def _slice_constants(removal: Removal, editor: Editor, plan: Plan, scales: Mapping[Use, float]) -> dict[str, Shape]:
    """Cut and scale every constant that needs it; returns the new shapes of those that keep their names."""
    model, net = removal.analysis.model, removal.analysis.web
    by_root: dict[str, list[tuple[Use, Cuts]]] = {}
    renewed: dict[str, Shape] = {}
    for tensor in net.axis_of:
        if isinstance(tensor, Use):
            by_root.setdefault(removal.analysis.root(tensor), []).append((tensor, removal.of(tensor)))
    for root, uses in by_root.items():
        variants: dict[object, tuple[Cuts, Cuts, float, list[Use]]] = {}
        for use, cuts in uses:
            scale, order = scales.get(use, 1.0), removal.reordered(use)
            if model.sources[root].kind == "fill":
                order = {}  # one number everywhere
            if cuts or order or scale != 1.0:
                key = _key(cuts), _key(order), scale
                variants.setdefault(key, (cuts, order, scale, []))[3].append(use)
        if not variants:
            continue
        read, beyond = readers(model, root)
        alone = len(variants) == 1 and not beyond and set(read) == set(next(iter(variants.values()))[3])
        for cuts, order, scale, changed in variants.values():
            result = _cut(editor, model.sources[root], cuts, order, scale, alone, min(u.node for u in changed))
            if result == root:
                renewed[root] = _left(model.sources[root], cuts)
            for use in changed:
                if result != root:
                    editor.redirect(use.node, use.input, result)
                plan.slices.append(
                    Slice(
                        consumer=next(o for o in model.nodes[use.node].output if o),
                        input=use.input,
                        source=root,
                        result=result,
                        removed={str(a): [int(e) for e in c] for a, c in sorted(cuts.items())},
                        scaled=scale if scale != 1.0 else None,
                        order={str(a): [int(e) for e in o] for a, o in sorted(order.items())} or None,
                    )
                )
    place = {o: i for i, n in enumerate(model.nodes) for o in n.output}
    plan.slices.sort(key=lambda s: (place[s.consumer], s.input))
    return renewed


def _key(elements: Cuts) -> bytes:
    return b"".join(bytes([a]) + e.tobytes() for a, e in sorted(elements.items()))


def _left(source: Source, cuts: Cuts) -> Shape:
    """Shape of a constant without the removed elements."""
    return tuple(size - len(cuts.get(a, ())) for a, size in enumerate(source.shape))


def _cut(editor: Editor, source: Source, cuts: Cuts, order: Cuts, scale: float, in_place: bool, before: int) -> str:
    """The constant without the removed elements, reordered and scaled, under its own name or a new one."""
    model = editor.model
    shape = _left(source, cuts)
    name = source.name if in_place else ""
    if source.kind == "fill" and scale == 1.0:
        assert source.node is not None
        node = editor.nodes[source.node]
        sizes = np.asarray(shape, dtype=np.int64)
        if name and editor.renew(node.input[0], sizes):
            return name
        size = editor.constant(node.input[0], sizes, source.node)
        if name:
            editor.redirect(source.node, 0, size)
            return name
        copy = helper.make_node("ConstantOfShape", [size], [editor.name(source.name)])
        copy.attribute.extend(node.attribute)
        editor.insert(copy, source.node)
        return str(copy.output[0])

    def value() -> Values:
        array = model.array(source.name)
        for axis, gone in cuts.items():
            if axis not in order:
                stays = np.ones(array.shape[axis], bool)
                stays[gone] = False
                array = np.take(array, np.flatnonzero(stays), axis)
        for axis, kept in order.items():
            array = np.take(array, kept, axis)
        if scale != 1.0:
            array = (array * scale).astype(array.dtype)
        return np.asarray(array, order="C")

    if source.kind == "fill":
        name = ""
    if name and source.kind == "constant":
        assert source.node is not None
        del editor.nodes[source.node].attribute[:]
        editor.nodes[source.node].attribute.append(
            helper.make_attribute("value", numpy_helper.from_array(value(), name))
        )
        return name
    if not name and editor.model.proto.ir_version < 4:
        return editor.constant(source.name, value(), before)
    result = name or editor.name(source.name)
    original = model.initializers.get(source.name)
    editor.initializers[result] = _tensor(result, shape, source.dtype, value, original, editor)
    for declared in editor.proto.graph.input:  # old exporters list initializers as inputs
        if declared.name == result:
            for dim, size_ in zip(declared.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = size_
    return result


def _tensor(
    name: str,
    shape: tuple[int, ...],
    dtype: int,
    value: Callable[[], Values],
    original: TensorProto | None,
    editor: Editor,
) -> TensorProto:
    if original is None or original.data_location != TensorProto.EXTERNAL:
        tensor = numpy_helper.from_array(value(), name)
    else:  # kept outside: read, cut and written one at a time
        tensor = TensorProto(name=name, dims=shape, data_type=dtype)
        tensor.data_location = TensorProto.EXTERNAL  # where it comes from, and no place of its own yet
        tensor.external_data.extend(entry for entry in original.external_data if entry.key == "location")
        editor.lazy[name] = value
    if original is not None:
        tensor.doc_string = original.doc_string
        tensor.metadata_props.extend(original.metadata_props)
    return tensor


def _attributes(removal: Removal, editor: Editor) -> None:
    net = removal.analysis.web
    for i, relation in enumerate(net.relations):
        for name, dims in relation.attributes.items() if relation is not None else ():
            vertices = [net.dim_start[i] + d for d in dims]
            before, after = prod(net.sizes[v] for v in vertices), prod(removal.size(v) for v in vertices)
            if before != after:
                editor.set_attribute(i, name, after)


def _interface(removal: Removal, editor: Editor) -> list[dict[str, Any]]:
    """Inputs and outputs of the graph that shrink: their declared sizes follow."""
    changed = []
    for value in [*editor.proto.graph.input, *editor.proto.graph.output]:
        gone = removal.of(value.name)
        dims = value.type.tensor_type.shape.dim
        if not gone or not dims:
            continue
        before = [d.dim_value or d.dim_param for d in dims]
        for axis, elements in gone.items():
            dims[axis].dim_value -= len(elements)
        after = [d.dim_value or d.dim_param for d in dims]
        changed.append({"name": value.name, "from": before, "to": after})
    return changed


def _declared_shapes(removal: Removal, editor: Editor, cut: dict[str, Shape]) -> None:
    """Shapes written down for tensors inside the graph, constants and their aliases among them."""
    model = removal.analysis.model
    for value in editor.proto.graph.value_info:
        held = editor.initializers.get(value.name)  # one that holds positions may have got another value
        shape = cut.get(model.root(value.name)) or (removal.shape(value.name) if held is None else tuple(held.dims))
        root = model.sources.get(model.root(value.name))
        before = removal.analysis.witness.shape(value.name) if root is None else root.shape
        dims = value.type.tensor_type.shape.dim
        if shape is None or before is None or len(dims) != len(shape):
            continue
        for dim, old, new in zip(dims, before, shape, strict=True):
            if old != new and dim.HasField("dim_value"):
                dim.dim_value = new
