"""Which weights give how much: ranks at which least is lost for what is saved.

Each weight has a curve of what it loses for what it saves. On the lower hull of each, steps are taken in the order of
loss per saving, over all weights (the greedy solution of the multiple-choice knapsack problem: Sinha and Zoltners,
1979); the last step is cut back to what is still asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from graphprune.passes.rank.spectra import Spectrum
from graphprune.relation import IntArray
from graphprune.run.moments import FloatArray

Saving = Callable[[int, int], float]
"""Of a weight, by its number, what is saved at a rank."""
_STEP = 8
"""Ranks are multiples of this: kernels work in blocks."""
TOLERATED = 0.01
"""What ``auto`` lets each weight lose of the energy of what it makes."""
SWAY = 1e-4
"""And what it lets outputs lose by that, as far as gradients tell, beside their variance."""


def ranks(one: Spectrum) -> IntArray:
    """Ranks that save elements, ascending."""
    site = one.site
    most = (site.elements - 1) // (site.sums + site.outputs)
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
    curves, steps = [], list[tuple[float, int, int, float]]()
    for number, one in enumerate(spectra):
        own = ranks(one)[::-1]
        gains = np.array([0.0, *(saved(number, int(r)) for r in own)])
        losses = np.array([0.0, *one.lost[own] * (1.0 if worth is None else worth[number])])
        curves.append((np.array([0, *own]), gains, losses))
        corners = _hull(gains, losses)
        for before, after in zip(corners, corners[1:], strict=False):
            gain = float(gains[after] - gains[before])
            steps.append((float(losses[after] - losses[before]) / gain, number, after, gain))
    chosen, total = dict[int, int](), 0.0
    for _, number, place, gain in sorted(steps):
        if total >= wanted:
            break
        all_ranks, gains, losses = curves[number]
        if total + gain > wanted:
            own = float(gains[place]) - gain + wanted - total
            enough = np.flatnonzero(gains >= own)
            place = int(enough[np.argmin(losses[enough])])
            gain = float(gains[place]) - (float(gains[place_of(all_ranks, chosen, number)]))
        chosen[number], total = int(all_ranks[place]), total + gain
    return chosen, total


def place_of(all_ranks: IntArray, chosen: dict[int, int], number: int) -> int:
    """Where the rank that a weight has stands among those that it may have; 0 is the weight as it is."""
    return int(np.flatnonzero(all_ranks == chosen[number])[0]) if number in chosen else 0


def _hull(gains: npt.NDArray[np.float64], losses: npt.NDArray[np.float64]) -> list[int]:
    """Corners of the lower hull, from the first point on, over points that gain more and more."""
    corners = [0]
    for place in np.argsort(gains, kind="stable"):
        if gains[place] <= gains[corners[-1]]:
            continue
        while len(corners) > 1 and _above(gains, losses, corners[-2], corners[-1], int(place)):
            corners.pop()
        corners.append(int(place))
    return corners


def _above(gains: npt.NDArray[np.float64], losses: npt.NDArray[np.float64], first: int, middle: int, last: int) -> bool:
    """Whether a point lies on or above the line between two others."""
    rise = (losses[last] - losses[first]) * (gains[middle] - gains[first])
    return bool((losses[middle] - losses[first]) * (gains[last] - gains[first]) >= rise)
