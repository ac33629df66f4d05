"""Masked equivalence: the original with the removed slices zeroed must do what the pruned model does.

The masked model is made from the plan alone, so that a wrong rewrite cannot hide in a wrong analysis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto

from graphprune.editor import Editor
from graphprune.errors import InputError, ProofError
from graphprune.model import Model, node_name
from graphprune.plan import Plan
from graphprune.relation import Shape, Values
from graphprune.removal import Removal
from graphprune.run import RefusedError, generate, run, session

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
"""Largest relative error by type: rounding of sums taken in another order, nothing more."""


@dataclass
class OutputError:
    """How far one output is from the masked original's, over all runs.

    Attributes:
        name: the output.
        max_abs: largest absolute difference.
        max_rel: that, divided by the largest absolute value of the masked original's output.
        compared_at: where the last operators before the output, which removal has not touched, amplify rounding (a
            saturated sigmoid, a sharp softmax): the tensors before them, whose error ``max_rel`` then is.
    """

    name: str
    max_abs: float
    max_rel: float
    compared_at: str | None = None


@dataclass
class Proof:
    """A proof that held.

    Attributes:
        inputs: seeds and shapes of the generated inputs.
        outputs: errors by output.
        left_out: ids of statistical groups, which no mask can prove.
    """

    inputs: list[dict[str, Any]]
    outputs: list[OutputError]
    left_out: list[str] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest relative error of any output."""
        return max((o.max_rel for o in self.outputs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the plan."""
        return {
            "inputs": self.inputs,
            "outputs": [{k: v for k, v in asdict(o).items() if v is not None} for o in self.outputs],
            "left_out": self.left_out,
        }


def mask(model: Model, plan: Plan) -> Model:
    """The original with every removed slice of the plan set to zero."""
    editor = Editor(model)
    consumers = {o: i for i, n in enumerate(model.nodes) for o in n.output if o}
    made: dict[tuple[str, str], str] = {}
    for entry in plan.slices:
        key = (entry.source, repr(sorted(entry.removed.items())))
        node = consumers[entry.consumer]
        if key not in made:
            value = np.array(model.array(entry.source))
            for axis, gone in entry.removed.items():
                value[(slice(None),) * int(axis) + (gone,)] = 0
            made[key] = editor.constant(entry.source, value, 0)
        editor.redirect(node, entry.input, made[key])
    return editor.finish()


def prove(
    original: Model, pruned: Model, plan: Plan, removal: Removal, shapes: Sequence[Mapping[str, Shape]], seed: int = 0
) -> Proof:
    """Compare the pruned model with the masked original.

    Args:
        original, pruned: the models.
        plan: what was removed.
        removal: the same by axis, to name the first tensor that differs.
        shapes: input shapes to run at; the first two that the original accepts are taken.
        seed: of the generated inputs.

    Raises:
        ProofError: they differ; names the first tensor that does.
        InputError: ONNX Runtime cannot run the original.
    """
    masked = mask(original, plan)
    names = original.output_names
    errors = {name: OutputError(name, 0.0, 0.0) for name in names}
    inputs, runs = _run_masked(original, masked, shapes, seed)
    failed: tuple[str, str, dict[str, Values]] | None = None
    for (feeds, expected), found in zip(runs, _run_pruned(pruned, [feeds for feeds, _ in runs]), strict=True):
        for name, a, b in zip(names, expected, found, strict=True):
            trouble = _compare(errors[name], np.asarray(a), np.asarray(b))
            if trouble is not None and np.shape(a) == np.shape(b):
                trouble = _compare_before(errors[name], masked, pruned, removal, feeds) or None
            if trouble is not None and failed is None:
                failed = (name, trouble, feeds)
    if failed is not None:
        name, trouble, feeds = failed
        where = first_difference(masked, pruned, removal, feeds)
        raise ProofError(f"{original.name}: the proof fails: output {name!r} {trouble}; {where}. Nothing was written.")
    left_out = [g.id for g in plan.groups if g.statistical]
    return Proof(inputs, list(errors.values()), left_out)


@contextmanager
def _provable(masked: Model) -> Iterator[ort.InferenceSession]:
    try:
        with session(masked) as active:
            yield active
    except RefusedError as error:
        raise InputError(f"{error}; without ONNX Runtime there is no proof: --no-proof goes on without one") from error


Run = tuple[dict[str, Values], list[Any]]


def _run_masked(
    original: Model, masked: Model, shapes: Sequence[Mapping[str, Shape]], seed: int
) -> tuple[list[dict[str, Any]], list[Run]]:
    """Inputs and outputs of the masked original at the first two shapes that it accepts."""
    inputs: list[dict[str, Any]] = []
    runs: list[Run] = []
    refused: InputError | None = None
    with _provable(masked) as active:
        for k, chosen in enumerate(shapes):
            feeds = generate(original, chosen, seed + k)
            try:
                runs.append((feeds, run(active, feeds)))
            except InputError as error:
                refused = refused or error
                continue
            inputs.append({"seed": seed + k, "shapes": {n: list(s) for n, s in chosen.items()}})
            if len(runs) == 2:
                break
    if not runs:
        raise refused or InputError(f"{original.name}: no input shape to run the proof at")
    return inputs, runs


def _run_pruned(pruned: Model, feeds: Sequence[Mapping[str, Values]]) -> list[list[Any]]:
    try:
        with session(pruned) as active:
            return [run(active, f) for f in feeds]
    except InputError as error:
        raise ProofError(
            f"{error} (this is the pruned model; the masked original runs on the same inputs). Nothing was written."
        ) from error


def _compare(total: OutputError, expected: Values, found: Values) -> str | None:
    """Add to an output's error; returns what is wrong, or None."""
    if expected.shape != found.shape:
        return f"has shape {found.shape} in place of {expected.shape}"
    absolute, relative, exceeds = difference(expected, found)
    total.max_abs, total.max_rel = max(total.max_abs, absolute), max(total.max_rel, relative)
    return f"is off by {relative:.2g} relative" if exceeds else None


def _compare_before(
    total: OutputError, masked: Model, pruned: Model, removal: Removal, feeds: Mapping[str, Values]
) -> str | None:
    """Compare an output by the tensors that enter its untouched tail; what follows is the same in both models."""
    names = tail(removal, total.name)
    if names == [total.name]:
        return f"is off by {total.max_rel:.2g} relative"
    with session(_exposing(masked, names)) as left, session(_exposing(pruned, names)) as right:
        results = list(zip(names, run(left, feeds, names), run(right, feeds, names), strict=True))
    at_tail = OutputError(total.name, total.max_abs, 0.0, ", ".join(names))
    for name, a, b in results:
        trouble = _compare(at_tail, restrict(np.asarray(a), name, removal), np.asarray(b))
        if trouble is not None:
            return f"is off by {total.max_rel:.2g} relative, and {name!r} before it {trouble}"
    total.max_rel, total.compared_at = at_tail.max_rel, at_tail.compared_at
    return None


def tail(removal: Removal, output: str) -> list[str]:
    """The tensors before an output behind which no node has lost anything, in the order of the nodes."""
    net, model = removal.analysis.web, removal.analysis.model
    touched: set[int] = set()
    for vertex in removal.gone:
        touched.update(edge.node for edge in net.edges[vertex])
    front, found, seen = [output], set(), {output}
    while front:
        name = front.pop()
        node = model.producer.get(name)
        if node is None or name in model.constant_names:
            continue
        if node in touched or name not in net.axis_of:
            found.add(name)
            continue
        fresh = [n for n in model.nodes[node].input if n and n not in seen]
        seen.update(fresh)
        front += fresh
    return sorted(found, key=lambda n: model.producer[n])


def restrict(value: Values, name: str, removal: Removal) -> Values:
    """An activation of the original without its removed elements."""
    start = removal.analysis.web.axis_of[name]
    for axis in range(value.ndim):
        if start + axis in removal.gone:
            value = np.take(value, removal.kept(start + axis), axis)
    return value


def difference(expected: Values, found: Values) -> tuple[float, float, bool]:
    """Largest absolute and relative difference, and whether they exceed the type's tolerance.

    NaN and infinities must stand in the same places.
    """
    kind = str(expected.dtype)
    if expected.dtype.kind in "OUS":
        same = bool((expected == found).all())
        return (0.0, 0.0, False) if same else (1.0, 1.0, True)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if not (np.isfinite(a) == np.isfinite(b)).all() or not np.array_equal(
        a[~np.isfinite(a)], b[~np.isfinite(b)], equal_nan=True
    ):
        return float("inf"), float("inf"), True
    held = np.isfinite(a)
    absolute = float(np.abs(a[held] - b[held]).max(initial=0.0))
    scale = float(np.abs(a[held]).max(initial=0.0))
    relative = absolute / scale if scale > 0 else (0.0 if absolute == 0 else float("inf"))
    return absolute, relative, relative > TOLERANCE.get(kind, 0.0)


def first_difference(masked: Model, pruned: Model, removal: Removal, feeds: Mapping[str, Values]) -> str:
    """The first tensor, in the order of the nodes, where the two models part ways."""
    net = removal.analysis.web
    there = {o for n in pruned.graph.node for o in n.output if o}
    names = [t for t in net.axis_of if isinstance(t, str) and t in there and t in masked.producer]
    try:
        with session(_exposing(masked, names)) as left, session(_exposing(pruned, names)) as right:
            pairs = zip(run(left, feeds, names), run(right, feeds, names), strict=True)
            results = dict(zip(names, pairs, strict=True))
    except InputError as error:
        return f"and the tensors inside cannot be compared ({error})"
    for index, node in enumerate(removal.analysis.model.nodes):
        for name in node.output:
            if name not in results:
                continue
            expected, found = (np.asarray(v) for v in results[name])
            expected = restrict(expected, name, removal)
            label = f"{name!r}, made by node {node_name(removal.analysis.model, index)!r} ({node.op_type})"
            if expected.shape != found.shape:
                return f"the first tensor that differs is {label}: shape {found.shape} in place of {expected.shape}"
            _, relative, exceeds = difference(expected, found)
            if exceeds:
                return f"the first tensor that differs is {label}: off by {relative:.2g} relative"
    return "every tensor inside agrees where it stays"


def _exposing(model: Model, names: Sequence[str]) -> Model:
    probe = ModelProto()
    probe.CopyFrom(model.proto)
    known = {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    return Model(probe, model.path, lazy=model.lazy)
