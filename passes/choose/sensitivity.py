"""Sensitivity: how much of what a group loses reaches the outputs of the model.

The error that a criterion foresees stands beside what reads a group; how much of it reaches the outputs depends on all
that lies behind. For the quarter of a group that would go first, the error at the outputs is predicted from gradients
(see ``reach``); where an operator stops these, that quarter is removed for once (see ``trial``). The ratio of both
errors, to a power, weights the group: it is taken at one point only, and trusting it fully (or not at all) keeps less
(``tests/benchmarks/bench_accuracy.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.analysis import Group
from graphprune.passes.choose import reach, trial
from graphprune.passes.choose.criteria import Given, Ranking
from graphprune.progress import Steps, unseen
from graphprune.relation import IntArray

SHARE = 0.25
"""Of a group whose loss is looked at."""
POWER = 0.5
"""Of the ratio of both errors."""
SAMPLES = 64
"""That are looked at: where outputs are probabilities, few of them are not sure, and these alone say anything."""
_LEAST = 1e-9


def weigh(
    given: Given, groups: Sequence[Group], rankings: Mapping[str, Ranking], progress: Steps = unseen
) -> tuple[dict[str, Ranking], dict[str, str]]:
    """Rankings whose errors are weighted by how much of them reaches the outputs.

    Args:
        given: the model, what was observed on calibration inputs, and some of these.
        groups: the groups.
        rankings: by group id.
        progress: is told how many of how many steps are done.

    Returns:
        Rankings by group id; and for groups whose gradients stop, why.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    gone = {group.id: _first(group, rankings[group.id]) for group in groups}
    reached, why = reach.reached(given.analysis, gone, given.contractions, given.feeds, given.seed, progress)
    reached |= trial.tried(given.analysis, {id: gone[id] for id in why}, given.contractions, given.feeds, progress)
    found = {}
    for id, ranking in rankings.items():
        foreseen = max(float(ranking.errors[len(gone[id])]), _LEAST)
        weight = (max(reached[id], _LEAST) / foreseen) ** POWER
        found[id] = Ranking(ranking.scores, ranking.errors * weight)
    return found, why


def _first(group: Group, ranking: Ranking) -> IntArray:
    """The classes that would go first."""
    free = np.flatnonzero(~group.pinned)
    count = min(max(1, int(SHARE * group.size)), len(free), group.size - group.least)
    return np.asarray(free[np.argsort(ranking.scores[free], kind="stable")][:count], np.int64)
