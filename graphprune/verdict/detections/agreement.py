"""How far what one model finds is what another finds: the first one's boxes are taken for true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from graphprune.verdict.detections.boxes import MOST, Found
from graphprune.verdict.detections.precision import average_precisions, matched

SCORE = 0.25
"""Score from which on a box is taken for one that is there."""


@dataclass(frozen=True)
class Agreement:
    """What two models find in the same images.

    Attributes:
        map: mean average precision of the second's boxes at IoU 0.5 to 0.95, where the first's with a score of
            :data:`SCORE` and more are there; NaN where there are none.
        map50: the same at IoU 0.5 alone.
        images: how many.
        boxes: of the first.
        lost: of these, how many the second does not find at IoU 0.5 and :data:`SCORE`.
        new: boxes of the second, of :data:`SCORE` and more, that are none of the first's.
    """

    map: float
    map50: float
    images: int
    boxes: int
    lost: int
    new: int

    def to_json(self) -> dict[str, float]:
        """As plain data."""
        return asdict(self)


def agreement(original: Sequence[Found], other: Sequence[Found]) -> Agreement:
    """How far what another model finds is what the original finds; 1 where it is the same.

    Args:
        original, other: by image what each finds, ranked (see ``forms``). Of each image the first
            :data:`~graphprune.verdict.detections.boxes.MOST` count, on both sides.
    """
    truth, sure = ([one.above(SCORE).at(slice(MOST)) for one in side] for side in (original, other))
    boxes = sum(map(len, truth))
    hits = int(matched(truth, sure)[:, 0].sum())
    found = average_precisions(truth, other) if boxes else np.full((1, 10), np.nan)
    return Agreement(
        float(found.mean()), float(found[:, 0].mean()), len(truth), boxes, boxes - hits, sum(map(len, sure)) - hits
    )
