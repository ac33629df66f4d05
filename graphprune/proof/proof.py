"""Masked equivalence: the original with the removed slices zeroed must do what the pruned model does.

The masked model is made from the plan alone, so that a wrong rewrite cannot hide in a wrong analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from graphprune.analysis.web import Positions
from graphprune.errors import InputError, ProofError
from graphprune.model import Model, control, node_name
from graphprune.proof import steady
from graphprune.proof.difference import OutputError, check_repeatable, compare, difference, says_nothing
from graphprune.proof.masking import mask
from graphprune.proof.runs import Run, provable, run_masked
from graphprune.relation import Shape, Values
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.removal import Removal
from graphprune.run.portions import run_all
from graphprune.run.runtime import exposing


@dataclass
class Rounded:
    """The same two models as they run, with the rounding that the proof leaves out: reported, and not judged.

    Attributes:
        whole: whether all rounding was left out; else there are operators that round in the proof too, and its
            tolerance allows two steps.
        steps: the most steps that a quantised tensor is off.
        outputs: errors by output.
    """

    whole: bool
    steps: int
    outputs: list[OutputError]


@dataclass
class Proof:
    """A proof that held.

    Attributes:
        inputs: seeds and shapes of the generated inputs.
        outputs: errors by output.
        statistical: ids of statistical groups: in the masked original their statistics saw only what stays.
        plain: errors by output against the plainly masked original: what statistical groups cost, where there are any.
        rounded: where the rounding of activations was taken out of both models, how far they are apart with it.
        drawn: names of nodes that draw at random, in whose place both models had a fixed noise.
    """

    inputs: list[dict[str, Any]]
    outputs: list[OutputError]
    statistical: list[str] = field(default_factory=list)
    plain: list[OutputError] = field(default_factory=list)
    rounded: Rounded | None = None
    drawn: list[str] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The largest relative error of any output."""
        return max((o.max_rel for o in self.outputs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the plan."""
        data: dict[str, Any] = {"inputs": self.inputs, "outputs": _without_none(self.outputs)}
        if self.statistical:
            data |= {"statistical": self.statistical, "plain": _without_none(self.plain)}
        if self.rounded is not None:
            errors = _without_none(self.rounded.outputs)
            data |= {"unrounded": self.rounded.whole, "rounded": {"steps": self.rounded.steps, "outputs": errors}}
        if self.drawn:
            data["drawn"] = self.drawn
        return data


def _without_none(errors: Sequence[OutputError]) -> list[dict[str, Any]]:
    return [{k: v for k, v in asdict(e).items() if v is not None} for e in errors]


def prove(
    original: Model,
    pruned: Model,
    plan: Plan,
    removal: Removal,
    shapes: Sequence[Mapping[str, Shape]],
    seed: int = 0,
    edges: Sequence[Mapping[str, Shape]] = (),
) -> Proof:
    """Compare the pruned model with the masked original, both without rounding and chance where these can be taken out.

    Where statistical groups were pruned, the masked original lets their statistics see what stays alone, so that these
    groups are proven like any other; how far the result is from the plainly masked original is reported beside it.

    Args:
        original, pruned: the models.
        plan: what was removed.
        removal: the same by axis, to name the first tensor that differs.
        shapes: input shapes to run at; the first two that the original accepts are taken.
        seed: of the generated inputs.
        edges: further shapes, at each of which they are compared where the original accepts it: a cache without a past.

    Inputs that say which branch is taken (see :func:`graphprune.run.runtime.switches`) are tried both ways.

    Raises:
        ProofError: they differ; names the first tensor that does.
        InputError: ONNX Runtime cannot run the original.
    """
    statistical = [g.id for g in plan.groups if g.statistical and g.removed]
    rounded = mask(original, plan, removal, filled=True), pruned
    taken = steady.find_steady(removal.analysis)
    masked, pruned = map(taken, rounded)
    names = original.output_names
    errors = {name: OutputError(name, 0.0, 0.0) for name in names}
    inputs, runs = run_masked(original, masked, shapes, seed, edges)
    failed: tuple[str, str, dict[str, Values]] | None = None
    rounds = taken.rounds or _writes_halves(original, rounded[1], plan)
    results = _run_pruned(pruned, [_fed(removal, feeds) for feeds, _ in runs])
    for (feeds, expected), found in zip(runs, results, strict=True):
        for name, a, b in zip(names, expected, found, strict=True):
            wanted = restrict(np.asarray(a), name, removal)
            trouble = compare(errors[name], wanted, np.asarray(b), rounds)
            if trouble is not None:
                check_repeatable(masked, feeds)
            if wanted.shape == np.shape(b) and (trouble is not None or says_nothing(wanted)):
                trouble = _compare_before(errors[name], masked, pruned, removal, feeds, trouble, rounds)
            if trouble is not None and failed is None:
                failed = (name, trouble, feeds)
    if failed is not None:
        name, trouble, feeds = failed
        where = first_difference(masked, pruned, removal, feeds, rounds)
        raise ProofError(f"{original.name}: the proof fails: output {name!r} {trouble}; {where}. Nothing was written.")
    plain = _plain_errors(taken(mask(original, plan, removal)), removal, runs, results) if statistical else []
    beside = _rounded(*rounded, removal, [feeds for feeds, _ in runs], taken) if taken.unrounded else None
    drawn = [node_name(removal.analysis.model, i) for i in taken.drawn]
    return Proof(inputs, list(errors.values()), statistical, plain, beside, drawn)


def _plain_errors(
    masked: Model, removal: Removal, runs: Sequence[Run], results: Sequence[list[Any]]
) -> list[OutputError]:
    """How far the pruned model is from the plainly masked original, whose statistics run over the masked zeros too."""
    errors = {name: OutputError(name, 0.0, 0.0) for name in removal.analysis.model.output_names}
    plain = run_all(masked, [feeds for feeds, _ in runs])
    for expected, found in zip(plain, results, strict=True):
        for name, a, b in zip(errors, expected, found, strict=True):
            compare(errors[name], restrict(np.asarray(a), name, removal), np.asarray(b))
    return list(errors.values())


def _rounded(
    masked: Model, pruned: Model, removal: Removal, feeds: Sequence[Mapping[str, Values]], taken: steady.Steady
) -> Rounded:
    """How far the two models are apart as they run, with the rounding that the proof leaves out."""
    names = removal.analysis.model.output_names
    steps = [s for s in taken.steps if s in masked.producer and s in pruned.producer]
    found = Rounded(not taken.rounds, 0, [OutputError(name, 0.0, 0.0) for name in names])
    asked = [*names, *steps]
    with provable():  # first: what it refuses is no fault of the pruned model
        wanted = run_all(exposing(masked, steps), feeds, asked)
    results = _run_pruned(exposing(pruned, steps), [_fed(removal, f) for f in feeds], asked)
    for ours, theirs in zip(wanted, results, strict=True):
        pairs = [
            (restrict(np.asarray(a), name, removal), np.asarray(b))
            for name, a, b in zip(asked, ours, theirs, strict=True)
        ]
        for error, (a, b) in zip(found.outputs, pairs, strict=False):
            compare(error, a, b)
        for a, b in pairs[len(names) :]:
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64)) if a.shape == b.shape else np.zeros(0)
            found.steps = max(found.steps, int(apart.max(initial=0)))
    return found


def _fed(removal: Removal, feeds: Mapping[str, Values]) -> dict[str, Values]:
    """Inputs of the pruned model: where its interface has shrunk, what stays of the original's."""
    return {name: restrict(value, name, removal) for name, value in feeds.items()}


def _run_pruned(
    pruned: Model, feeds: Sequence[Mapping[str, Values]], names: Sequence[str] | None = None
) -> list[list[Any]]:
    try:
        return run_all(pruned, feeds, names)
    except InputError as error:
        raise ProofError(
            f"{error} (this is the pruned model; the masked original runs on the same inputs). Nothing was written."
        ) from error


def _writes_halves(original: Model, pruned: Model, plan: Plan) -> bool:
    """Whether a number that the original computes is written out in bfloat16, which a run in float32 does not round."""
    fresh = set(pruned.sources) - set(original.sources) - {s.result for s in plan.slices}
    return any(pruned.sources[name].dtype == TensorProto.BFLOAT16 for name in fresh)


def _compare_before(
    total: OutputError,
    masked: Model,
    pruned: Model,
    removal: Removal,
    feeds: Mapping[str, Values],
    trouble: str | None,
    rounds: bool,
) -> str | None:
    """Compare an output by the tensors that enter its untouched tail; what follows is the same in both models.

    Args:
        trouble: what is wrong with the output itself; None where it is one value everywhere.
        rounds: as in :func:`difference`.
    """
    names = tail(removal, total.name)
    fed = _fed(removal, feeds)
    if any(name not in masked.producer for name in names):  # it is in a branch
        masked, pruned = _resolved(masked, feeds), _resolved(pruned, fed)
        names = [n for n in names if n in masked.producer or not _branched(removal, n)]  # else it is not computed
    if names in ([], [total.name]) or any(name not in m.producer for name in names for m in (masked, pruned)):
        total.constant = True if trouble is None else None
        return trouble
    (left,), (right,) = run_all(exposing(masked, names), [feeds], names), run_all(exposing(pruned, names), [fed], names)
    results = list(zip(names, left, right, strict=True))
    at_tail = OutputError(total.name, total.max_abs, 0.0, ", ".join(names))
    for name, a, b in results:
        wrong = compare(at_tail, restrict(np.asarray(a), name, removal), np.asarray(b), rounds)
        if wrong is not None:
            return f"is off by {total.max_rel:.2g} relative, and {name!r} before it {wrong}"
    if trouble is None and all(says_nothing(restrict(np.asarray(a), name, removal)) for name, a, _ in results):
        total.constant = True
    else:
        total.max_rel, total.compared_at = at_tail.max_rel, at_tail.compared_at
    return None


def _resolved(model: Model, feeds: Mapping[str, Values]) -> Model:
    """The model with the branch in place of each If that these inputs take, so that what is inside can be compared."""
    while conditions := control.conditions(model.graph):
        taken = {n: bool(model.array(model.root(n))) for n in conditions if model.root(n) in model.sources}
        computed = [n for n in conditions if n in model.producer and n not in taken]
        if computed:
            taken.update(
                zip(computed, map(bool, run_all(exposing(model, computed), [feeds], computed)[0]), strict=True)
            )
        model = Model(control.inline_branches(model.proto, taken), model.path, lazy=model.lazy)
    return model


def _branched(removal: Removal, name: str) -> bool:
    """Whether a tensor is in nothing but branches: a loop's steps cannot be told apart."""
    model = removal.analysis.model
    home = 0 if model.layout is None else model.layout.of(model.nodes[model.producer[name]])
    while model.layout is not None and home:
        if "branch" not in model.layout.bodies[home].attribute:
            return False
        home = model.layout.bodies[home].inside
    return True


def tail(removal: Removal, output: str) -> list[str]:
    """The tensors before an output behind which no node has lost anything, in the order of the nodes."""
    net, model = removal.analysis.web, removal.analysis.model
    touched: set[int] = set()
    for vertex in [*removal.gone, *removal.moved]:
        touched.update(edge.node for edge in net.edges[vertex])
    front, found, seen = [output], set(), {output}
    while front:
        name = front.pop()
        node = model.producer.get(name)
        if node is None or name in model.constant_names or name in removal.analysis.witness.first.values:
            continue
        if node in touched or name not in net.axis_of:
            found.add(name)
            continue
        fresh = [n for n in model.nodes[node].input if n and n not in seen]
        seen.update(fresh)
        front += fresh
    return sorted(found, key=lambda n: model.producer[n])


def restrict(value: Values, name: str, removal: Removal) -> Values:
    """An activation of the original without its removed elements, in the new order."""
    start = removal.analysis.web.axis_of.get(name)
    if start is None:
        return value
    for axis in range(value.ndim):
        if removal.touches(start + axis):
            value = np.take(value, removal.kept(start + axis), axis)
    counted = removal.analysis.web.axis_of.get(Positions(name))
    if counted is not None and removal.touches(counted):
        place = np.zeros(removal.analysis.web.sizes[counted], value.dtype)
        place[removal.kept(counted)] = np.arange(removal.size(counted))
        value = place[value.astype(np.int64)]
    return value


def first_difference(
    masked: Model, pruned: Model, removal: Removal, feeds: Mapping[str, Values], rounds: bool = False
) -> str:
    """The first tensor, in the order of the nodes, where the two models part ways."""
    net = removal.analysis.web
    there = {o for n in pruned.graph.node for o in n.output if o}
    sizes = removal.analysis.witness.first.values  # may differ, as shapes do
    names = [t for t in net.axis_of if isinstance(t, str) and t in there and t in masked.producer and t not in sizes]
    try:
        (left,) = run_all(exposing(masked, names), [feeds], names)
        (right,) = run_all(exposing(pruned, names), [_fed(removal, feeds)], names)
        results = dict(zip(names, zip(left, right, strict=True), strict=True))
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
            _, relative, exceeds = difference(expected, found, rounds)
            if exceeds:
                return f"the first tensor that differs is {label}: off by {relative:.2g} relative"
    return "every tensor inside agrees where it stays"
