"""Which classes go: ranked by a criterion, the same share of every group or as the groups can bear it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import Contraction, observe
from graphprune.passes.choose import allocation, constants, criteria, sensitivity, ties
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.allocation import Before
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.ratio import Align
from graphprune.passes.kept import Kept
from graphprune.progress import Progress
from graphprune.run import calibration
from graphprune.run.calibration import Batches


@dataclass
class Selected:
    """A choice.

    Attributes:
        chosen: the classes, and what stays whole.
        scores: by group id, shape ``[classes]``; of groups that go together their sum.
        constant: classes that no input changes; they went first.
    """

    chosen: by_ratio.Chosen = field(default_factory=by_ratio.Chosen)
    scores: Scores = field(default_factory=dict)
    constant: constants.Constant = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        ratio: share of the classes of every group; with an allocation it says how much goes in all.
        align: widths that remain are rounded up to a multiple of this; see ``ratio.Align``.
        criterion: by what classes are ranked (see ``criteria``).
        uniform: take the same share of every group; else inputs decide, where the criterion looks at any.
        before: what has gone in earlier rounds.
    """

    ratio: float
    align: Align = None
    criterion: str = "magnitude"
    uniform: bool = False
    before: Before | None = None


def select(
    analysis: Analysis,
    groups: Sequence[Group],
    request: Request,
    batches: Batches | None,
    seed: int = 0,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> Selected:
    """Choose the classes of groups that are to go.

    Args:
        analysis: of the model.
        groups: the groups to choose from.
        request: what is asked for.
        batches: calibration inputs, None where there are none.
        seed: of what is random.
        progress: is told of the phases ``observe``, ``rank``, ``weigh`` and ``select``.
        kept: where rankings are kept for another run of the same job.
    """
    ratio, align, criterion = request.ratio, request.align, request.criterion
    progress = progress or Progress()
    looks = criteria.needs_inputs(criterion) and batches is not None
    weighed, most = looks and not request.uniform, max(allocation.MOST, ratio)
    kept = None if kept is None else kept.on(criterion, most, [g.id for g in groups])
    before = _read(kept, "weighed" if weighed else "ranked")
    observed: list[Contraction] = []
    if looks and before is None and batches is not None:
        observed = observe(analysis, groups, batches, seed, progress.begin("observe"))
    rankings = before or criteria.rank(analysis, groups, criterion, observed, seed, progress.begin("rank"), most)
    _write(kept if looks and not before else None, "ranked", rankings)
    scores = {id: ranking.scores for id, ranking in rankings.items()}
    constant = constants.constant(analysis, groups)
    for id, classes in constant.items():
        scores[id][classes] = 0  # they cost nothing
    whole = None if request.before is None else request.before.whole
    shown = ties.joint(ties.together(analysis, groups, by_ratio.going(groups, ratio, whole)), scores)
    if not weighed or not (observed or before) or batches is None:
        return Selected(by_ratio.select(analysis, groups, scores, ratio, align, whole), shown, constant)
    if before is None:
        some = calibration.first(batches, sensitivity.SAMPLES)
        rankings = sensitivity.weigh(analysis, groups, rankings, observed, some, progress.begin("weigh"))
        _write(kept, "weighed", rankings)
    progress.begin("select")
    chosen = allocation.allocate(analysis, groups, rankings, ratio, align, request.before)
    return Selected(chosen, shown, constant)


def _write(kept: Kept | None, stage: str, rankings: Mapping[str, Ranking]) -> None:
    if kept is not None:
        found = {"groups": np.asarray(list(rankings))}
        for k, one in enumerate(rankings.values()):
            found |= {f"{k}/scores": one.scores, f"{k}/errors": one.errors}
        kept.write(found, stage)


def _read(kept: Kept | None, stage: str) -> dict[str, Ranking] | None:
    """Rankings of an earlier run of the same job."""
    found = None if kept is None else kept.read(stage)
    if found is None:
        return None
    return {str(id): Ranking(found[f"{k}/scores"], found[f"{k}/errors"]) for k, id in enumerate(found["groups"])}
