"""What the commands that carry a plan over to weights of the training code read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.rewrite import checkpoints, plan
from graphprune.rewrite.checkpoints import Checkpoint


@dataclass(frozen=True)
class Carried:
    """A plan, its model, and the weights that it is carried over to."""

    plan: plan.Plan
    original: Model
    weights: Checkpoint


def read(plan_file: Path, weights: Path, model: Path | None) -> Carried:
    """Read all three; the model is looked for beside the plan and here, where it is not given.

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
    return Carried(found, load(model or _original(plan_file, found)), checkpoints.read(weights))


def _original(plan_file: Path, read: plan.Plan) -> Path:
    """The model that a plan was made for.

    Raises:
        InputError: it is not where it is looked for.
    """
    name = read.model["file"]
    for folder in (plan_file.parent, Path()):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{plan_file}: the model {name!r} is neither beside the plan nor here; give it by --model")
