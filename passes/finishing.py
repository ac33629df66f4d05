"""The last steps of a job: prove what was cut, change weights, validate, write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from graphprune.passes.choose import constants
from graphprune.passes.choose.ratio import Untouched
from graphprune.passes.depth import depth
from graphprune.passes.fit import compensation, reconstruct
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.permutation import Ordered

from graphprune.analysis import Analysis, chance, cost
from graphprune.analysis.cost import Cost
from graphprune.errors import InputError, VerdictError
from graphprune.model import Model, files, node_name
from graphprune.progress import Progress, unseen
from graphprune.proof import proof
from graphprune.relation import Shape
from graphprune.rewrite import packed
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import Rewritten, described
from graphprune.run import calibration as inputs
from graphprune.run import sizing
from graphprune.run.calibration import Batches
from graphprune.verdict.checks import Checks, Verdict
from graphprune.verdict.verdict import validate


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
        sparse: what became sparse; None where that was not asked for.
        compressed: bytes of the original and of what was written, deflated; where single weights went.
        notes: what else the user should know.
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
    sparse: sparse.Sparse | None = None
    compressed: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)


class Clock:
    """Seconds by step, and the progress of a job through the phases that are planned.

    Args:
        progress: who watches; nobody by default.
        phases: what can be done, in order, and whether it is asked for.
    """

    def __init__(self, progress: Progress | None, phases: Mapping[str, bool]) -> None:
        self.progress = progress or Progress()
        self.progress.plan([name for name, asked in phases.items() if asked])
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """A step has ended."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
        self.progress.end(name)


@dataclass
class Job:
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
    request: sparse.Request | None = None
    ordered: list[Ordered] = field(default_factory=list)
    packed: str | os.PathLike[str] | None = None
    notes: list[str] = field(default_factory=list)


def finish(job: Job, analysis: Analysis, done: Rewritten, untouched: list[Untouched], clock: Clock) -> Result:
    """Prove, validate, write.

    Args:
        analysis: of the model that groups were cut from.
    """
    done.plan.model = described(job.original)
    found = _prove(job, analysis, done, clock)
    if job.without is not None:
        done.plan.blocks = job.without.entries
        done.plan.interface = job.without.interface + done.plan.interface
        if job.without.proof is not None:
            done.plan.proof = {**(done.plan.proof or {}), "blocks": job.without.proof.to_json()}
    fits, thinned = _change(job, analysis, done, clock)
    before = Cost(cost.parameters(job.original.model), cost.macs(job.original), cost.file_bytes(job.original.model))
    after = Cost(cost.parameters(done.model), cost.macs(analysis, done.removal.sizes()), 0)
    _check_smaller(job, analysis, done, before, after)
    verdict = None
    source = job.original.model.source
    if job.checks is not None:
        steps, sizes = clock.progress.begin("validate"), inputs.still(job.input_shapes, done.model)
        verdict = validate(
            done.model, source.path or source, job.checks, input_shapes=sizes, seed=job.seed, progress=steps
        )
        if not verdict.passed:
            raise VerdictError(f"{source.name}: pruned, it fails at {verdict.failures}. Nothing was written.")
        clock.lap("validate")
    size = _write(job, done, thinned)
    if job.output is not None:
        clock.lap("write")
    compressed = None
    if job.output is not None and thinned is not None and thinned.request.structure is None:
        compressed = files.deflated(source), files.deflated(done.model)
        clock.lap("compress")
    return Result(
        done.model,
        done.plan,
        analysis,
        before,
        replace(after, bytes=size),
        found,
        untouched,
        None if job.output is None else Path(job.output),
        clock.seconds,
        verdict,
        job.without,
        fits,
        thinned,
        compressed,
        [*(f"{node}: {text}" for node, text in chance.notes(job.original.model)), *job.notes],
    )


def _check_smaller(job: Job, analysis: Analysis, done: Rewritten, before: Cost, after: Cost) -> None:
    """Raise InputError where removal, which was asked for, has not made the model smaller."""
    if not any(g.removed for g in done.plan.groups):
        return
    grown = after.parameters > before.parameters
    if not grown and (after.parameters < before.parameters or after.macs < before.macs):
        return
    sizes = f"{before.parameters:,} parameters would be {after.parameters:,}, and {before.macs:,} MACs {after.macs:,}"
    raise InputError(
        f"{job.original.model.name}: removal would not make it smaller: {sizes}{_copied(analysis, done)}. Nothing was "
        "written; leave groups out by --exclude, or remove more"
    )


def _copied(analysis: Analysis, done: Rewritten) -> str:
    """The weight of which most elements were added in copies, and who reads it; nothing where there is none."""
    there, results = done.model.sources, {s.source: {s.source} & set(done.model.sources) for s in done.plan.slices}
    for entry in done.plan.slices:
        results[entry.source].add(entry.result)
    added = {
        name: sum(cost.elements(there[r]) for r in own if r in there) - cost.elements(analysis.model.sources[name])
        for name, own in results.items()
    }
    name = max(added, key=added.__getitem__, default="")
    if not name or added[name] <= 0:
        return ""
    readers = [s.consumer for s in done.plan.slices if s.source == name]
    nodes = ", ".join(repr(node_name(analysis.model, analysis.model.producer[o])) for o in dict.fromkeys(readers))
    return f", since weight {name!r} is cut in {len(results[name])} ways, each with a copy of its own (nodes {nodes})"


def _prove(job: Job, analysis: Analysis, done: Rewritten, clock: Clock) -> proof.Proof | None:
    """Prove what was cut and reordered, and fold what was constant into biases."""
    found = None
    tries = chain(
        [analysis.witness.first.inputs, analysis.witness.second.inputs],
        sizing.alternatives(analysis.model, inputs.still(job.input_shapes, analysis.model)),
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
    return found


def _change(
    job: Job, analysis: Analysis, done: Rewritten, clock: Clock
) -> tuple[list[reconstruct.Fit], sparse.Sparse | None]:
    """Change the values of weights: make up for what went, and make sparse."""
    runs, thinned = job.original.model.runs_as or job.original.model, None
    if job.request is None:
        progress = clock.progress.begin("fit") if job.compensate != "none" else unseen
        made = compensation.compensate(job.compensate, runs, analysis, done, job.batches, job.seed, progress)
    else:
        progress = clock.progress.begin("sparsify")
        made, thinned = sparse.make(
            job.request, job.compensate, runs, analysis, done, job.batches, job.input_shapes, job.seed, progress
        )
        thinned.ordered, done.plan.sparsity = job.ordered, thinned.entries()
    done.model, done.plan.compensated = made.model, made.entries
    if job.compensate != "none" or thinned is not None:
        clock.lap("fit" if thinned is None else "sparsify")
    return made.fits, thinned


def _write(job: Job, done: Rewritten, thinned: sparse.Sparse | None) -> int:
    """Write the model, its plan, and what else is asked for; returns bytes of the model."""
    if job.packed is not None and thinned is not None:
        weights, pattern = [t.target.weight for t in thinned.thinned], thinned.request.pattern
        packed.write(Path(job.packed), done.model, weights, pattern, job.input_shapes)
    if job.output is None:
        return int(done.model.proto.ByteSize())
    written = Path(job.output)
    size = files.save(done.model, written)
    place = files.plan_place(written, job.plan)
    if place is not None:
        files.write_json(place, done.plan.to_json())
    return size


def _distinct(tries: Iterable[dict[str, Shape]]) -> list[dict[str, Shape]]:
    found: list[dict[str, Shape]] = []
    for one in tries:
        if one not in found:
            found.append(one)
    return found
