"""Boxes of one image: what was found, how far two boxes overlap, and which of many that overlap stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.relation import Values

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OVERLAP = 0.7
"""IoU above which the lower of two boxes of one class goes."""
FLOOR = 0.01
"""Scores below it are not looked at."""
MOST = 100
"""Boxes of one image, as COCO counts them."""
_CANDIDATES = 3000


@dataclass(frozen=True)
class Found:
    """What is found in one image, the highest score first.

    Attributes:
        boxes: ``[n, 4]``: left, top, right, bottom, in any unit.
        scores: ``[n]``.
        classes: ``[n]``.
    """

    boxes: Floats
    scores: Floats
    classes: Ints

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Found:
        """Those with at least this score."""
        return self.at(self.scores >= score)

    def at(self, places: npt.NDArray[np.bool_] | Ints | slice) -> Found:
        """Some of them."""
        return Found(self.boxes[places], self.scores[places], self.classes[places])


def ranked(boxes: Values, scores: Values, classes: Values) -> Found:
    """Boxes with a score above the floor, the highest first; of equal ones the first. What is not finite is none."""
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64).ravel()
    there = np.flatnonzero((scores >= FLOOR) & np.isfinite(scores) & np.isfinite(boxes).all(1))
    order = there[np.argsort(-scores[there], kind="stable")]
    return Found(boxes[order], scores[order], np.asarray(classes).ravel()[order].astype(np.int64))


def cornered(boxes: Values) -> Floats:
    """Corners of boxes that are given by centre, width and height in the last axis."""
    centre, half = np.asarray(boxes[..., :2], np.float64), np.asarray(boxes[..., 2:4], np.float64) / 2
    return np.concatenate([centre - half, centre + half], -1)


def overlaps(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes ``[..., n, 4]`` and ``[..., m, 4]``, as ``[..., n, m]``; 0 of empty ones."""
    one, other = a[..., :, None, :], b[..., None, :, :]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    whole = _areas(a)[..., :, None] + _areas(b)[..., None, :] - both
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)


def _areas(boxes: Floats) -> Floats:
    return np.asarray(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1))


def suppressed(found: Found, most: int = MOST) -> Found:
    """Greedy non-maximum suppression within each class: a box goes that overlaps one of a higher score by too much.

    Args:
        found: ranked.
        most: boxes that stay.
    """
    found = found.at(slice(_CANDIDATES))
    left, kept = np.arange(len(found)), list[int]()
    while len(left) and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        near = overlaps(found.boxes[best : best + 1], found.boxes[left])[0] > OVERLAP
        left = left[~(near & (found.classes[left] == found.classes[best]))]
    return found.at(np.array(kept, np.int64))
