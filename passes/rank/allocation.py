"""Which weights give how much: ranks at which least is lost for what is saved.

Each weight has a curve of what it loses for what it saves. On the lower hull of each, steps are taken in the order of
loss per saving, over all weights (the greedy solution of the multiple-choice knapsack problem: Sinha and Zoltners,
1979); the last step is cut back to what is still asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from graphprune.passes.rank.spectra import Spectrum
from graphprune.relation import IntArray
from graphprune.run.moments import FloatArray

Saving = Callable[[int, int], float]
"""Of a weight, by its number, what is saved at a rank."""
_STEP = 8
"""Ranks are multiples of this: kernels work in blocks."""
_LEAST = 0.1
"""Share of a weight's elements that must go."""
TOLERATED = 0.01
"""What ``auto`` lets each weight lose of the energy of what it makes."""
SWAY = 1e-4
"""And what it lets outputs lose by that, as far as gradients tell, beside their variance."""


def ranks(one: Spectrum) -> IntArray:
    """Ranks that save enough elements to pay for a second node, ascending."""
    site = one.site
    most = int((1 - _LEAST) * site.elements / (site.sums + site.outputs))
    return np.arange(_STEP, min(most, len(one.lost) - 1) + 1, _STEP)


def within(spectra: Sequence[Spectrum], saved: Saving, worth: FloatArray | None) -> dict[int, int]:
    """Ranks at which no weight loses more than is tolerated, by the number of the weight; those that save are in."""
    chosen = {}
    for number, one in enumerate(spectra):
        most = TOLERATED if worth is None else min(TOLERATED, SWAY / max(float(worth[number]), 1e-30))
        fine = [int(r) for r in ranks(one) if one.lost[r] <= most and saved(number, int(r)) > 0]
        if fine:
            chosen[number] = fine[0]
    return chosen


def cheapest(
    spectra: Sequence[Spectrum], saved: Saving, worth: FloatArray | None, wanted: float
) -> tuple[dict[int, int], float]:
    """Ranks by the number of the weight that save what is wanted and lose least.

    Args:
        spectra: what weights lose.
        saved: what is saved.
        worth: for each weight what all that it makes is worth; None where all are worth the same.
        wanted: what is to be saved.

    Returns:
        The ranks; and what they save, which is less than wanted where no ranks save that.
    """
    curves = [_curve(one, number, saved, worth) for number, one in enumerate(spectra)]
    steps: list[tuple[float, int, int, int]] = []
    for number, (_, gains, losses) in enumerate(curves):
        for before, after in pairwise(_hull(gains, losses)):
            price = float((losses[after] - losses[before]) / (gains[after] - gains[before]))
            steps.append((price, number, before, after))
    chosen, total = dict[int, int](), 0.0
    for _, number, before, after in sorted(steps):
        if total >= wanted:
            break
        own, gains, losses = curves[number]
        if gains[after] - gains[before] > wanted - total:  # the last step: no further than is asked for
            enough = np.flatnonzero(gains - gains[before] >= wanted - total)
            after = int(enough[np.argmin(losses[enough])])
        chosen[number], total = int(own[after]), total + float(gains[after] - gains[before])
    return chosen, total


def _curve(
    one: Spectrum, number: int, saved: Saving, worth: FloatArray | None
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Ranks, descending, with what is saved and lost; the first is the weight as it is."""
    own = ranks(one)[::-1]
    gains = np.array([0.0, *(saved(number, int(r)) for r in own)])
    losses = np.array([0.0, *one.lost[own]]) * (1.0 if worth is None else worth[number])
    return np.array([0, *own]), gains, losses


def _hull(gains: FloatArray, losses: FloatArray) -> list[int]:
    """Corners of the lower hull, from the first point on, over points that gain more and more."""
    corners = [0]
    for place in np.argsort(gains, kind="stable"):
        if gains[place] <= gains[corners[-1]]:
            continue
        while len(corners) > 1 and _above(gains, losses, corners[-2], corners[-1], int(place)):
            corners.pop()
        corners.append(int(place))
    return corners


def _above(gains: FloatArray, losses: FloatArray, first: int, middle: int, last: int) -> bool:
    """Whether a point lies on or above the line between two others."""
    rise = (losses[last] - losses[first]) * (gains[middle] - gains[first])
    return bool((losses[middle] - losses[first]) * (gains[last] - gains[first]) >= rise)
