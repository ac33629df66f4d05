"""The passes that take whole blocks out: one chooses them, one removes and proves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.analysis.blocks import find_blocks
from graphprune.errors import InputError
from graphprune.passes.contract import Pass
from graphprune.passes.depth import depth, influence
from graphprune.passes.depth.depth import Shallower
from graphprune.passes.rounds import Base
from graphprune.passes.state import State
from graphprune.rewrite.bypass import resolve
from graphprune.run.calibration import Source


@dataclass(frozen=True)
class Scored:
    """The scores of the blocks that are to go, None where they were named."""

    scores: list[float | None]


@dataclass(frozen=True)
class Worthwhile:
    """Blocks whose removal loses less than narrower widths that save as much.

    Attributes:
        names: their ids.
        effects: how far the outputs go without each (see ``graphprune.passes.depth.influence``).
    """

    names: tuple[str, ...] = ()
    effects: tuple[float, ...] = ()


@dataclass(frozen=True)
class SelectBlocks(Pass):
    """Choose whole blocks.

    Attributes:
        names: ids or globs. All that match go; where ``count`` is given they are what it is chosen from.
        count: how many go, by score.
        score: ``influence`` or ``effect`` (see ``graphprune.passes.depth.influence``).
        inputs: where inputs to score on come from; by default the job's calibration inputs, generated ones without.
        aimed: none at first; those that the pass ``meet`` ahead finds worth more than narrower widths.
    """

    name: ClassVar[str] = "select-blocks"
    begins: ClassVar[bool] = True

    names: Sequence[str] = ()
    count: int = 0
    score: str = influence.SCORES[0]
    inputs: Source | None = None
    aimed: bool = False

    def requires(self, state: State) -> Sequence[str]:
        """There is something to choose, and the score is known."""
        request = self._request(state)
        request.check()
        if self.aimed and not state.will("meet"):
            return ("aimed goes with a pass 'meet' behind it",)
        if not request and not self.aimed:
            return ("nothing is asked for: give count or names",)
        if state.will("select-blocks"):
            return ("a recipe chooses blocks once; name or count all of them in one pass",)
        will = state.will("remove-blocks")
        return () if will else ("no pass 'remove-blocks' is ahead, so that what is chosen would stay",)

    def call(self, state: State) -> State:
        """Put the blocks that are to go into the plan."""
        if state.plan.groups:
            raise InputError("blocks are chosen before classes: put select-blocks and remove-blocks first")
        job = state.job
        if self.aimed:
            found = state.found(Worthwhile) or Worthwhile()
            analysis = state.analysis()
            entries = resolve(analysis, [b for b in find_blocks(analysis, job.allow_io).blocks if b.id in found.names])
            effects = dict(zip(found.names, found.effects, strict=True))
            scores = Scored([effects.get(entry.id) for entry in entries])
            return state.having(scores, found, plan=replace(state.plan, blocks=entries))
        steps = state.progress.begin(self.name)
        taken = depth.choose(state.analysis(), self._request(state), job.input_shapes, job.allow_io, job.seed, steps)
        return state.having(Scored(taken.scores), plan=replace(state.plan, blocks=taken.entries))

    def phases(self, state: State) -> Sequence[str]:
        """None where it waits for what is found later."""
        return () if self.aimed else (self.name,)

    def _request(self, state: State) -> depth.Request:
        inputs = self.inputs if self.inputs is not None else state.job.calibration
        return depth.Request(self.names, self.count, self.score, inputs)


@dataclass(frozen=True)
class RemoveBlocks(Pass):
    """Take out the blocks that the plan names."""

    name: ClassVar[str] = "remove-blocks"
    rebases: ClassVar[bool] = True

    def call(self, state: State) -> State:
        """Remove, prove, and analyse what is left at the same sizes."""
        if not state.plan.blocks:
            return state
        job, scored = state.job, state.found(Scored)
        scores: list[float | None] = [None] * len(state.plan.blocks)
        scores = scores if scored is None else scored.scores
        taken = influence.Taken(state.plan.blocks, scores)
        found = depth.take_out(state.analysis(), taken, job.input_shapes, job.allow_io, job.prove, job.seed)
        proof = state.plan.proof
        if found.proof is not None:
            proof = {**(proof or {}), "blocks": found.proof.to_json()}
        plan = replace(state.plan, blocks=found.entries, interface=state.plan.interface + found.interface, proof=proof)
        model = found.analysis.model.source
        state.remember(model, found.analysis)
        return state.having(found, Base(model), model=model, plan=plan)


__all__ = ["RemoveBlocks", "SelectBlocks", "Shallower"]
