"""What came of a job: costs before and after, what was found on the way, and the files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from graphprune import __version__
from graphprune.analysis import Analysis, chance
from graphprune.analysis.cost import Cost
from graphprune.model import Model, files, interchange
from graphprune.passes.aim.meet import Met
from graphprune.passes.basis.centre import Centred
from graphprune.passes.basis.rotate import Rotated
from graphprune.passes.choose import choices
from graphprune.passes.choose.choices import Choices
from graphprune.passes.choose.ratio import Untouched
from graphprune.passes.choose.select import Chosen
from graphprune.passes.depth.depth import Shallower
from graphprune.passes.distill.distill import Distilled
from graphprune.passes.driver import Clock
from graphprune.passes.fit.abroad import Abroad, Place
from graphprune.passes.fit.fit import Fits
from graphprune.passes.fit.waved import Fit
from graphprune.passes.rounds import cutting
from graphprune.passes.smaller import costs
from graphprune.passes.sparse.sparse import Sparse
from graphprune.passes.sparse.store import Stored
from graphprune.passes.state import Notes, State
from graphprune.passes.vocabulary.vocabulary import Shorter
from graphprune.proof.proof import Proof
from graphprune.rewrite import packed
from graphprune.rewrite.plan import Plan, matrices_place
from graphprune.run.reading.folders import Settled
from graphprune.verdict.checks import Verdict

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Outputs:
    """Where results are to be written.

    Attributes:
        model: the model; None writes nothing of it.
        plan: the plan; by default beside the model, as ``<model without .onnx>.plan.json``.
        packed: sparse weights without their zeros (see ``graphprune.rewrite.packed``).
    """

    model: AnyPath | None = None
    plan: AnyPath | None = None
    packed: AnyPath | None = None


@dataclass
class Result:
    """What a job did.

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
        compressed: bytes of the original and of what was written, deflated; where zeros that no
            kernel skips make it smaller to ship.
        stored: which weights are stored sparse, and what that saves; None where it was not asked for.
        notes: what else the user should know.
        rounds: where it was cut in rounds, what was left after each.
        distilled: what the last distillation did; None where none was asked for.
        met: how targets were met; None where none were given.
        abroad: errors of outputs before and after the last fits, on calibration inputs and on others; empty without.
        choices: what each selection made of every group, and why (see ``graphprune.passes.choose.why``).
        centred: groups whose norms lost their mean, and those that kept it with the reason; None where none was asked
            for.
        rotated: the same of groups that were put into principal directions.
    """

    model: Model
    plan: Plan
    analysis: Analysis
    before: Cost
    after: Cost
    proof: Proof | None
    untouched: list[Untouched] = field(default_factory=list)
    output: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    without: Shallower | None = None
    fits: list[Fit] = field(default_factory=list)
    sparse: Sparse | None = None
    compressed: tuple[int, int] | None = None
    stored: Stored | None = None
    notes: list[str] = field(default_factory=list)
    rounds: list[Cost] = field(default_factory=list)
    distilled: Distilled | None = None
    met: Met | None = None
    choices: list[Choices] = field(default_factory=list)
    centred: Centred | None = None
    rotated: Rotated | None = None
    abroad: list[Place] = field(default_factory=list)

    @property
    def proto(self) -> ModelProto:
        """The pruned model as a ``ModelProto`` of its own, with all weights in it; sparse ones as they are stored."""
        return interchange.stored(self.model)

    def ir(self) -> Any:
        """The pruned model as an ``onnx_ir.Model``.

        Raises:
            BackendError: onnx-ir is not installed.
        """
        return interchange.convert(self.model, interchange.IR).value

    def graphsurgeon(self) -> Any:
        """The pruned model as an ``onnx_graphsurgeon.Graph``."""
        return interchange.convert(self.model, interchange.SURGEON).value


def conclude(state: State, outputs: Outputs, clock: Clock) -> Result:
    """Check that the result is what was asked for, write it, and say what was done.

    Args:
        state: behind the last pass.
        outputs: where to write.
        clock: of the job.

    Raises:
        InputError: what was removed has not made the model smaller, or a file cannot be written.
    """
    matrices = _placed(state, outputs)
    settled = state.found(Settled)
    state = replace(state, plan=replace(state.plan, calibration=None if settled is None else settled.data))
    plan = files.json_text(state.plan.to_json())
    state = replace(state, model=marked(state, plan))
    cut, sparse = cutting(state), state.found(Sparse)
    before, after = costs(state)
    size = _write(state, outputs, sparse, plan)
    if matrices is not None:
        files.atomically(matrices[0], lambda file: file.write(matrices[1]))
    compressed = None
    if outputs.model is not None:
        if sparse is not None and sparse.request.structure.lacks("pack"):
            compressed = files.deflated(state.original), files.deflated(state.model)
        clock.lap("write")
    chosen, fits, notes = state.found(Chosen), state.found(Fits), state.found(Notes)
    if state.model is state.original and state.found(Distilled) is None:
        state = state.noting("nothing was changed: no pass chose anything")
        notes = state.found(Notes)
    if state.original.stored and not state.found(Stored):
        count = len(state.original.stored)
        which = f"{count} weights" if count > 1 else "1 weight"
        state = state.noting(f"{which} stored sparse in {state.original.name} became dense; --store auto keeps them so")
        notes = state.found(Notes)
    said = [f"{note.node}: {note}" for note in chance.notes(state.analysis(state.original).model)]
    return Result(
        state.model,
        state.plan,
        cut.analysis,
        before,
        replace(after, bytes=size),
        state.found(Proof),
        [] if chosen is None else chosen.untouched,
        None if outputs.model is None else Path(outputs.model),
        clock.seconds,
        _verdict(state, outputs),
        state.found(Shallower),
        [] if fits is None else fits.fits,
        sparse,
        compressed,
        state.found(Stored),
        [*said, *([] if notes is None else notes.lines)],
        list(cut.costs) if cut.rounds > 1 else [],
        state.found(Distilled),
        state.found(Met),
        choices.from_json(state.plan.choices),
        state.found(Centred),
        state.found(Rotated),
        list((state.found(Abroad) or Abroad()).places),
    )


def _verdict(state: State, outputs: Outputs) -> Verdict | None:
    """What validation found, of the result: it was judged before it had a name of its own."""
    found = state.found(Verdict)
    return found and replace(found, model="the result" if outputs.model is None else Path(outputs.model).name)


def _placed(state: State, outputs: Outputs) -> tuple[Path, bytes] | None:
    """Where the matrices of the plan go, and the file that holds them; the plan then knows it by its hash."""
    place = None if outputs.model is None else files.plan_place(Path(outputs.model), outputs.plan)
    if place is None or not state.plan.matrices:
        return None
    held, path = BytesIO(), matrices_place(place)
    np.savez(held, allow_pickle=False, **state.plan.matrices)  # its entries bear no time: the same bytes each run
    made = held.getvalue()
    state.plan.bases["sha256"] = hashlib.sha256(made).hexdigest()
    return path, made


def marked(state: State, plan: str) -> Model:
    """The model, which says in its metadata how it was made: viewers show that.

    ``graphprune.version``, ``graphprune.recipe`` (as JSON; paths as names of files alone),
    ``graphprune.original.sha256`` and ``graphprune.plan.sha256``.
    """
    said = {
        "graphprune.version": __version__,
        "graphprune.recipe": state.told,
        "graphprune.original.sha256": str(state.plan.model["sha256"]),
        "graphprune.plan.sha256": hashlib.sha256(plan.encode()).hexdigest(),
    }
    model = state.model
    if model is state.original:  # nothing was done to it, and it is the user's own
        return model
    kept = [prop for prop in model.proto.metadata_props if prop.key not in said]
    del model.proto.metadata_props[:]
    model.proto.metadata_props.extend(kept)
    for key, value in said.items():
        model.proto.metadata_props.add(key=key, value=value)
    return model


def _write(state: State, outputs: Outputs, sparse: Sparse | None, plan: str) -> int:
    """Write the model, its plan, and what else is asked for; returns bytes of the model."""
    if outputs.packed is not None and sparse is not None:
        weights, pattern = [t.target.weight for t in sparse.thinned], sparse.request.pattern
        packed.write(Path(outputs.packed), state.model, weights, pattern, state.job.input_shapes)
    if outputs.model is None:
        return files.size(state.model)
    written = Path(outputs.model)
    size = files.save(state.model, written)
    place = files.plan_place(written, outputs.plan)
    if place is not None:
        files.atomically(place, lambda file: file.write(plan.encode()))
    shorter, beside = state.found(Shorter), files.beside(written, "vocabulary")
    if shorter is not None and beside is not None:
        files.write_json(beside, shorter.to_json(state.plan.model))
    return size
