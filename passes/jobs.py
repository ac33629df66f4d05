"""The main jobs as functions: prune a model, replay a plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path

from graphprune.passes.choose import constants, criteria, selection
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.ratio import Untouched
from graphprune.passes.depth import depth
from graphprune.passes.depth.influence import Taken
from graphprune.passes.finishing import Clock, Job, Result, finish
from graphprune.passes.fit import compensation
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.permutation import Ordered
from graphprune.passes.sparse.targets import Scope

from graphprune.analysis import Analysis, analyze
from graphprune.analysis.sparsity import SPARSE
from graphprune.errors import InputError
from graphprune.model import AnyModel, Model, files, load, paths
from graphprune.model.arguments import InputShapes, Seed, checked
from graphprune.progress import Progress
from graphprune.rewrite import replay
from graphprune.rewrite.packed import check as check_packed
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.plan import load as load_plan
from graphprune.rewrite.rewrite import rewrite
from graphprune.run import calibration as inputs
from graphprune.run import samples, synthetic
from graphprune.verdict.checks import Checks


@checked
@paths.run()
def prune(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    ratio: float = 0.0,
    align: int | None = None,
    blocks: depth.Request | int | Sequence[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow_statistical: bool = False,
    allow_io: bool = False,
    input_shapes: InputShapes | None = None,
    prove: bool = True,
    seed: Seed = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
    calibration: str | os.PathLike[str] | None = None,
    criterion: str | None = None,
    uniform: bool = False,
    compensate: str | None = None,
    sparsity: sparse.Request | None = None,
    packed: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Remove whole blocks of a model, or the least important classes of every exact group, or both.

    What is left can be made sparse in the same run: widths then stay multiples of what pattern and TensorRT ask for.

    Args:
        model: a path, a ``ModelProto`` or a loaded model; it is not changed.
        output: where to write the pruned model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        ratio: share of each group's classes to remove, in [0, 1).
        blocks: which whole blocks are to go, before groups are cut: how many, by score, or their ids or globs on these.
        align: widths that remain are rounded up to a multiple of this; by default to a multiple of 4, or of 2, where
            that costs little of a group (see ``graphprune.passes.choose.ratio.ALIGNMENTS``).
        include, exclude: globs on group ids and node names.
        allow_statistical: prune statistical groups too: a mean runs over them, so removal leaves an error, which the
            proof reports.
        allow_io: let inputs and outputs of the graph shrink: those that carry a state round (a cache of keys and
            values), and others where ``include`` names their group.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.
        plan: where to write the plan instead.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated`` for made-up ones (see
            ``graphprune.run.synthetic``): classes and blocks are scored on them, and what is left is fitted.
        criterion: one of ``graphprune.passes.choose.criteria.CRITERIA``; by default ``obs`` with calibration inputs,
            ``magnitude`` without.
        uniform: remove the same share of every group; else the ratio says only how many multiply-accumulates go, and
            calibration inputs which groups give them (see ``graphprune.passes.choose.allocation``).
        compensate: one of ``graphprune.passes.fit.compensation.COMPENSATIONS``: ``refit`` fits what is left of each
            linear operator to what the original made, ``repair`` brings back the mean and variance of its outputs alone
            (both ask for calibration inputs), ``fold`` lets the class most like a removed one do what that did,
            ``none`` leaves weights as they are. By default ``refit`` with calibration inputs, ``none`` without.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).
        sparsity: make what is left sparse too (see :func:`sparsify`).
        packed: where to write the sparse weights packed (see ``graphprune.rewrite.packed``).
        checks: judge the pruned model by :func:`graphprune.validate` before it is written; None does not.

    Raises:
        InputError: bad model or arguments, or nothing can be removed.
        ProofError: the pruned model is not what the masked original is; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, which is not installed.
    """
    by_ratio.check(ratio, align)  # before the model is read
    calibrated = calibration is not None
    criterion = criteria.check(criterion, calibrated)
    compensate = compensation.check(compensate, calibrated)
    request = _request(sparsity, packed, calibrated)
    asked = depth.request(blocks)
    looks = calibrated and criterion in criteria.NEED_INPUTS
    first = _first(bool(asked), bool(ratio), looks, uniform, request)
    clock = Clock(progress, first | _last(prove, compensate, request, checks, output))
    loaded = load(model)
    files.declare(loaded, output, plan)
    paths.writes("the packed weights", packed)
    given = None if calibration == synthetic.NAME else calibration
    sources = [given, asked.inputs, checks.inputs if checks else None]
    for source in sources:
        paths.reads("the inputs that are read", source)
    clock.lap("load")
    original = analysis = analyze(loaded, input_shapes, allow_io=allow_io)
    for source in sources:
        samples.check(source, loaded, input_shapes)
    clock.lap("analyze")
    without = None
    if asked:
        wanted = replace(asked, inputs=asked.inputs or calibration)
        taken = depth.choose(original, wanted, input_shapes, allow_io, seed, clock.progress.begin("blocks"))
        without = depth.take_out(original, taken, input_shapes, allow_io, prove, seed)
        analysis = without.analysis
        clock.lap("blocks")
    groups, left = by_ratio.candidates(analysis, include, exclude, allow_statistical, ratio or 0.5)
    clock.lap("analyze")
    batches = None
    if calibration is not None:
        batches = partial(inputs.batches, calibration, input_shapes=input_shapes, seed=seed)
    here = None if batches is None else batches(analysis.model.runs_as or analysis.model)
    found = [] if request is None else sparse.find(analysis, request)[0]
    widths = align if align is not None or request is None else sparse.alignments(analysis, found, request)
    selected = selection.select(analysis, groups, ratio, widths, criterion, uniform, here, seed, clock.progress)
    untouched = left + selected.chosen.untouched if ratio else []
    if ratio and not selected.chosen.selection:
        raise InputError(_nothing(analysis, untouched, ratio))
    clock.lap("select")
    ordered: list[Ordered] = []
    if request is not None and request.permute:
        gone, steps = selected.chosen.selection, clock.progress.begin("permute")
        ordered = sparse.order(analysis, found, gone, request, here, seed, steps)
        clock.lap("permute")
    done = rewrite(analysis, selected.chosen.selection, {o.group: o.order for o in ordered})
    for entry in done.plan.groups:
        if entry.id in selected.scores:
            entry.score = [float(f"{min(s, 1e30):.6g}") for s in selected.scores[entry.id]]
    clock.lap("rewrite")
    there = None if batches is None else batches(original.model.runs_as or original.model)
    wishes = (output, plan, prove, seed, input_shapes, checks)
    job = Job(original, without, *wishes, selected.constant, there, compensate, request, ordered, packed)
    if request is not None and request.structure not in (None, SPARSE):
        job.notes.append(f"TensorRT and sparse tensor cores read {SPARSE} alone, not {request.pattern}")
    return finish(job, analysis, done, untouched, clock)


