"""The main jobs as functions: prune a model, replay a plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from graphprune import calibration as inputs
from graphprune import cost, files, proof, shapes, synthetic
from graphprune.analysis import Analysis, analyze
from graphprune.calibration import Batches
from graphprune.checks import Checks, Verdict
from graphprune.cost import Cost
from graphprune.errors import InputError, VerdictError
from graphprune.model import AnyModel, Model, load
from graphprune.passes import compensation, constants, criteria, depth, reconstruct, selection
from graphprune.passes import ratio as by_ratio
from graphprune.passes.influence import Taken
from graphprune.passes.ratio import Untouched
from graphprune.plan import Plan
from graphprune.plan import load as load_plan
from graphprune.relation import Shape
from graphprune.rewrite import Rewritten, described, rewrite
from graphprune.verdict import validate

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""


@dataclass
class Result:
    """What a run of :func:`prune` or :func:`apply` did.

    Attributes:
        model: the pruned model.
        plan: everything that was done to it.
        analysis: of the original, without the blocks that went.
        before, after: costs.
        proof: how far the pruned model is from the masked original; None where no proof was asked for, or nothing but
            blocks went.
        untouched: prunable groups of which nothing was removed, and why.
        output: the file written, None where none was asked for.
        seconds: time taken, by step.
        verdict: what validation found; None where none was asked for.
        fits: linear operators that were fitted to the original, with their errors on what was held out.
        without: the model without the blocks that went, with their scores and proof; None where none went.
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
    without: depth.Shallower | None = None
    fits: list[reconstruct.Fit] = field(default_factory=list)


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
    ratio: float = 0.0,
    align: int | None = None,
    blocks: depth.Request | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    allow_io: bool = False,
    input_shapes: Mapping[str, Shape] | None = None,
    prove: bool = True,
    seed: int = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
    calibration: str | os.PathLike[str] | None = None,
    criterion: str | None = None,
    uniform: bool = False,
    compensate: str | None = None,
    progress: Progress = lambda _, __, ___: None,
) -> Result:
    """Remove whole blocks of a model, or the least important classes of every exact group, or both.

    Args:
        model: a path, a ``ModelProto`` or a loaded model; it is not changed.
        output: where to write the pruned model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        ratio: share of each group's classes to remove, in [0, 1).
        blocks: which whole blocks are to go, before groups are cut.
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
        calibration: unlabelled inputs (see ``graphprune.samples``), or ``generated`` for made-up ones (see
            ``graphprune.synthetic``): classes and blocks are scored on them, and what is left is fitted.
        criterion: one of ``graphprune.passes.criteria.CRITERIA``; by default ``obs`` with calibration inputs,
            ``magnitude`` without.
        uniform: remove the same share of every group; else the ratio says only how many multiply-accumulates go, and
            calibration inputs which groups give them (see ``graphprune.passes.allocation``).
        compensate: one of ``graphprune.passes.compensation.COMPENSATIONS``: ``refit`` fits what is left of each linear
            operator to what the original made, ``repair`` brings back the mean and variance of its outputs alone (both
            ask for calibration inputs), ``fold`` lets the class most like a removed one do what that did, ``none``
            leaves weights as they are. By default ``refit`` with calibration inputs, ``none`` without.
        progress: is told what is being done, and how many of how many steps of it are.
        checks: judge the pruned model by :func:`graphprune.validate` before it is written; None does not.

    Raises:
        InputError: bad model or arguments, or nothing can be removed.
        ProofError: the pruned model is not what the masked original is; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, which is not installed.
    """
    clock = _Clock()
    by_ratio.check(ratio, align)  # before the model is read
    criterion = criteria.check(criterion, calibration is not None)
    compensate = compensation.check(compensate, calibration is not None)
    loaded = load(model)
    _check_output(loaded, output)
    clock.lap("load")
    original = analysis = analyze(loaded, input_shapes, allow_io=allow_io)
    without = None
    if blocks:
        blocks.check()
        given = None if calibration == synthetic.NAME else calibration
        wanted = replace(blocks, inputs=blocks.inputs or given)
        taken = depth.choose(original, wanted, input_shapes, allow_io, seed)
        without = depth.take_out(original, taken, input_shapes, allow_io, prove, seed)
        analysis = without.analysis
        clock.lap("blocks")
    groups, left = by_ratio.candidates(analysis, include, exclude, allow_statistical, ratio or 0.5)
    clock.lap("analyze")
    batches = None
    if calibration is not None:
        batches = partial(inputs.batches, calibration, input_shapes=input_shapes, seed=seed)
    here = None if batches is None else batches(analysis.model.runs_as or analysis.model)
    selected = selection.select(analysis, groups, ratio, align, criterion, uniform, here, seed, progress)
    untouched = left + selected.chosen.untouched
    if ratio and not selected.chosen.selection:
        raise InputError(_nothing(analysis, untouched, ratio))
    clock.lap("select")
    done = rewrite(analysis, selected.chosen.selection)
    for entry in done.plan.groups:
        entry.score = [float(f"{min(s, 1e30):.6g}") for s in selected.scores[entry.id]]
    clock.lap("rewrite")
    there = None if batches is None else batches(original.model.runs_as or original.model)
    asked = (output, plan, prove, seed, input_shapes, checks)
    job = _Job(original, without, *asked, selected.constant, there, compensate, progress)
    return _finish(job, analysis, done, untouched, clock)


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
    original = analysis = analyze(loaded, witness, allow_io=bool(read.interface))
    without = None
    if read.blocks:
        taken = Taken(read.blocks, [None] * len(read.blocks))
        without = depth.take_out(original, taken, witness, bool(read.interface), prove, seed)
        analysis = without.analysis
    for entry in read.groups:
        group = analysis.group(entry.id)
        if group is None or group.size != entry.size:
            found = "is not in the model" if group is None else f"has {group.size} classes, not {entry.size}"
            raise InputError(
                f"{loaded.name}: the plan for {read.model['file']!r} does not fit: group {entry.id!r} {found}"
            )
    clock.lap("analyze")
    done = rewrite(analysis, read.selection, read.orders)
    _same_slices(loaded, read, done.plan)
    for new, old in zip(done.plan.groups, read.groups, strict=False):
        new.score = old.score
    clock.lap("rewrite")
    touched = [g for g in analysis.groups if g.id in read.selection]
    job = _Job(original, without, output, None, prove, seed, witness, None, constants.constant(analysis, touched))
    return _finish(job, analysis, done, [], clock)


