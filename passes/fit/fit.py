"""The pass that makes up for what went: what is left of each weight is fitted to what the original made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from graphprune.passes.contract import Pass
from graphprune.passes.cut import cutting
from graphprune.passes.fit import compensation, waved
from graphprune.passes.state import State


@dataclass(frozen=True)
class Fits:
    """Linear operators that were fitted, with their errors on what was held out."""

    fits: list[waved.Fit] = field(default_factory=list)


@dataclass(frozen=True)
class Fit(Pass):
    """Change weights so that the model does more of what the original did.

    Attributes:
        method: ``refit`` fits what is left of each linear operator to what the original made, ``repair`` brings back
            the mean and variance of its outputs alone (both ask for calibration inputs), ``fold`` lets the class most
            like a removed one do what that did.
    """

    name: ClassVar[str] = "fit"

    method: str = "refit"

    def requires(self, state: State) -> Sequence[str]:
        """Inputs are there for methods that look at them."""
        compensation.resolve_compensation(self.method, state.job.calibration is not None)
        return ("'cut' is ahead, and would cut what was fitted; put it first",) if state.will("cut") else ()

    def call(self, state: State) -> State:
        """Fit, and list the weights that changed in the plan."""
        cut = cutting(state)
        made = compensation.compensate(self.method, reference(state), cut.done, state.progress.begin(self.name))
        plan = replace(state.plan, compensated=state.plan.compensated + made.entries)
        return state.having(Fits(made.fits), model=made.model, plan=plan)


def reference(state: State) -> compensation.Reference:
    """What weights of a job are fitted towards: the original, on the calibration inputs."""
    original = state.analysis(state.original).model.runnable
    analysis, batches = cutting(state).analysis, state.batches(state.original)
    return compensation.Reference(original, analysis, batches, state.job.seed, state.kept)
