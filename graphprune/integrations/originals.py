"""The original of a plan with what was removed set to zero, as other tools can run it."""

from __future__ import annotations

from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model import Model, interchange
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