def _same_slices(model: Model, read: Plan, done: Plan) -> None:
    if not read.slices:
        return
    wanted = {(s.consumer, s.input): (s.removed, s.order) for s in read.slices}
    found = {(s.consumer, s.input): (s.removed, s.order) for s in done.slices}
    for key in sorted(set(wanted) | set(found)):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{model.name}: the plan for {read.model['file']!r} does not fit: it cuts input {key[1]} of the node "
                f"that makes {key[0]!r} otherwise than its groups come to here; if its groups were edited, empty its "
                "'slices'"
            )


@dataclass
class _Job:
    """What was asked for, beyond what to remove."""

    original: Analysis
    without: depth.Shallower | None
    output: str | os.PathLike[str] | None
    plan: str | os.PathLike[str] | None
    prove: bool
    seed: int
    input_shapes: Mapping[str, Shape] | None
    checks: Checks | None
    constant: constants.Constant
    batches: Batches | None = None
    compensate: str = "none"
    progress: Progress = lambda _, __, ___: None


def _finish(job: _Job, analysis: Analysis, done: Rewritten, untouched: list[Untouched], clock: _Clock) -> Result:
    """Prove, validate, write.

    Args:
        analysis: of the model that groups were cut from.
    """
    original = job.original
    done.plan.model = described(original)
    found = None
    tries = chain(
        [analysis.witness.first.inputs, analysis.witness.second.inputs],
        shapes.alternatives(analysis.model, inputs.still(job.input_shapes, analysis.model)),
    )
    distinct = _distinct(tries) if done.plan.groups else []
    if job.prove and done.plan.groups:
        found = proof.prove(analysis.model, done.model, done.plan, done.removal, distinct, job.seed)
        done.plan.proof = found.to_json()
        clock.lap("prove")
    if job.constant:
        made = constants.fold(analysis, done, done.model, job.constant, distinct, job.prove, job.seed)
        done.model, done.plan.folded = made[:2]
        if made[2] is not None:
            done.plan.proof = {**(done.plan.proof or {}), "folded": made[2].to_json()}
        clock.lap("fold")
    if job.without is not None:
        done.plan.blocks = job.without.entries
        done.plan.interface = job.without.interface + done.plan.interface
        if job.without.proof is not None:
            done.plan.proof = {**(done.plan.proof or {}), "blocks": job.without.proof.to_json()}
    made_up = compensation.compensate(
        job.compensate,
        original.model.runs_as or original.model,
        analysis,
        done,
        job.batches,
        job.seed,
        partial(job.progress, "fitting"),
    )
    done.model, done.plan.compensated = made_up.model, made_up.entries
    if job.compensate != "none":
        clock.lap("fit")
    verdict = None
    if job.checks is not None:
        source = original.model.source
        verdict = validate(done.model, source.path or source, job.checks, input_shapes=job.input_shapes, seed=job.seed)
        if not verdict.passed:
            raise VerdictError(f"{source.name}: pruned, it fails at {verdict.failures}. Nothing was written.")
        clock.lap("validate")
    before = Cost(cost.parameters(original.model), cost.macs(original), cost.file_bytes(original.model))
    written = None
    if job.output is not None:
        written = Path(job.output)
        size = files.save(done.model, written)
        beside = written.with_name(written.name.removesuffix(".onnx") + ".plan.json")
        files.write_json(Path(job.plan) if job.plan is not None else beside, done.plan.to_json())
        clock.lap("write")
    else:
        size = done.model.proto.ByteSize()
    after = Cost(cost.parameters(done.model), cost.macs(analysis, done.removal.sizes()), size)
    return Result(
        done.model,
        done.plan,
        analysis,
        before,
        after,
        found,
        untouched,
        written,
        clock.seconds,
        verdict,
        job.without,
        made_up.fits,
    )


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