def _first(blocks: bool, cut: bool, looks: bool, uniform: bool, request: sparse.Request | None) -> dict[str, bool]:
    """The phases up to the rewrite, and whether they are asked for."""
    return {
        "load": True,
        "analyze": True,
        "blocks": blocks,
        "observe": cut and looks,
        "rank": cut,
        "weigh": cut and looks and not uniform,
        "select": cut,
        "permute": request is not None and request.permute,
        "rewrite": True,
    }


def _last(
    prove: bool,
    compensate: str,
    request: sparse.Request | None,
    checks: Checks | None,
    output: str | os.PathLike[str] | None,
) -> dict[str, bool]:
    """The phases behind the rewrite, and whether they are asked for."""
    return {
        "prove": prove,
        "fit": compensate != "none" and request is None,
        "sparsify": request is not None,
        "validate": checks is not None,
        "write": output is not None,
        "compress": output is not None and request is not None and request.structure is None,
    }


def _request(
    sparsity: sparse.Request | None, packed: str | os.PathLike[str] | None, calibrated: bool
) -> sparse.Request | None:
    """What is asked for of sparsity, with its defaults; looked at before the model is read."""
    request = None if sparsity is None else sparsity.resolved(calibrated)
    if packed is not None:
        if request is None or request.structure is None:
            raise InputError("--packed holds weights of an N:M pattern: ask for one by --pattern")
        check_packed(Path(packed))
    return request


