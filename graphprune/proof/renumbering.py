"""What was numbered anew is the same model: the original is given old ids in place of new ones, and told to answer so.

The original gets a table in front of each input that holds ids, and picks from each output over ids those that stay;
nothing of the rewrite is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper

from graphprune.analysis import Analysis
from graphprune.analysis.numbers import Numbers
from graphprune.errors import InputError, ProofError
from graphprune.model import Model
from graphprune.model.editor import Editor
from graphprune.proof.difference import OutputError, compare
from graphprune.proof.proof import Proof
from graphprune.relation import IntArray, Shape, Values
from graphprune.rewrite.renumber import Head, before_lookups, mapped
from graphprune.run.runtime import generate, run, session

_OFTEN = 0.25
"""Share of elements that are numbers which are to come often."""


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


def prove(
    original: Model,
    made: Model,
    shapes: Sequence[Mapping[str, Shape]],
    seed: int,
    what: str,
    often: Mapping[str, Values] | None = None,
) -> Proof:
    """Compare a model with the one that it is numbered like, on ids that both take.

    Args:
        original: the one.
        made: the other.
        shapes: input shapes to run at; the first two that the original accepts are taken.
        seed: of the generated inputs.
        what: what was done, for messages.
        often: by input numbers that are to come often.

    Raises:
        ProofError: they differ; names the output.
        InputError: ONNX Runtime cannot run the original.
    """
    errors = {name: OutputError(name, 0.0, 0.0) for name in original.output_names}
    told: list[dict[str, Any]] = []
    refused: InputError | None = None
    with session(original) as left, session(made) as right:
        for number, chosen in enumerate(shapes):
            feeds = _feeds(original, often or {}, chosen, seed + number)
            try:
                expected = run(left, feeds)
            except InputError as error:
                refused = refused or error
                continue
            told.append({"seed": seed + number, "shapes": {n: list(s) for n, s in chosen.items()}})
            for name, a, b in zip(errors, expected, run(right, feeds), strict=True):
                trouble = compare(errors[name], np.asarray(a), np.asarray(b))
                if trouble is not None:
                    raise ProofError(
                        f"{made.name}: the proof fails: {what} output {name!r} {trouble}. Nothing was written."
                    )
            if len(told) == 2:
                break
    if not told:
        raise refused or InputError(f"{original.name}: no input shape to run the proof at; give one by --input-shape")
    return Proof(told, list(errors.values()))


def _feeds(model: Model, often: Mapping[str, Values], shapes: Mapping[str, Shape], seed: int) -> dict[str, Values]:
    """Generated inputs, in which some numbers come often."""
    feeds, rng = generate(model, shapes, seed), np.random.default_rng(seed)
    for name, numbers in often.items():
        if len(numbers):
            there = rng.random(feeds[name].shape) < _OFTEN
            feeds[name] = np.where(there, rng.choice(numbers, feeds[name].shape), feeds[name]).astype(feeds[name].dtype)
    return feeds
