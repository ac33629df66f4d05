"""What the commands that carry a plan over to weights of the training code read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.rewrite import checkpoints, plan
from graphprune.rewrite.checkpoints import Checkpoint
from graphprune.rewrite.original import original


@dataclass(frozen=True)
class Carried:
    """A plan, its model, and the weights that it is carried over to."""

    plan: plan.Plan
    original: Model
    weights: Checkpoint


def read(plan_file: Path, weights: Path, model: Path | None) -> Carried:
    """Read all three; the model is looked for beside the plan and here, where it is not given.

    One that is given may be another precision of the plan's, or hold other weights.

    Raises:
        InputError: one of them is not there or cannot be read, or the plan changes more than widths.
        BackendError: the library that reads the weights is not installed.
    """
    found = plan.load(plan_file)
    if found.bases:
        raise InputError(
            f"{found.where}: changes bases before it removes, which a state dict of the training code does not; "
            "prune with --no-rotate"
        )
    return Carried(found, original(found) if model is None else load(model), checkpoints.read(weights))
