"""Whether there is room to run a model: told of shapes alone, before ONNX Runtime allocates anything.

What nodes make is alive from there to its last reader, as ONNX Runtime frees it, which also folds constants when it
loads a model: those that other nodes read are alive all the time. An output may take the place of an input that ends
there. Weights in a file are not counted: they are there, and are mapped. So it is the least that a run needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from graphprune.model import Model, limits, node_name
from graphprune.relation import Shape

_LABELS = 32
"""Bytes that the analysis takes for an element of the longest axis: labels, and what they are compared by."""


def lacking(
    model: Model, shapes: Mapping[str, Shape], types: Mapping[str, int], kept: Iterable[str] = ()
) -> str | None:
    """What to say of a model that has no room to run; None of one that has.

    Args:
        model: the model; its control flow may be laid open.
        shapes, types: of its tensors; what is not known is not counted.
        kept: tensors that are alive to the end, beside the outputs.
    """
    allowed, longest = limits.limit(), limits.limit() // _LABELS
    stored = {name for name, source in model.sources.items() if source.kind != "fill"}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name in types and name not in stored:
            sizes[name] = limits.size(shape, types[name])
            if sizes[name] > allowed:
                return f"{_subject(model, name)} {limits.too_large(shape, types[name])}"
        if max(shape, default=0) > longest:
            taken = limits.too_many(_LABELS * max(shape))
            return f"{_subject(model, name)} {limits.shown(shape)}, and labels of such an axis take {taken}"
    return _together(model, sizes, set(kept)) if sum(sizes.values()) > allowed else None


def _subject(model: Model, name: str) -> str:
    """A tensor by who makes it, as the beginning of a sentence."""
    if name not in model.producer:
        return f"{'initializer' if name in model.initializers else 'input'} {name!r} is"
    index = model.producer[name]
    return f"node {node_name(model, index)!r} ({model.nodes[index].op_type}) makes"


def _together(model: Model, sizes: Mapping[str, int], kept: Set[str]) -> str | None:
    """What to say where all that is alive at once has no room: one pass over the nodes."""
    reads = [dict.fromkeys([*node.input, *model.captured.get(i, ())]) for i, node in enumerate(model.nodes)]
    last = {name: index for index, names in enumerate(reads) for name in names}
    last.update(dict.fromkeys([*model.output_names, *kept], len(reads)))
    always = _always(model, reads, kept) & sizes.keys()
    alive = sum(sizes[name] for name in always)
    if (told := limits.too_many(alive)) is not None:
        most = max(sorted(always), key=sizes.__getitem__)
        return f"{_subject(model, most)} one of {len(always)} tensors that are alive all the time, in {told}"
    for index, node in enumerate(model.nodes):
        ends = [sizes[n] for n in reads[index] if n in sizes and last[n] == index and n not in always]
        made = {n: sizes[n] for n in node.output if n in sizes and n not in always}
        places, fresh = list(ends), 0
        for size in made.values():
            if size in places:
                places.remove(size)
            else:
                fresh += size
        if (told := limits.too_many(alive + fresh)) is not None:
            return f"node {node_name(model, index)!r} ({node.op_type}) runs while tensors are alive that take {told}"
        alive += sum(size for name, size in made.items() if last.get(name, -1) > index) - sum(ends)
    return None


def _always(model: Model, reads: Sequence[Iterable[str]], kept: Set[str]) -> set[str]:
    """What is alive from the first to the last node: inputs, and constants that other nodes or nobody reads."""
    constant = model.constant_names
    folded = [bool(node.output) and node.output[0] in constant for node in model.nodes]
    read = {name for names, own in zip(reads, folded, strict=True) if not own for name in names}
    return {value.name for value in model.inputs} | (constant & (read | kept | {*model.output_names}))
