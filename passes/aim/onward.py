"""The next try: what may be left then, from what came of the tries before.

1. What widths do not tell exactly (bytes of a file, a time) is corrected: a budget that was missed by some factor is
   made smaller by it, until the target holds; between a budget that held and one that did not, their geometric mean.
2. A drop of the score is no budget. Where nothing else is aimed at, the share of the cost that is left is halved until
   the drop is too large; then it is looked for between what holds and what does not, where a line through both says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.passes.aim.course import Try

DROP = "drop"
_MARGIN = 0.998
_CLOSE, _LOOSE = 1e-6, 0.008
_SIDE = 0.2
"""Of a gap that is searched, how far from its ends the next try is at least."""


@dataclass(frozen=True)
class Rules:
    """What tries are judged by.

    Attributes:
        limits: by kind what may be left, or how far the score may drop.
        exact: kinds that widths tell, but for rounding.
        lead: the kind of cost that goes down where a drop alone is aimed at.
        whole: what the original has of it.
        tries: the most.
        loose: by kind how far below its limit what is not exact may stay, as a share; of others 0.8 %.
        fine: the gap of the lead at which a search for the most that can go ends, as a share.
    """

    limits: Mapping[str, float]
    exact: tuple[str, ...] = ("macs", "params")
    lead: str = "macs"
    whole: float = 1.0
    tries: int = 10
    loose: Mapping[str, float] = field(default_factory=lambda: {"latency": 0.03})
    fine: float = 0.03

    def holds(self, left: Mapping[str, float]) -> bool:
        """Whether all targets hold."""
        return all(left[kind] <= limit * (1 + _CLOSE) for kind, limit in self.limits.items())

    def over(self, left: Mapping[str, float]) -> float:
        """How far the target that is missed most is missed; at most 1 where all hold."""
        return max(left[kind] / limit for kind, limit in self.limits.items())


def onward(rules: Rules, tries: Sequence[Try]) -> dict[str, float] | None:
    """Budgets for the next try, None where the course is at its end.

    Args:
        rules: what tries are judged by.
        tries: so far, the last one behind.
    """
    last = tries[-1]
    if len(tries) >= rules.tries:
        return None
    if set(rules.limits) == {DROP}:
        return _deeper(rules, tries)
    missed = {k: last.left[k] / limit for k, limit in rules.limits.items() if k != DROP}
    goals = dict(last.goals)
    for kind, over in missed.items():
        if over > 1 + _CLOSE or (kind not in rules.exact and over < 1 - rules.loose.get(kind, _LOOSE)):
            goals[kind] = _corrected(kind, over, tries, rules.limits[kind])
    if DROP in rules.limits and last.left[DROP] > rules.limits[DROP] and max(missed.values()) <= 1 + _CLOSE:
        return None  # what else is aimed at asks for no less
    return None if goals in [one.goals for one in tries] else goals


def _corrected(kind: str, over: float, tries: Sequence[Try], limit: float) -> float:
    held = [one.goals[kind] for one in tries if one.left[kind] <= limit]
    failed = [one.goals[kind] for one in tries if one.left[kind] > limit]
    margin = _MARGIN ** (1 + len(failed) ** 2)  # widths go in steps, and may stay the same
    guess = tries[-1].goals[kind] / over * margin
    if held and failed and not max(held) < guess < min(failed):
        return float((max(held) * min(failed)) ** 0.5) if max(held) < min(failed) else guess
    return guess


def _deeper(rules: Rules, tries: Sequence[Try]) -> dict[str, float] | None:
    """The next share of the cost, where as much is to go as a drop allows."""
    lead, limit = rules.lead, rules.limits[DROP]
    held = {one.left[lead]: one.left[DROP] for one in tries if one.holds}
    failed = {one.goals[lead]: one.left[DROP] for one in tries if not one.holds}  # less than that comes to the same
    if not failed:
        stuck = len(tries) > 1 and tries[-1].left[lead] >= tries[-2].left[lead] * (1 - _CLOSE)
        return None if stuck else {lead: tries[-1].left[lead] / 2}
    high, low = min(held, default=rules.whole), max(failed)
    if high / low < 1 + rules.fine:
        return None
    least, most = held.get(high, 0.0), failed[low]
    part = (limit - least) / (most - least) if np.isfinite(most) and most > least else 0.5
    return {lead: high * (low / high) ** min(max(part, _SIDE), 1 - _SIDE)}
