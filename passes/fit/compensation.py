"""What makes up for what went, by name."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.products import Product
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.fit import folding, reconstruct
from graphprune.passes.fit.laid import lay
from graphprune.passes.fit.paired import Task
from graphprune.passes.fit.waved import Fit
from graphprune.passes.kept import Kept
from graphprune.passes.sparse.masks import Thinner
from graphprune.progress import Steps, unseen
from graphprune.proof import proof
from graphprune.relation import Values
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.rewrite import Rewritten
from graphprune.run.calibration import Batches

COMPENSATIONS = ("refit", "repair", "fold", "none")
"""See :func:`compensate`; the default is the first with calibration inputs, and the last without."""
NEED_INPUTS = ("refit", "repair")


@dataclass
class Compensated:
    """A model with changed weights.

    Attributes:
        model: the model.
        entries: what the plan says of each weight that changed.
        fits: of every operator that was looked at, where there were inputs.
        kept: of weights that became sparse, the share of their magnitude and of their elements that stayed.
    """

    model: Model
    entries: list[dict[str, Any]] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    kept: dict[str, tuple[float, float]] = field(default_factory=dict)


def resolve_compensation(name: str | None, calibrated: bool) -> str:
    """What is meant to make up for what went.

    Raises:
        InputError: there is nothing of this name, or it needs inputs and there are none.
    """
    if name is None:
        return "refit" if calibrated else "none"
    if name not in COMPENSATIONS:
        raise InputError(f"--compensate {name}: there is none of this name; choose from {', '.join(COMPENSATIONS)}")
    if name in ("refit", "repair") and not calibrated:
        raise InputError(f"--compensate {name} works on activations: give inputs by --calibration")
    return name


@dataclass(frozen=True)
class Reference:
    """What weights are fitted towards.

    Attributes:
        original: what the user gave, as it runs.
        analysis: of the model that groups were cut from.
        batches: calibration inputs, None where there are none.
        seed: of the choice of rows.
        again: whether weights will be fitted again: then no nodes are added for biases, behind which a product would
            not be known again.
        kept: where finished waves are kept for another run of the same job, None where they are not.
    """

    original: Model
    analysis: Analysis
    batches: Batches | None = None
    seed: int = 0
    again: bool = False
    kept: Kept | None = None


def compensate(
    name: str,
    reference: Reference,
    done: Rewritten,
    progress: Steps = unseen,
    thin: Mapping[str, Thinner] | None = None,
    sparse: Set[str] = frozenset(),
) -> Compensated:
    """Change the weights of a pruned model so that it does more of what the original did.

    - ``refit``: what is left of each linear operator is fitted to what the original made (see ``reconstruct``), and
      scores to the original's (see ``scores``);
    - ``repair``: its outputs get the original's mean and variance back, and nothing else;
    - ``fold``: what read a removed class reads the one most like it (see ``folding``); without inputs;
    - ``none``.

    Args:
        name: one of :data:`COMPENSATIONS`.
        reference: what weights are fitted towards.
        done: the rewrite; it is not changed.
        progress: is told after each step how many of how many are done.
        thin: by weight what makes it sparse on the way, with inputs.
        sparse: weights that are sparse already, and stay so.
    """
    if name == "none" and not thin:
        return Compensated(done.model)
    if name == "fold":
        model, changed = folding.fold_classes(reference.analysis, done.model, done.removal, done.plan.selection)
        return Compensated(model, [{"node": node, "weight": weight} for node, weight in changed])
    assert reference.batches is not None
    task = Task(
        reference.original,
        reference.analysis.rulings,
        reference.batches,
        lambda value, tensor: proof.restrict(np.asarray(value), tensor, done.removal),
        partial(cut, done.removal),
        reference.seed,
        name,
        thin or {},
        sparse,
        reference.again,
        _kept(reference, done, name, thin or {}, sparse),
        lay(done.removal) if name == "refit" else (),
    )
    found = reconstruct.reconstruct(task, done.model, progress)
    entries = [
        {"node": f.node, "weight": f.weight, "before": round(f.before, 6), "after": round(f.after, 6)}
        for f in found.fits
        if f.kept
    ]
    return Compensated(found.model, entries, found.fits, found.kept)


def _kept(
    reference: Reference, done: Rewritten, name: str, thin: Mapping[str, Thinner], sparse: Set[str]
) -> Kept | None:
    """Where finished waves of a fit are kept: apart for everything that they follow from beside the pruned model."""
    if reference.kept is None:
        return None
    chosen = sorted((id, list(classes)) for id, classes in done.plan.selection.items())
    return reference.kept.on("fit", name, reference.again, chosen, sorted(thin.items()), sorted(sparse))


def cut(removal: Removal, value: Values, product: Product) -> Values:
    """What a product inside a node comes to, ``[groups, rows, outputs]``, without what its weight has lost."""
    rulings, form = removal.analysis.rulings, product.form
    groups, outputs = (
        rulings.span(product.output, form, own).kept(removal.kept) for own in (form.groups, form.outputs)
    )
    return value[groups][:, :, outputs]
