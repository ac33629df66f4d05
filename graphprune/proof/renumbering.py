"""What was numbered anew is the same model: the original is given old ids in place of new ones, and told to answer so.

The original gets a table in front of each input that holds ids, and picks from each output over ids those that stay;
nothing of the rewrite is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper

from graphprune.analysis import Analysis
from graphprune.analysis.numbers import Numbers
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Values
from graphprune.rewrite.renumber import Head, before_lookups, mapped


def with_old_ids(analysis: Analysis, numbers: Sequence[Numbers], kept: IntArray, heads: Sequence[Head]) -> Model:
    """A model that is given new ids, does what it does with the old ones, and gives its outputs for those that stay.

    Args:
        analysis: of the model.
        numbers: inputs that hold ids.
        kept: the old id of each new one.
        heads: outputs that have an element for each id.

    Raises:
        InputError: an output over ids is not the first that its node makes.
    """
    model = analysis.model
    editor = Editor(model)
    for one in numbers:
        uses = model.uses.get(one.input, [])
        start = min(use.node for use in uses)
        held, old = editor.constant(f"{one.input}/old", kept.astype(np.int64), start), editor.name(f"{one.input}/asked")
        kind = next(i.type.tensor_type.elem_type for i in model.inputs if i.name == one.input)
        found = editor.name(f"{one.input}/found")
        editor.insert(helper.make_node("Gather", [held, one.input], [found]), start)
        editor.insert(helper.make_node("Cast", [found], [old], to=kind), start)
        for use in uses:
            editor.redirect(use.node, use.input, old)
    for head in heads:
        index = model.producer[head.output]
        if model.nodes[index].output[0] != head.output:
            raise InputError(f"{model.name}: output {head.output!r} is not the first that its node makes")
        editor.pick(index, head.axis, kept)
        for declared in editor.proto.graph.output:
            dims = declared.type.tensor_type.shape.dim
            if declared.name == head.output and head.axis < len(dims):
                dims[head.axis].dim_value = len(kept)
    return editor.finish()


def with_unknown(analysis: Analysis, numbers: Sequence[Numbers], kept: IntArray, unknown: int) -> Model:
    """A model that looks up an id for unknown tokens in place of every one that goes."""
    table = np.full(numbers[0].size, unknown, np.int64)
    table[kept] = kept
    return before_lookups(analysis.model, analysis.model, numbers, table)


def compared_with(model: Model, numbers: Numbers, kept: IntArray | None) -> Values:
    """Ids that a model compares an input with, as new ones where ``kept`` says which stay."""
    found = [model.array(model.root(model.nodes[use.node].input[use.input])).reshape(-1) for use in numbers.compared]
    ids = np.unique(np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64))
    ids = ids[(ids >= 0) & (ids < numbers.size)]
    return ids if kept is None else mapped(ids, kept, numbers.size)