@checked
def sparsify(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    pattern: str = "2:4",
    method: str | None = None,
    permute: bool = False,
    amount: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    also: Sequence[str] = (),
    calibration: str | os.PathLike[str] | None = None,
    compensate: str | None = None,
    packed: str | os.PathLike[str] | None = None,
    input_shapes: InputShapes | None = None,
    prove: bool = True,
    seed: Seed = 0,
    plan: str | os.PathLike[str] | None = None,
    checks: Checks | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make the weights of products sparse: an N:M pattern along what they sum over, or single weights.

    Args:
        model: a path, a ``ModelProto`` or a loaded model; it is not changed.
        output: where to write the sparse model; the plan goes beside it as ``<output without .onnx>.plan.json``.
        pattern: ``N:M`` keeps N of every M weights, ``unstructured`` single ones.
        method: one of ``graphprune.passes.sparse.masks.METHODS``; by default ``sparsegpt`` with calibration inputs,
            ``magnitude`` without.
        permute: let channels change places so that the pattern keeps more; proven before any weight is changed.
        amount: the share of weights that go, for ``unstructured``.
        include: globs on names of nodes and weights: these and no others, whatever speaks against them.
        exclude: globs: not these.
        also: globs: these too, whatever speaks against them.
        calibration: unlabelled inputs (see ``graphprune.run.samples``), or ``generated``.
        compensate: what makes up for what went: ``refit`` (the default with calibration inputs) fits every linear
            operator to what the original makes, masks fixed; ``repair``; ``none``.
        packed: where to write the sparse weights packed (see ``graphprune.rewrite.packed``).
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        prove: compare the permuted model with the original.
        seed: of the search for orders, of the choice of rows and of generated inputs.
        plan: where to write the plan instead.
        checks: judge the sparse model by :func:`graphprune.validate` before it is written; None does not.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: bad model or arguments, or nothing can become sparse.
        ProofError: the permuted model is not what the original is; nothing was written.
        VerdictError: it does not pass the checks; nothing was written.
        BackendError: the checks ask for TensorRT, or ``packed`` for safetensors, which is not installed.
    """
    if compensate == "fold":
        raise InputError("--compensate fold is about removed channels; sparse weights have refit, repair or none")
    return prune(
        model,
        output,
        sparsity=sparse.Request(pattern, method, permute, amount, Scope(include, exclude, also)),
        calibration=calibration,
        compensate=compensate,
        packed=packed,
        input_shapes=input_shapes,
        prove=prove,
        seed=seed,
        plan=plan,
        checks=checks,
        progress=progress,
    )


@checked
@paths.run()
def apply(
    plan: str | os.PathLike[str] | Plan,
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    prove: bool = True,
    seed: Seed = 0,
    progress: Progress | None = None,
) -> Result:
    """Redo a plan on the same model, or on another precision of it.

    Args:
        plan: a plan file, or a plan. Its groups say what to remove; its slices, where there are any, must be what
            these groups come to.
        model: the model.
        output: where to write the pruned model and, beside it, the plan of this run.
        prove: compare the pruned model with the masked original before anything is written.
        seed: of the generated inputs of the proof.
        progress: is told of every phase and of its steps (see ``graphprune.progress``).

    Raises:
        InputError: the plan does not fit the model; says at which group.
        ProofError: the pruned model is not what the masked original is; nothing was written.
    """
    read = load_plan(plan)
    replay.check_sparsity(read)
    with replay.naming(read):
        request, notes = _replayed(read)
    first = _first(bool(read.blocks), False, False, False, request)
    clock = Clock(progress, first | _last(prove, "none", request, None, output))
    loaded = load(model)
    files.declare(loaded, output)
    clock.lap("load")
    replay.check_inputs(read, loaded)
    witness = {n: tuple(s) for n, s in read.model["witness"].items()}
    original = analysis = analyze(loaded, witness, allow_io=bool(read.interface))
    clock.lap("analyze")
    without = None
    if read.blocks:
        replay.check_blocks(read, original)
        taken = Taken(read.blocks, [None] * len(read.blocks))
        without = depth.take_out(original, taken, witness, bool(read.interface), prove, seed)
        analysis = without.analysis
        clock.lap("blocks")
    replay.check_groups(read, analysis)
    clock.lap("analyze")
    with replay.naming(read):
        done = rewrite(analysis, read.selection, read.orders)
    _same_slices(loaded, read, done.plan)
    scores = {g.id: g.score for g in read.groups}
    for new in done.plan.groups:
        new.score = scores[new.id]
    clock.lap("rewrite")
    touched = [g for g in analysis.groups if g.id in read.selection]
    job = Job(original, without, output, None, prove, seed, witness, None, constants.constant(analysis, touched))
    job.notes = [*replay.notes(read, original.model), *notes]
    job.request = request
    with replay.naming(read):
        return finish(job, analysis, done, [], clock)


def _replayed(plan: Plan) -> tuple[sparse.Request | None, list[str]]:
    """What of a plan's sparsity is done again, and what is not."""
    notes = []
    if plan.compensated:
        notes.append(
            f"the plan fitted {len(plan.compensated)} weights to calibration inputs; they stay as they are here"
        )
    methods = sorted({e["method"] for e in plan.sparsity} - {"magnitude"})
    if methods:
        notes.append(
            f"the plan chose sparse weights on calibration inputs ({', '.join(methods)}); they stay dense here: run "
            "'graphprune sparsify' with such inputs"
        )
    if not plan.sparsity or methods:
        return None, notes
    entry = plan.sparsity[0]
    scope = Scope(include=[escape(e["name"]) for e in plan.sparsity])
    request = sparse.Request(entry["pattern"], "magnitude", amount=entry.get("amount"), scope=scope)
    return request.resolved(False), notes


def _same_slices(model: Model, read: Plan, done: Plan) -> None:
    if not read.slices:
        return
    wanted = {(s.consumer, s.input): (s.removed, s.order) for s in read.slices}
    found = {(s.consumer, s.input): (s.removed, s.order) for s in done.slices}
    for key in sorted(set(wanted) | set(found)):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{read.where}: does not fit {model.name}: at slices: it cuts input {key[1]} of the node that makes "
                f"{key[0]!r} otherwise than its groups come to here; if its groups were edited, empty its 'slices'"
            )


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
