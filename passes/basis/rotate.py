"""The pass that puts groups into principal directions: exact, with no node added, before anything is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.mixing import Mixing, NotLinear, find_mixing
from graphprune.analysis.reasons import Reason
from graphprune.errors import InputError
from graphprune.model import Use
from graphprune.passes.basis import absorb, directions, moments
from graphprune.passes.basis.copies import Copies, find_copies
from graphprune.passes.basis.proven import proven
from graphprune.passes.basis.scope import Changed, asked
from graphprune.passes.basis.turn import Turn, hindrance, turned
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Base, Reference
from graphprune.passes.state import State


class Rotated(Changed):
    """Groups that are in another basis, and those that are not."""


@dataclass(frozen=True)
class Rotate(Pass):
    """Replace the classes of groups by linear combinations of them, the most important first.

    Attributes:
        include: globs on group ids and node names: these and no others.
        exclude: globs on group ids and node names: not these.
    """

    name: ClassVar[str] = "rotate"

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def requires(self, state: State) -> Sequence[str]:
        """Something will be cut."""
        return () if state.will("cut") else ("no pass 'cut' is ahead: a new basis alone makes nothing smaller",)

    def call(self, state: State) -> State:
        """Turn every space of every group that a change of basis passes."""
        if state.plan.groups:
            raise InputError("classes were chosen before 'rotate', which would be others behind it; put it first")
        analysis, spaces, stayed = self._found(state)
        return self._turned(state, analysis, self._turns(state, analysis, spaces), stayed)

    def _turns(self, state: State, analysis: Analysis, spaces: Sequence[Copies]) -> list[Turn]:
        """By which matrices spaces are turned."""
        steps = state.progress.begin(self.name)
        forms = moments.observe(analysis, spaces, state.batches(state.original), steps)
        return [Turn(copies, *_basis(copies, own)) for copies, own in zip(spaces, forms, strict=True)]

    def _turned(self, state: State, analysis: Analysis, turns: list[Turn], stayed: dict[str, Reason]) -> State:
        """The state with the model in other bases."""
        counts: dict[str, int] = {}
        for turn in turns:
            id = turn.copies.mixing.group.id
            counts[id] = counts.get(id, 0) + turn.copies.count
        found = Rotated(counts, stayed)
        if not turns:
            return state.having(found)
        model = turned(analysis, turns)
        matrices = {key(turn.copies): np.stack([turn.forth, turn.back]) for turn in turns}
        plan = replace(state.plan, bases={**state.plan.bases, "rotated": counts}, matrices=matrices)
        return state.having(found, Base(model), Reference(model), model=model, plan=plan)

    def ensures(self, before: State, after: State) -> State:
        """The model in other bases does what it did."""
        return proven(before, after, "rotated", "bases")

    def _found(self, state: State) -> tuple[Analysis, list[Copies], dict[str, Reason]]:
        """The spaces that can be turned, in the model with gains in the weights behind them; and why others stay."""
        analysis, free, stayed = state.analysis(), dict[str, Mixing](), dict[str, Reason]()
        for group in asked(analysis, self.include, self.exclude):
            try:
                mixing = find_mixing(analysis, group)
            except NotLinear as no:
                stayed[group.id] = no.reason
                continue
            why = _why_not(mixing, _spaces(analysis, mixing))
            if why is None:
                free[group.id] = mixing
            else:
                stayed[group.id] = why
        absorbed = absorb.absorb(analysis, list(free.values()))
        stayed |= absorbed.stayed
        if absorbed.values:
            analysis = state.analysis(absorb.absorbed(analysis, absorbed.values))
        found: list[Copies] = []
        for id in (id for id in free if id not in absorbed.stayed):
            there = analysis.group(id)
            assert there is not None
            found += _spaces(analysis, find_mixing(analysis, there))
        return analysis, found, stayed


def key(copies: Copies) -> str:
    """What the matrices of a space are called."""
    return f"{copies.mixing.group.id}/{copies.space}"


def _spaces(analysis: Analysis, mixing: Mixing) -> list[Copies]:
    """The spaces of a group that some constant has a part in, other than as a gain."""
    gains = {gain.use for gain in mixing.gains}
    own = ((mixing.tensor_of[vertex], space) for (vertex, _), (space, _) in mixing.spaces.items())
    numbers = sorted({space for one, space in own if isinstance(one, Use) and one not in gains})
    return [find_copies(analysis, mixing, number) for number in numbers]


def _why_not(mixing: Mixing, spaces: Sequence[Copies]) -> Reason | None:
    """Why the spaces of a group stay as they are, gains apart; None where they can change."""
    if mixing.centred or mixing.taken_off:
        return Reason("a norm takes off its mean", "", "the pass 'centre' may free it")
    texts = (hindrance(copies) for copies in spaces)
    return next((Reason(text) for text in texts if text is not None), None)


def _basis(copies: Copies, forms: moments.Forms) -> tuple[Any, Any]:
    if not all(np.isfinite(own).all() for own in (forms.left, forms.right, forms.seen)):  # squares that overflow
        same = np.broadcast_to(np.eye(forms.seen.shape[-1]), forms.seen.shape)
        return same, same
    if copies.space in copies.mixing.orthogonal:
        return directions.principal(forms.seen)
    return directions.balanced(forms.left, forms.right)
