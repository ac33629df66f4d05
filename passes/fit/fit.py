"""The pass that makes up for what went: what is left of each weight is fitted to what the original made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis.products import find_products
from graphprune.passes.contract import Pass
from graphprune.passes.fit import abroad, compensation, merging, waved
from graphprune.passes.rounds import Reference, cutting, unfitted
from graphprune.passes.state import State
from graphprune.proof.proof import restrict
from graphprune.run.calibration import Batches
from graphprune.run.samples import count

FEW = 16
"""Samples below which a note is due: fewer than four are held out then."""


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
        """Inputs are there for methods that look at them, and a cut that is ahead is of another round."""
        compensation.resolve_compensation(self.method, state.job.calibration is not None)
        following = next((k for k, one in enumerate(state.ahead) if one.name == "cut"), None)
        if following is None or any(one.chooses for one in state.ahead[:following]):
            return ()
        return ("'cut' is ahead, and would cut what was fitted; put it first, or choose more for it to cut",)

    def call(self, state: State) -> State:
        """Fit, and list the weights that changed in the plan."""
        state = unfitted(state)
        done, progress = cutting(state).done, state.progress.begin(self.name)
        merged: list[dict[str, Any]] = []
        batches = state.batches(state.original)
        if batches is not None and (there := _samples(batches)) < FEW:
            state = state.noting(
                f"{there} calibration {'sample says' if there == 1 else 'samples say'} next to nothing of what fits "
                f"are worth elsewhere: give {2 * FEW} or more"
            )
        if self.method == "refit" and batches is not None:
            done, merged = merging.merge(cutting(state).analysis, done, batches)
        made = compensation.compensate(self.method, reference(state), done, progress)
        plan = replace(state.plan, compensated=renewed(state.plan.compensated, [*merged, *made.entries]))
        found = state.having(Fits(made.fits), model=made.model, plan=plan)
        if self.method == "fold":
            return found
        found = found.noting(*_inside(state))
        return found if any(one.name == "cut" for one in state.ahead) else _abroad(state, found)


def _abroad(before: State, after: State) -> State:
    """What the fits come to on other inputs, once all of them are done."""
    batches, removal = before.batches(before.original), cutting(before).done.removal
    if batches is None or not any(one.kept for one in (after.found(Fits) or Fits()).fits):
        return after
    original = before.analysis(before.original).model.runnable
    models = before.model, after.model
    seen = abroad.look(
        original, models, batches, lambda value, name: restrict(np.asarray(value), name, removal), before.job.seed
    )
    return after.having(seen).noting(*seen.notes())


def _inside(state: State) -> list[str]:
    """A note on linear operators that no inputs are observed at."""
    analysis = cutting(state).analysis
    products = find_products(analysis.model, analysis.rulings, shared=True)
    inside = sum(product.output not in analysis.model.runnable.producer for product in products)
    if not inside:
        return []
    return [
        f"{inside} of {len(products)} linear operators lie in bodies of If, Loop or Scan, which are not observed: they "
        "are not fitted, and what only they read was chosen without inputs"
    ]


def renewed(entries: Sequence[dict[str, Any]], more: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the plan says of weights that were fitted: of each what its last fit came to."""
    again = {entry["node"] for entry in more}
    return [*(entry for entry in entries if entry["node"] not in again), *more]


def reference(state: State) -> compensation.Reference:
    """What weights of a job are fitted towards: the original, on the calibration inputs."""
    equal = state.found(Reference)
    original = state.analysis(state.original if equal is None else equal.model).model.runnable
    analysis, batches = cutting(state).analysis, state.batches(state.original)
    more = any(one.name in ("cut", "sparsify") for one in state.ahead)
    return compensation.Reference(original, analysis, batches, state.job.seed, more, state.kept)


def _samples(batches: Batches) -> int:
    """How many samples there are, counted up to :data:`FEW`."""
    found = 0
    for feeds in batches():
        found += count(feeds)
        if found >= FEW:
            break
    return found
