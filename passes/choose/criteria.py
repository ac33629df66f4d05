"""Criteria: by which a class is more important than another, and what a group loses as its least important ones go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import Contraction
from graphprune.errors import InputError
from graphprune.passes.choose import attribution, magnitude, routed, surgeon
from graphprune.progress import Steps, unseen
from graphprune.run import usercode
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds

CRITERIA = ("obs", "activation", *attribution.CRITERIA, "magnitude", "random")
"""The default first where there are calibration inputs; without them ``magnitude`` is."""
AUTO = "auto"
"""Stands for the default."""
NEED_INPUTS = ("obs", "activation", *attribution.CRITERIA)
GROUP = "graphprune.criteria"
"""Entry points of other packages' criteria: functions from what is given and a group to scores."""


@dataclass(frozen=True)
class Given:
    """What a criterion of another package may look at.

    Attributes:
        analysis: of the model.
        contractions: of the model on calibration inputs, for criteria that have an attribute ``needs_inputs``.
        seed: of what is random.
        feeds: some calibration inputs, for the same; ``graphprune.passes.choose.backward`` reads off gradients on them.
    """

    analysis: Analysis
    contractions: Sequence[Contraction] = ()
    seed: int = 0
    feeds: Sequence[Feeds] = ()


Criterion = Callable[[Given, Group], FloatArray]
"""Gives for each class of a group what is lost when it goes; shape ``[classes]``."""


@lru_cache(maxsize=1)
def _foreign() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """All criteria that are installed."""
    return [*CRITERIA, *sorted(_foreign().keys() - {AUTO})]


def needs_inputs(name: str) -> bool:
    """Whether a criterion looks at activations."""
    return name in NEED_INPUTS or (name in _foreign() and getattr(_loaded(name), "needs_inputs", False))


def _loaded(name: str) -> Criterion:
    """A criterion of another package.

    Raises:
        UserCodeError: the package raises when it is imported.
    """
    with usercode.told(f"criterion {name!r} of {_foreign()[name].value}"):
        found: Criterion = _foreign()[name].load()
    return found


@dataclass(frozen=True)
class Ranking:
    """The classes of one group.

    Attributes:
        scores: higher is more important; shape ``[classes]``.
        errors: what is lost when the k least important are gone, for k from 0; shape ``[free classes + 1]``.
    """

    scores: FloatArray
    errors: FloatArray


def resolve_criterion(criterion: str | None, calibrated: bool) -> str:
    """The criterion that is meant, where it is left out or ``auto``: what keeps most in the benchmark of accuracy.

    Raises:
        InputError: there is none of this name, or it needs inputs and there are none.
    """
    if criterion is None or criterion == AUTO:
        return CRITERIA[0] if calibrated else "magnitude"
    if criterion not in names():
        raise InputError(
            f"--criterion {criterion}: there is none of this name; choose from {AUTO}, {', '.join(names())}"
        )
    if needs_inputs(criterion) and not calibrated:
        raise InputError(f"--criterion {criterion} judges by activations: give inputs by --calibration")
    return criterion


def rank(
    given: Given, groups: Sequence[Group], criterion: str, progress: Steps = unseen, most: float = 1.0
) -> tuple[dict[str, Ranking], dict[str, str]]:
    """Rank the classes of groups.

    - ``obs``: the error of what reads a group once the rest has made up for what went (see ``surgeon``);
    - ``activation``: the same without making up, each class by itself: the norm of what it contributes (as in Wanda,
      Sun et al., ICLR 2024, for structures);
    - ``fisher``, ``taylor``, ``snip``, ``movement``: by gradients (see ``attribution``);
    - ``magnitude``: the norm of the weights (see ``magnitude``);
    - ``random``: for comparison.

    A group that nothing in the contractions sums over goes by magnitude, as does one whose gradients stop. Where
    classes are picked by what the model computes (experts), what is lost without each is measured (see ``routed``).

    Args:
        given: what may be looked at.
        groups: the groups.
        criterion: one of :func:`names`.
        progress: is told after each group how many of how many are done.
        most: the share of the classes of a group that may go; ``obs`` looks no further.

    Returns:
        Rankings by group id; and for groups of which there are no gradients where these are asked for, why not.
    """
    found, why = _rank(given, groups, criterion, progress, most)
    picked = [group for group in groups if group.picked and criterion in NEED_INPUTS]
    losses = routed.losses(given.analysis, picked, given.feeds)
    found |= {g.id: Ranking(losses[g.id], _errors(g, losses[g.id])) for g in picked if g.id in losses}
    return found, {id: text for id, text in why.items() if id not in losses}


def _rank(
    given: Given, groups: Sequence[Group], criterion: str, progress: Steps, most: float
) -> tuple[dict[str, Ranking], dict[str, str]]:
    rng, analysis, contractions = np.random.default_rng(given.seed), given.analysis, given.contractions
    by_weights = magnitude.score(analysis, groups) if criterion != "random" else {}

    def squared(group: Group) -> FloatArray:
        return np.asarray(by_weights[group.id] ** 2, np.float64)

    match criterion:
        case "obs":
            found = surgeon.score_all(groups, contractions, lambda g: _summed(g, squared(g)), most, progress)
            return {g.id: Ranking(found[g.id], _errors(g, found[g.id])) for g in groups}, {}
        case "activation":
            scores = {g.id: _contributed(g, contractions) for g in groups}
            return {g.id: _independent(g, squared(g) if (s := scores[g.id]) is None else s) for g in groups}, {}
        case name if name in attribution.CRITERIA:
            found, why = attribution.score(analysis, groups, name, contractions, given.feeds, given.seed)
            return {g.id: _independent(g, found[g.id] if g.id in found else squared(g)) for g in groups}, why
        case "random":
            return {g.id: _independent(g, rng.permuted(np.arange(1.0, g.size + 1))) for g in groups}, {}
        case name if name in _foreign():
            score = _loaded(name)
            with usercode.told(f"criterion {name!r} of {_foreign()[name].value}"):
                return {g.id: _independent(g, np.asarray(score(given, g), np.float64)) for g in groups}, {}
    return {g.id: Ranking(by_weights[g.id], _errors(g, _summed(g, squared(g)))) for g in groups}, {}


def _independent(group: Group, scores: FloatArray) -> Ranking:
    """Where what is lost is the sum of what each class is worth."""
    return Ranking(scores, _errors(group, _summed(group, scores)))


def _summed(group: Group, worth: FloatArray) -> FloatArray:
    """For each class the share of the whole that is lost once it and all that are worth less are gone."""
    found = np.full(group.size, np.inf)
    free = np.flatnonzero(~group.pinned)
    order = free[np.argsort(worth[free], kind="stable")]
    found[order] = np.cumsum(worth[order]) / max(float(worth.sum()), 1e-30)
    return found


def _errors(group: Group, scores: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.sort(scores[~group.pinned])])


def _contributed(group: Group, contractions: Sequence[Contraction]) -> FloatArray | None:
    """For each class the squared norm of what it adds to the outputs of all contractions over its group."""
    found: FloatArray | None = None
    for contraction in contractions:
        labels = contraction.labels(group)
        if labels is None:
            continue
        weight, gram = contraction.matrix, contraction.gram
        own = np.einsum("gi,gio->i", np.einsum("gii->gi", gram), weight**2)
        held = labels >= 0
        total = np.bincount(labels[held], own[held], minlength=group.size)
        found = (0.0 if found is None else found) + total / max(float(total.sum()), 1e-30)
    return found
