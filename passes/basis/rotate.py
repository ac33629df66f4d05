"""The pass that puts groups into principal directions: exact, with no node added, before anything is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.mixing import Mixing, NotLinear, find_mixing
from graphprune.analysis.reasons import Reason
from graphprune.errors import InputError
from graphprune.model import Use, node_name
from graphprune.passes.basis import absorb, directions, moments, same
from graphprune.passes.basis.copies import Copies, find_copies
from graphprune.passes.basis.scope import asked
from graphprune.passes.basis.turn import Turn, hindrance, turned
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Base, Reference
from graphprune.passes.state import State


@dataclass(frozen=True)
class Rotated:
    """Groups that are in another basis, and those that are not with the reason.

    Attributes:
        groups: ids of groups, each with how many matrices turned it.
        stayed: by id of a group why it was left as it is.
    """

    groups: dict[str, int]
    stayed: dict[str, Reason]


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
        """Nothing was chosen, which would be told of classes as they were; and something will be."""
        return () if state.will("cut") else ("no pass 'cut' is ahead: a new basis alone makes nothing smaller",)

    def call(self, state: State) -> State:
        """Turn every space of every group that a change of basis passes."""
        if state.plan.groups:
            raise InputError("classes were chosen before 'rotate', which would be others behind it; put it first")
        analysis = self._absorbed(state)
        spaces, stayed = self._spaces(analysis)
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
        return same.proven(before, after, "rotated", "bases")

    def _absorbed(self, state: State) -> Analysis:
        """The analysis of the model with gains in the weights behind them, as far as that lets a basis change."""
        analysis = state.analysis()
        mixings = []
        for group in asked(analysis, self.include, self.exclude):
            with suppress(NotLinear):
                mixings.append(find_mixing(analysis, group))
        found = absorb.absorb(analysis, [mixing for mixing in mixings if not mixing.centred and not mixing.taken_off])
        return state.analysis(absorb.absorbed(analysis, found.values)) if found.values else analysis

    def _spaces(self, analysis: Analysis) -> tuple[list[Copies], dict[str, Reason]]:
        found: list[Copies] = []
        stayed: dict[str, Reason] = {}
        for group in asked(analysis, self.include, self.exclude):
            try:
                mixing = find_mixing(analysis, group)
            except NotLinear as no:
                stayed[group.id] = no.reason
                continue
            own = [find_copies(analysis, mixing, space) for space in _numbers(mixing)]
            why = _why_not(analysis, mixing, own)
            if why is not None:
                stayed[group.id] = why
            else:
                found += own
        return found, stayed


def key(copies: Copies) -> str:
    """What the matrices of a space are called."""
    return f"{copies.mixing.group.id}/{copies.space}"


def _numbers(mixing: Mixing) -> list[int]:
    """Spaces that some constant has a part in, other than as a gain."""
    gains = {gain.use for gain in mixing.gains}
    own = ((mixing.tensor_of[vertex], space) for (vertex, _), (space, _) in mixing.spaces.items())
    return sorted({space for one, space in own if isinstance(one, Use) and one not in gains})


def _why_not(analysis: Analysis, mixing: Mixing, spaces: Sequence[Copies]) -> Reason | None:
    """Why the spaces of a group stay as they are, None where they can change."""
    if mixing.centred or mixing.taken_off:
        return Reason("a norm takes off its mean", "", "the pass 'centre' may free it")
    for gain in mixing.gains:
        if not absorb.uniform(analysis, mixing, gain):
            name = node_name(analysis.model, gain.use.node)
            return Reason(f"the gain of node {name!r} cannot go into the weights behind it", name)
    texts = (hindrance(analysis, copies) for copies in spaces)
    return next((Reason(text) for text in texts if text is not None), None)


def _basis(copies: Copies, forms: moments.Forms) -> tuple[Any, Any]:
    if copies.space in copies.mixing.orthogonal:
        return directions.principal(forms.seen)
    return directions.balanced(forms.left, forms.right)
