"""The original of a plan, and the same with what was removed set to zero, as other tools can run them."""

from __future__ import annotations

from pathlib import Path

from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model import Model, interchange, load
from graphprune.proof.masking import mask
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import rewrite

_MORE = {
    "bases": "bases were changed",
    "blocks": "whole blocks went",
    "compensated": "weights were fitted",
    "distilled": "weights were trained",
    "factored": "weights became products of two",
    "interface": "inputs or outputs shrank",
    "sparsity": "weights became sparse",
    "vocabulary": "ids went",
}
"""Parts of a plan that change what the model computes beyond what a mask does, or its interface."""


def find_original(plan: Plan, model: str | Path | None = None) -> Model:
    """The model that a plan was made for.

    Args:
        plan: read from a file.
        model: its file; by default it is looked for beside the plan and in the working directory.

    Raises:
        InputError: it is not there, or another one.
    """
    name, digest = str(plan.model["file"]), plan.model["sha256"]
    places = [Path(model)] if model is not None else [Path(plan.where).parent / name, Path(name)]
    for place in places:
        if (model is not None or place.is_file()) and (found := load(place)).sha256 == digest:
            return found
    if model is not None:
        raise InputError(f"{model}: {plan.where} was made for another file: {name}, sha256 {digest[:12]}...")
    raise InputError(f"{plan.where}: its original, {name}, is not beside it; give it by --graphprune-model")


def masked(plan: Plan, original: Model) -> bytes:
    """The original with what a plan removed set to zero, serialised: what the pruned model must do.

    Args:
        plan: of a run that did nothing but remove, as ``prune`` does without inputs.
        original: the model that it is for.

    Raises:
        InputError: more was done than removal; says what. Or the plan does not fit the model.
    """
    more = [said for part, said in _MORE.items() if getattr(plan, part)]
    if more:
        raise InputError(
            f"{plan.where}: {', '.join(more)}, so that the pruned model is not the masked original any more; hold it "
            "against --graphprune-original, or prune with --no-compensate --no-rotate"
        )
    replay.check_inputs(plan, original)
    analysis = analyze(original, {name: tuple(shape) for name, shape in plan.model["witness"].items()})
    replay.check_groups(plan, analysis)
    done = rewrite(analysis, plan.selection, plan.orders)
    if plan.folded:  # what these classes add is in biases now: in the original they stay
        left = {id: sorted({*gone} - {*plan.folded.get(id, ())}) for id, gone in plan.selection.items()}
        done = rewrite(analysis, {id: gone for id, gone in left.items() if gone})
        plan = done.plan
    return interchange.whole(mask(original, plan, done.removal, filled=True)).SerializeToString()
