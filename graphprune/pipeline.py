"""The main jobs as functions: prune a model, replay a plan."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from graphprune import cost, files, proof, shapes
from graphprune.analysis import Analysis, analyze
from graphprune.cost import Cost
from graphprune.errors import InputError, VerdictError
from graphprune.model import AnyModel, Model, load
from graphprune.passes import magnitude
from graphprune.passes import ratio as by_ratio
from graphprune.passes.ratio import Untouched
from graphprune.plan import Plan
from graphprune.plan import load as load_plan
from graphprune.relation import Shape
from graphprune.rewrite import Rewritten, rewrite
from graphprune.verdict import Checks, Verdict, validate


@dataclass
class Result:
    """What a run of :func:`prune` or :func:`apply` did.

    Attributes:
        model: the pruned model.
        plan: everything that was done to it.
        analysis: of the original.
        before, after: costs.
        proof: how far the pruned model is from the masked original; None where no proof was asked for.
        untouched: prunable groups of which nothing was removed, and why.
        output: the file written, None where none was asked for.
        seconds: time taken, by step.
        verdict: what validation found; None where none was asked for.
    """

    model: Model
    plan: Plan
    analysis: Analysis
    before: Cost
    after: Cost
    proof: proof.Proof | None
    untouched: list[Untouched] = field(default_factory=list)
    output: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now


def prune(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    ratio: float,
    align: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    allow_io: bool = False,
    input_shapes: Mapping[str, Shape] | None = None,
    prove: bool = True,
    seed: int = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
) -> Result:
    """Remove the least important classes of every exact group of a model.

    Args:
        model: a path, a ``ModelProto`` or a loaded model; it is not changed.
        output: where to write the pruned model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        ratio: share of each group's classes to remove, in [0, 1).
        align: widths that remain are rounded up to a multiple of this; by default to a multiple of 4, or of 2, where
            that costs little of a group (see ``graphprune.passes.ratio.ALIGNMENTS``).
        include, exclude: globs on group ids and node names.
        allow_statistical: prune statistical groups too: a mean runs over them, so removal leaves an error, which the
            proof reports.
        allow_io: let inputs and outputs of the graph shrink: those that carry a state round (a cache of keys and
            values), and others where ``include`` names their group.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.
        plan: where to write the plan instead.
        checks: judge the pruned model by :func:`graphprune.validate` before it is written; None does not.

    Raises:
        InputError: bad model or arguments, or nothing can be removed.
        ProofError: the pruned model is not what the masked original is; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, which is not installed.
    """
    clock = _Clock()
    by_ratio.check(ratio, align)  # before the model is read
    loaded = load(model)
    _check_output(loaded, output)
    clock.lap("load")
    analysis = analyze(loaded, input_shapes, allow_io=allow_io)
    groups, left = by_ratio.candidates(analysis, include, exclude, allow_statistical, ratio or 0.5)
    clock.lap("analyze")
    scores = magnitude.score(analysis, groups) if ratio else {}
    chosen = by_ratio.select(analysis, groups, scores, ratio, align)
    chosen.untouched = left + chosen.untouched
    if ratio and not chosen.selection:
        raise InputError(_nothing(analysis, chosen.untouched, ratio))
    clock.lap("select")
    done = rewrite(analysis, chosen.selection)
    for entry in done.plan.groups:
        entry.score = [round(float(s), 6) for s in scores[entry.id]]
    clock.lap("rewrite")
    return _finish(analysis, done, output, plan, prove, seed, input_shapes, chosen.untouched, clock, checks)


def apply(
    plan: str | os.PathLike[str] | Plan,
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    prove: bool = True,
    seed: int = 0,
) -> Result:
    """Redo a plan on the same model, or on another precision of it.

    Args:
        plan: a plan file, or a plan. Its groups say what to remove; its slices, where there are any, must be what
            these groups come to.
        model: the model.
        output: where to write the pruned model and, beside it, the plan of this run.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.

    Raises:
        InputError: the plan does not fit the model; says at which group.
        ProofError: the pruned model is not what the masked original is; nothing was written.
    """
    clock = _Clock()
    read = load_plan(plan)
    loaded = load(model)
    _check_output(loaded, output)
    clock.lap("load")
    witness = {n: tuple(s) for n, s in read.model["witness"].items()}
    analysis = analyze(loaded, witness, allow_io=bool(read.interface))
    for entry in read.groups:
        group = analysis.group(entry.id)
        if group is None or group.size != entry.size:
            found = "is not in the model" if group is None else f"has {group.size} classes, not {entry.size}"
            raise InputError(
                f"{loaded.name}: the plan for {read.model['file']!r} does not fit: group {entry.id!r} {found}"
            )
    clock.lap("analyze")
    done = rewrite(analysis, read.selection)
    _same_slices(loaded, read, done.plan)
    for new, old in zip(done.plan.groups, read.groups, strict=False):
        new.score = old.score
    clock.lap("rewrite")
    return _finish(analysis, done, output, None, prove, seed, witness, [], clock)


def _same_slices(model: Model, read: Plan, done: Plan) -> None:
    if not read.slices:
        return
    wanted = {(s.consumer, s.input): s.removed for s in read.slices}
    found = {(s.consumer, s.input): s.removed for s in done.slices}
    for key in sorted(set(wanted) | set(found)):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{model.name}: the plan for {read.model['file']!r} does not fit: it cuts input {key[1]} of the node "
                f"that makes {key[0]!r} otherwise than its groups come to here; if its groups were edited, empty its "
                "'slices'"
            )


def _finish(
    analysis: Analysis,
    done: Rewritten,
    output: str | os.PathLike[str] | None,
    plan_path: str | os.PathLike[str] | None,
    prove: bool,
    seed: int,
    input_shapes: Mapping[str, Shape] | None,
    untouched: list[Untouched],
    clock: _Clock,
    checks: Checks | None = None,
) -> Result:
    found = None
    if prove:
        tries = chain(
            [analysis.witness.first.inputs, analysis.witness.second.inputs],
            shapes.alternatives(analysis.model, input_shapes),
        )
        found = proof.prove(analysis.model, done.model, done.plan, done.removal, _distinct(tries), seed)
        done.plan.proof = found.to_json()
        clock.lap("prove")
    verdict = None
    if checks is not None:
        original = analysis.model.source
        verdict = validate(done.model, original.path or original, checks, input_shapes=input_shapes, seed=seed)
        if not verdict.passed:
            raise VerdictError(f"{original.name}: pruned, it fails at {verdict.failures}. Nothing was written.")
        clock.lap("validate")
    before = Cost(cost.parameters(analysis.model), cost.macs(analysis), cost.file_bytes(analysis.model))
    written = None
    if output is not None:
        written = Path(output)
        size = files.save(done.model, written)
        beside = written.with_name(written.name.removesuffix(".onnx") + ".plan.json")
        files.write_json(Path(plan_path) if plan_path is not None else beside, done.plan.to_json())
        clock.lap("write")
    else:
        size = done.model.proto.ByteSize()
    after = Cost(cost.parameters(done.model), cost.macs(analysis, done.removal.sizes()), size)
    return Result(done.model, done.plan, analysis, before, after, found, untouched, written, clock.seconds, verdict)


def _distinct(tries: Iterable[dict[str, Shape]]) -> list[dict[str, Shape]]:
    found: list[dict[str, Shape]] = []
    for one in tries:
        if one not in found:
            found.append(one)
    return found


def _check_output(model: Model, output: str | os.PathLike[str] | None) -> None:
    if output is None:
        return
    path = Path(output)
    if model.path is not None and path.exists() and path.samefile(model.path):
        raise InputError(f"{path}: is the model itself; choose another output")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist")


def _nothing(analysis: Analysis, untouched: list[Untouched], ratio: float) -> str:
    name = analysis.model.name
    if not analysis.groups:
        largest = max(analysis.fixed, key=lambda g: g.parameters.sum(), default=None)
        why = f": group {largest.id!r} stays because {largest.reasons[0].text}" if largest and largest.reasons else ""
        note = f"; node {analysis.notes[0].node!r}: {analysis.notes[0].text}" if analysis.notes else ""
        return f"{name}: nothing is prunable{why}{note}; 'graphprune inspect' lists what there is"
    sizes = [g.size for g in analysis.groups if not g.statistical]
    if sizes and all(u.reason.endswith("less than one") for u in untouched if not u.reason.startswith("statistical")):
        return f"{name}: --ratio {ratio:g} removes nothing; the smallest that does is {1 / max(sizes):.3g}"
    first = untouched[0]
    return f"{name}: nothing can be removed: group {first.group!r}: {first.reason}"
