"""The proof that blocks were taken out right: the original, made to do without them, gives the same outputs.

For a branch zeros of its shape stand where its exit is read; for a layer what reads its exit reads its entry. Nothing
is taken out, and nothing is shared with the rewriter but the plan's entries: names of tensors in the model as it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis import Analysis
from graphprune.errors import InputError, ProofError
from graphprune.model import Model, node_name, reread
from graphprune.model.messages import copy_all_but
from graphprune.proof import steady
from graphprune.proof.difference import TOLERANCE, OutputError, check_repeatable, compare, says_nothing
from graphprune.proof.proof import Proof
from graphprune.relation import Shape, Values
from graphprune.rewrite.plan import BlockPlan
from graphprune.run.runtime import RefusedError, exposing, generate, run, session

_WHERE = 9
"""Version of ONNX's operators from which there is a Where."""
_PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
"""Optimisation merges quantisers that come to stand side by side, and rounds otherwise then."""


def bypassed(model: Model, entries: Sequence[BlockPlan], types: Mapping[str, int]) -> Model:
    """The model with every block cut off, and all its nodes still there.

    Args:
        model: the original, as it runs; weights are shared with it.
        entries: what the plan says of the blocks.
        types: ``TensorProto`` data type of each tensor.
    """
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"node"})
    layers = {e.output: e.by for e in entries if e.kind == "layer"}
    branches = {e.exit: types[e.exit] for e in entries if e.kind == "branch"}
    proto.graph.node.extend(_cut(model.nodes, layers, branches, chosen=model.opsets.get("", 1) >= _WHERE))
    for output in proto.graph.output:  # an exit that is an output of the graph has no reader to turn away
        if output.name in layers:
            _rename(proto.graph, output.name, f"{output.name}/cut")
            proto.graph.node.append(helper.make_node("Identity", [_last(layers, output.name)], [output.name]))
    return Model(proto, model.path, lazy=model.lazy)


def _last(layers: Mapping[str, str], name: str) -> str:
    while name in layers:
        name = layers[name]
    return name


def _cut(
    nodes: Sequence[NodeProto], layers: Mapping[str, str], branches: Mapping[str, int], chosen: bool
) -> Iterator[NodeProto]:
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        reread(copy, {name: _last(layers, name) for name in layers} | {name: f"{name}/zero" for name in branches})
        yield copy
        for name in node.output:
            if name in branches:
                yield from _zero(name, branches[name], chosen)


def _zero(name: str, kind: int, chosen: bool) -> Iterator[NodeProto]:
    """Nodes that make ``<name>/zero``, of the shape of a tensor, which need not be finite where one may choose."""
    zero = np.zeros((), helper.tensor_dtype_to_np_dtype(kind))
    yield helper.make_node("Constant", [], [f"{name}/0"], value=numpy_helper.from_array(zero, f"{name}/0"))
    if not chosen or kind not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        yield helper.make_node("Mul", [name, f"{name}/0"], [f"{name}/zero"])
        return
    never = numpy_helper.from_array(np.zeros((), np.bool_), f"{name}/never")
    yield helper.make_node("Constant", [], [f"{name}/never"], value=never)
    yield helper.make_node("Where", [f"{name}/never", name, f"{name}/0"], [f"{name}/zero"])


def _rename(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for k, name in enumerate(node.output):
            if name == old:
                node.output[k] = new


def prove(
    analysis: Analysis,
    removed: Model,
    entries: Sequence[BlockPlan],
    shapes: Sequence[Mapping[str, Shape]],
    seed: int = 0,
) -> Proof:
    """Compare a model without blocks with the original that was made to do without them.

    Args:
        analysis: of the original.
        removed: the model without the blocks.
        entries: what the plan says of the blocks.
        shapes: input shapes to run at; the first two that the original accepts are taken.
        seed: of the generated inputs.

    Raises:
        ProofError: they differ; names the output.
        InputError: ONNX Runtime cannot run the original.
    """
    original = analysis.model.runnable
    names, fed = removed.output_names, {i.name for i in removed.inputs}
    errors = {name: OutputError(name, 0.0, 0.0) for name in names}
    least = TOLERANCE["float16"] if TensorProto.FLOAT16 in analysis.witness.first.types.values() else 0.0
    inputs = []
    taken = steady.find_steady(analysis, rounding=False)
    cut = taken(bypassed(original, entries, analysis.witness.first.types))
    removed = taken(removed)
    with session(cut, _PLAIN) as left, _runnable(removed) as right:
        for k, chosen in enumerate(shapes):
            feeds = generate(analysis.model, chosen, seed + k)
            try:
                expected = run(left, feeds, names)
            except InputError:
                continue
            try:
                found = run(right, {n: v for n, v in feeds.items() if n in fed})
            except InputError as error:
                raise ProofError(f"{error} (this is the model without blocks). Nothing was written.") from error
            try:
                for name, a, b in zip(names, expected, found, strict=True):
                    _compare(analysis.model.name, errors[name], np.asarray(a), np.asarray(b), least)
            except ProofError:
                check_repeatable(cut, feeds, names)
                raise
            if any(says_nothing(np.asarray(value)) for value in expected):
                _compare_inside(cut, removed, feeds, errors, least)
            inputs.append({"seed": seed + k, "shapes": {n: list(s) for n, s in chosen.items()}})
            if len(inputs) == 2:
                break
    if not inputs:
        raise InputError(f"{analysis.model.name}: no input shape to run the proof at; give one by --input-shape")
    return Proof(inputs, list(errors.values()), drawn=[node_name(analysis.model, i) for i in taken.drawn])


def _compare_inside(
    cut: Model, removed: Model, feeds: Mapping[str, Values], errors: Mapping[str, OutputError], least: float
) -> None:
    """Compare every tensor that both models make: an output of one value says little of what it was made of."""
    names = [o for n in removed.nodes for o in n.output if o in cut.producer and o not in removed.constant_names]
    fed = {i.name for i in removed.inputs}
    with session(exposing(cut, names), _PLAIN) as left, session(exposing(removed, names), _PLAIN) as right:
        pairs = zip(names, run(left, feeds, names), run(right, {n: feeds[n] for n in fed}, names), strict=True)
        told = [(n, np.asarray(a), np.asarray(b)) for n, a, b in pairs]
    inside = OutputError("", 0.0, 0.0)
    for name, a, b in told:
        inside.name = name
        _compare(removed.name, inside, a, b, least)
    last = next((n for n, a, _ in reversed(told) if a.dtype.kind == "f" and not says_nothing(a)), None)
    for name, error in errors.items():
        if says_nothing(next((a for n, a, _ in told if n == name), np.zeros(2, np.float32))):
            error.compared_at, error.constant = last, None if last else True
            error.max_rel = max(error.max_rel, inside.max_rel)


@contextmanager
def _runnable(model: Model) -> Iterator[ort.InferenceSession]:
    try:
        with session(model, _PLAIN) as active:
            yield active
    except RefusedError as error:
        raise ProofError(f"{error} (this is the model without blocks). Nothing was written.") from error


def _compare(name: str, total: OutputError, expected: Values, found: Values, least: float) -> None:
    """Add to an output's error.

    Args:
        least: as in :func:`graphprune.proof.difference.compare`.

    Raises:
        ProofError: it exceeds the tolerance of its type.
    """
    trouble = compare(total, expected, found, least=least)
    if trouble is not None:
        raise ProofError(
            f"{name}: the proof fails: without blocks output {total.name!r} {trouble} beside the original with the "
            "blocks cut off. Nothing was written."
        )
