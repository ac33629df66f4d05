"""Blocks taken out: one tensor is read in place of another, and what nothing needs any more goes. Chooses nothing.

Sizes that were measured inside of a block, and are needed outside (a position bias that all layers share), are measured
off the tensor that stays. Where a block holds a state that callers carry round, its inputs and outputs go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from graphprune.analysis import Analysis
from graphprune.analysis.blocks import Block
from graphprune.analysis.dataflow import DataFlow
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.rewrite.plan import BlockPlan


@dataclass
class Bypassed:
    """A model without some blocks.

    Attributes:
        model: the model.
        interface: inputs and outputs of the graph that went, as in a plan: ``to`` is empty.
    """

    model: Model
    interface: list[dict[str, Any]]


def remove(analysis: Analysis, entries: Sequence[BlockPlan], states: Mapping[str, str] | None = None) -> Bypassed:
    """Take blocks out of a model.

    Args:
        analysis: of the original.
        entries: what is replaced by what.
        states: outputs of the graph that may go, each with the input whose state it gives back (see
            ``graphprune.analysis.blocks.carried``).

    Raises:
        InputError: an entry names a tensor that the model does not have.
    """
    flow = DataFlow(analysis, states or {})
    check_entries(analysis, entries)
    editor = Editor(analysis.model)
    instead = {e.output: e.by for e in entries}
    own = [flow.gone(e.exit, e.by if e.kind == "layer" else None, e.by) for e in entries]
    gone = set().union(*own)
    for entry in entries:
        _replace(editor, entry.output, _final(instead, entry.by))
    for entry, nodes in zip(entries, own, strict=True):
        _measure(flow, editor, entry, nodes, gone, instead)
    went = [o for n in sorted(gone) for o in flow.made(n) if o in (states or {})]
    _measure_other_inputs(flow, editor, {(states or {})[o] for o in went})
    return Bypassed(*_finish(editor, went, states or {}))


def check_entries(analysis: Analysis, entries: Sequence[BlockPlan]) -> None:
    """Raise InputError where an entry does not fit the model."""
    model = analysis.model
    there = {i.name for i in model.inputs} | set(model.producer)
    instead: dict[str, str] = {}
    for entry in entries:
        for name in (entry.output, entry.by, entry.exit):
            if name not in there:
                raise InputError(f"{model.name}: block {entry.id!r} does not fit: the model has no tensor {name!r}")
        shapes = {analysis.witness.shape(name) for name in (entry.output, entry.by)}
        if len(shapes) > 1 or entry.output not in model.producer:
            raise InputError(
                f"{model.name}: block {entry.id!r} does not fit: {entry.by!r} cannot stand for {entry.output!r}"
            )
        if entry.output in instead:
            raise InputError(f"{model.name}: block {entry.id!r} does not fit: {entry.output!r} is replaced already")
        if _made_from(model, entry.by, entry.output) or _final(instead, entry.by) == entry.output:
            raise InputError(
                f"{model.name}: block {entry.id!r} does not fit: {entry.by!r} cannot stand for {entry.output!r}: it is "
                "made from it, or replaced by it in the end"
            )
        instead[entry.output] = entry.by


def _made_from(model: Model, name: str, source: str) -> bool:
    """Whether a tensor is another, or is computed from it."""
    first = model.producer[source]
    found, pending = {name}, [name]
    while pending and source not in found:
        maker = model.producer.get(pending.pop(), -1)
        if maker > first:  # what stands before the maker of the other does not read it
            fresh = {*model.nodes[maker].input, *model.captured.get(maker, ())} - found
            found |= fresh
            pending += fresh
    return source in found


def _final(instead: Mapping[str, str], name: str) -> str:
    """What is read in the end, where what replaces a tensor is replaced itself."""
    while name in instead:
        name = instead[name]
    return name


def _replace(editor: Editor, output: str, by: str) -> None:
    model = editor.model
    for use in model.uses.get(output, ()):
        editor.redirect(use.node, use.input, by)
    if output in model.output_names:
        maker = model.producer[output]
        position = list(editor.nodes[maker].output).index(output)
        unread = editor.name(output)
        editor.nodes[maker].output[position] = unread
        editor.touched.add(unread)
        editor.append(helper.make_node("Identity", [by], [output], f"{output}/bypass"), maker)
    editor.touched.add(output)


def _measure(
    flow: DataFlow,
    editor: Editor,
    entry: BlockPlan,
    own: Iterable[int],
    gone: Set[int],
    instead: Mapping[str, str],
) -> None:
    """Let nodes that stay, and measured something inside, make the same of what stays."""
    for tensor in [o for n in sorted(own) for o in flow.made(n)]:
        for reader in flow.readers.get(tensor, ()):
            if reader in gone or not flow.measures(reader) or tensor not in editor.nodes[reader].input:
                continue
            sizes = flow.measured_off(reader, [entry.by, *flow.lasting])
            if sizes is not None:
                _tell(editor, reader, sizes, flow, instead)


def _measure_other_inputs(flow: DataFlow, editor: Editor, going: Set[str]) -> None:
    """Let nodes that measured a state that goes (the length of the first layer's cache) measure one that stays."""
    others = [i.name for i in editor.model.inputs if i.name not in going]
    for name in sorted(going):
        for reader in flow.readers.get(name, ()):
            sizes = flow.measured_off(reader, others) if flow.measures(reader) else None
            if sizes is not None and name in editor.nodes[reader].input:
                _tell(editor, reader, sizes, flow, {})


def _tell(
    editor: Editor, node: int, sizes: Sequence[tuple[str, int]], flow: DataFlow, instead: Mapping[str, str]
) -> None:
    """Replace a node that measures: each entry is taken from the size of a tensor that stays, or is fixed."""
    (output,) = flow.made(node)
    value = flow.analysis.witness.first.values[output]
    parts: list[str] = []
    start: dict[str, int] = {}
    length = 0
    for tensor in dict.fromkeys(t for t, _ in sizes if t):
        parts.append(editor.name(f"{output}/size"))
        editor.insert(helper.make_node("Shape", [_final(instead, tensor)], [parts[-1]]), node)
        start[tensor], length = length, length + len(flow.shape(tensor)[0] or ())
    fixed = [size for tensor, size in sizes if not tensor]
    parts.append(editor.constant(output, np.array(fixed, np.int64), node))
    place = iter(range(length, length + len(fixed)))
    index = np.array([start[t] + axis if t else next(place) for t, axis in sizes], np.int64).reshape(value.shape)
    whole, picked = editor.name(f"{output}/sizes"), editor.name(f"{output}/picked")
    editor.insert(helper.make_node("Concat", parts, [whole], axis=0), node)
    editor.insert(helper.make_node("Gather", [whole, editor.constant(output, index, node)], [picked], axis=0), node)
    old = editor.nodes[node]
    editor.touched.update(n for n in old.input if n)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    old.CopyFrom(helper.make_node("Cast", [picked], [output], old.name, to=kind))


def _finish(editor: Editor, outputs: Sequence[str], states: Mapping[str, str]) -> tuple[Model, list[dict[str, Any]]]:
    """The model without what is unused; states that went are listed."""
    dropped = set(outputs)
    went = [{"name": o.name, "from": _dims(o), "to": []} for o in editor.proto.graph.output if o.name in dropped]
    kept = [o for o in editor.proto.graph.output if o.name not in dropped]
    del editor.proto.graph.output[:]
    editor.proto.graph.output.extend(kept)
    editor.touched.update(dropped)
    model = editor.finish()
    read = {name for n in model.graph.node for name in n.input} | set(model.output_names)
    unused = {states[o] for o in outputs} - read
    went = [{"name": i.name, "from": _dims(i), "to": []} for i in model.graph.input if i.name in unused] + went
    inputs = [i for i in model.graph.input if i.name not in unused]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return Model(model.proto, model.path, lazy=model.lazy), went


def _dims(value: Any) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def resolve(analysis: Analysis, blocks: Sequence[Block]) -> list[BlockPlan]:
    """What to replace for several blocks at once.

    A block within another needs no entry of its own. Where both operands of a sum go, the sum goes too, out of the sum
    that it is an operand of.

    Raises:
        InputError: two blocks overlap and neither is within the other, or nothing would be left of a sum.
    """
    flow = DataFlow(analysis)
    outer = [b for b in blocks if not any(set(b.nodes) < set(other.nodes) for other in blocks)]
    for k, one in enumerate(outer):
        for two in outer[k + 1 :]:
            shared = set(one.nodes) & set(two.nodes)
            if shared and not (one.kind == two.kind == "branch" and one.output == two.output):
                raise InputError(
                    f"{analysis.model.name}: blocks {one.id!r} and {two.id!r} overlap; remove one of them, or a block "
                    "that holds both"
                )
    pending = [BlockPlan(b.id, b.kind, b.output, b.by, b.exit) for b in outer]
    found: list[BlockPlan] = []
    while pending:
        entry = pending.pop(0)
        twin = next((e for e in pending if e.kind == entry.kind == "branch" and e.output == entry.output), None)
        if twin is None:
            found.append(entry)
            continue
        pending.remove(twin)
        pending.append(_sum_without(flow, entry, twin))
    return found


def _sum_without(flow: DataFlow, one: BlockPlan, two: BlockPlan) -> BlockPlan:
    """The entry for a sum of which both operands go."""
    model, readers = flow.analysis.model, flow.readers.get(one.output, [])
    relation = flow.analysis.web.relations[readers[0]] if len(readers) == 1 else None
    if relation is None or not relation.joint or one.output in model.output_names:
        raise InputError(
            f"{model.name}: blocks {one.id!r} and {two.id!r} are both operands of one sum, and nothing would be left "
            "of it; remove one of them"
        )
    (other,) = [n for n in model.nodes[readers[0]].input if n != one.output]
    output = model.nodes[readers[0]].output[0]
    return BlockPlan(f"{one.id} + {two.id}", "branch", output, other, one.output)
