"""Mean average precision, as COCO counts it (Lin et al., 2014; ``pycocotools.cocoeval``).

Detections of a class are taken over all images, the highest score first. Each finds the box of its image and class that
it overlaps most of those that none before it has found, if by at least a threshold of IoU. Precision, made to fall
monotonically, is averaged at 101 levels of recall, over thresholds from 0.5 to 0.95, and over classes that have boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graphprune.verdict.detections.boxes import MOST, Floats, Found, overlaps

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Of intersection over union."""
_RECALLS = np.linspace(0, 1, 101)


def average_precisions(truth: Sequence[Found], found: Sequence[Found]) -> Floats:
    """By class that has boxes and by threshold the average precision, ``[classes, thresholds]``.

    Args:
        truth: by image, what is there.
        found: by image what was found, ranked; the first :data:`~graphprune.verdict.detections.boxes.MOST` count.
    """
    found = [one.at(slice(MOST)) for one in found]
    right = matched(truth, found)
    scores, classes = (np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "classes"))
    hits = np.concatenate([own[:, : len(one)] for own, one in zip(right, found, strict=True)], 1)
    order = np.argsort(-scores, kind="stable")
    kinds, counts = np.unique(np.concatenate([one.classes for one in truth]), return_counts=True)
    rows = [_averaged(hits[:, order[classes[order] == kind]], n) for kind, n in zip(kinds, counts, strict=True)]
    return np.array(rows, np.float64).reshape(-1, len(THRESHOLDS))


def matched(truth: Sequence[Found], found: Sequence[Found]) -> npt.NDArray[np.bool_]:
    """Which detections find a box: ``[images, thresholds, most detections of an image]``.

    All images and thresholds at once, the detections of an image one after the other.
    """
    deep, wide = max([len(one) for one in found], default=0), max([len(one) for one in truth], default=0)
    shared = np.zeros((len(truth), deep, wide))
    for place, (own, other) in enumerate(zip(truth, found, strict=True)):
        same = other.classes[:, None] == own.classes
        shared[place, : len(other), : len(own)] = overlaps(other.boxes, own.boxes) * same
    free = np.ones((len(truth), len(THRESHOLDS), wide), bool)
    right = np.zeros((len(truth), len(THRESHOLDS), deep), bool)
    if not wide:
        return right
    images, levels = np.ogrid[: len(truth), : len(THRESHOLDS)]
    for rank in range(deep):
        near = np.where(free, shared[:, rank, None, :], -1.0)
        best = near.argmax(2)
        hit = near[images, levels, best] >= THRESHOLDS - 1e-10
        right[:, :, rank] = hit
        free[images, levels, best] &= ~hit
    return right


def _averaged(hits: npt.NDArray[np.bool_], count: int) -> Floats:
    """By threshold the average precision of ranked detections of one class that has so many boxes."""
    true = hits.cumsum(1)
    recall = true / count
    precision = true / np.arange(1, hits.shape[1] + 1)
    falling = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.concatenate([falling, np.zeros((len(hits), 1))], 1)
    places = [np.searchsorted(row, _RECALLS, "left") for row in recall]
    return np.array([row[at].mean() for row, at in zip(padded, places, strict=True)])
