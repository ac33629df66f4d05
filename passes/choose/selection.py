"""Which classes go: ranked by a criterion, the same share of every group or as the groups can bear it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphprune.analysis import Analysis, Group
from graphprune.analysis.contractions import Contraction, observe
from graphprune.passes.choose import allocation, constants, criteria, families, sensitivity, ties
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.allocation import Allocated, Asked
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.choose.search import Effort, Judge, Search
from graphprune.passes.kept import Keeping
from graphprune.progress import Progress
from graphprune.run import calibration
from graphprune.run.calibration import Batches
from graphprune.run.runtime import Feeds

DEPTHS = (allocation.MOST, 0.8, 0.95)
"""How much of one group may go at most, where budgets are given: the first that is enough for an even share; else the
first with which they hold."""


@dataclass
class Selected:
    """A choice.

    Attributes:
        chosen: the classes, and what stays whole.
        scores: by group id, shape ``[classes]``; of groups that go together their sum.
        constant: classes that no input changes; they went first.
        notes: groups whose gradients stop, and what was done about it.
        allocated: the same as ``chosen``, with what it was weighed by; None where every group gives its share.
        weighed: whether losses said which groups give.
    """

    chosen: by_ratio.Chosen = field(default_factory=by_ratio.Chosen)
    scores: Scores = field(default_factory=dict)
    constant: constants.Constant = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    allocated: Allocated | None = None
    weighed: bool = False


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        ratio: share of the classes of every group, where budgets come from one; None where they do not.
        asked: what may be left, and what holds for widths.
        criterion: by what classes are ranked (see ``criteria``).
        depth: the share of one group that rankings need to look at.
        search: how long better allocations are looked for; None does not.
    """

    ratio: float | None
    asked: Asked
    criterion: str = "magnitude"
    depth: float = allocation.MOST
    search: Effort | None = None


def select(
    analysis: Analysis,
    groups: Sequence[Group],
    request: Request,
    batches: Batches | None,
    seed: int = 0,
    progress: Progress | None = None,
    kept: Keeping | None = None,
) -> Selected:
    """Choose the classes of groups that are to go.

    Args:
        analysis: of the model.
        groups: the groups to choose from.
        request: what is asked for.
        batches: calibration inputs, None where there are none.
        seed: of what is random.
        progress: is told of the phases ``observe``, ``rank``, ``weigh``, ``select`` and ``search``.
        kept: where rankings are kept for another run of the same job.
    """
    asked, criterion = request.asked, request.criterion
    progress = progress or Progress()
    looks = criteria.needs_inputs(criterion) and batches is not None
    weighed = looks and not asked.even
    kept = None if kept is None else kept.on(criterion, request.depth, [g.id for g in groups])
    before = _read(kept, "weighed" if weighed else "ranked")
    observed: list[Contraction] = []
    some: list[Feeds] = []
    if looks and before is None and batches is not None:
        observed = observe(analysis, groups, batches, seed, progress.begin("observe"))
        some = calibration.first(batches, sensitivity.SAMPLES)
    given = criteria.Given(analysis, observed, seed, some)
    rankings = before
    why: Mapping[str, str] = {}
    if rankings is None:
        rankings, why = criteria.rank(given, groups, criterion, progress.begin("rank"), request.depth)
        _write(kept if looks else None, "ranked", rankings)
    notes = [_told(f"ranked by magnitude, not by {criterion}", why)] if why else []
    scores = {id: ranking.scores for id, ranking in rankings.items()}
    constant = constants.constant(analysis, groups)
    for id, classes in constant.items():
        scores[id][classes] = 0  # they cost nothing
    shown = ties.joint(ties.together(analysis, groups, asked.share), scores)
    weighs = weighed and bool(observed or before)
    if request.ratio is not None and not weighs:
        terms = asked.terms
        even = by_ratio.select(analysis, groups, scores, request.ratio, terms.align, terms.whole, terms.most, terms.own)
        if terms.uniform_widths:
            even = families.level(families.units(analysis, groups, asked.share), shown, even)
        return Selected(even, shown, constant, notes)
    if weighs and before is None:
        rankings, why = sensitivity.weigh(given, groups, rankings, progress.begin("weigh"))
        notes += [_told("weighed by removing a part of each for once, not by gradients", why)] if why else []
        _write(kept, "weighed", rankings)
    progress.begin("select")
    asked = asked if weighs else replace(asked, even=True)
    chosen = allocation.allocate(analysis, groups, rankings, asked)
    for depth in (d for d in DEPTHS if d > asked.depth and request.ratio is None):
        if chosen.worth is None:
            asked = replace(asked, depth=depth)
            chosen = allocation.allocate(analysis, groups, rankings, asked)
    if request.search is not None and weighs and batches is not None and chosen.worth:
        judge = Judge(analysis, groups, batches, seed, kept)
        search = Search(request.search, judge, seed, progress.begin("search"))
        chosen = allocation.allocate(analysis, groups, rankings, asked, search)
        notes += search.notes
    return Selected(chosen, shown, constant, notes, chosen, weighs)


def _write(kept: Keeping | None, stage: str, rankings: Mapping[str, Ranking]) -> None:
    if kept is not None:
        found = {"groups": np.asarray(list(rankings))}
        for k, one in enumerate(rankings.values()):
            found |= {f"{k}/scores": one.scores, f"{k}/errors": one.errors}
        kept.write(found, stage)


def _read(kept: Keeping | None, stage: str) -> dict[str, Ranking] | None:
    """Rankings of an earlier run of the same job."""
    found = None if kept is None else kept.read(stage)
    if found is None:
        return None
    return {str(id): Ranking(found[f"{k}/scores"], found[f"{k}/errors"]) for k, id in enumerate(found["groups"])}


def _told(what: str, why: Mapping[str, str]) -> str:
    """A note on groups whose gradients stop."""
    group, reason = next(iter(why.items()))
    more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
    return f"group {group!r}{more} was {what}: {reason}"
