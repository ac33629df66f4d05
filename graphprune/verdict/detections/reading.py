"""Boxes out of outputs, by the form that these have (see ``forms``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphprune.relation import Values
from graphprune.verdict.detections.boxes import Found, cornered, ranked, suppressed

_SLACK = 1e-3


def scores(rows: Values, classes: int) -> list[Found]:
    """Of ``[n, cells, 4 + classes]``: centre, width, height, and a score a class; the best one of each cell counts."""
    return [_best(one[:, :4], one[:, 4 : 4 + classes] if classes else one[:, 4:]) for one in rows]


def objects(rows: Values, classes: int) -> list[Found]:
    """The same with how sure it is of any object before the scores, which are its times that of a class."""
    own = rows[..., 5 : 5 + classes] if classes else rows[..., 5:]
    return [_best(one[:, :4], each) for one, each in zip(rows, rows[..., 4:5] * own, strict=True)]


def _best(boxes: Values, values: Values) -> Found:
    kinds = values.argmax(1)
    return suppressed(ranked(cornered(boxes), np.take_along_axis(values, kinds[:, None], 1), kinds))


def final(rows: Values, classes: int) -> list[Found]:
    """Of ``[n, boxes, 6]``: corners, score, class. What lies behind is not looked at."""
    return [ranked(one[:, :4], one[:, 4], one[:, 5]) for one in rows]


def softmax(boxes: Values, logits: Values) -> list[Found]:
    """Queries whose classes share one probability with none, the last."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return _queries(boxes, (shifted / shifted.sum(-1, keepdims=True))[..., :-1])


def sigmoid(boxes: Values, logits: Values) -> list[Found]:
    """Queries whose classes have a probability each."""
    with np.errstate(over="ignore"):
        return _queries(boxes, 1 / (1 + np.exp(-logits.astype(np.float64))))


def _queries(boxes: Values, values: Values) -> list[Found]:
    """The best class of each query; queries do not find one thing twice, so that none goes."""
    kinds = values.argmax(-1)
    best = np.take_along_axis(values, kinds[..., None], -1)[..., 0]
    return [ranked(cornered(one), own, kind) for one, own, kind in zip(boxes, best, kinds, strict=True)]


def lists(boxes: Values, values: Values, kinds: Values) -> list[Found]:
    """Corners, scores and classes, of one image or of several."""
    if boxes.ndim == 2:
        boxes, values, kinds = boxes[None], values[None], kinds[None]
    return [ranked(one, own, kind) for one, own, kind in zip(boxes, values, kinds, strict=True)]


def chosen(rows: Values) -> bool:
    """Whether ``[n, boxes, 6]`` holds corners in order, scores from 0 to 1, and whole classes."""
    ordered = (rows[..., :2] <= rows[..., 2:4] + _SLACK).all()
    return bool(ordered and _shares(rows[..., 4]) and (rows[..., 5] == np.rint(rows[..., 5])).all())


def plausible(name: str, last: bool, runs: Sequence[Values]) -> bool:
    """Whether what an output holds can be boxes of a form: scores from 0 to 1, sizes that are none below 0."""
    rows = [run if last else np.moveaxis(run, 1, -1) for run in runs]
    if name == "final":
        return all(chosen(one[..., :6]) for one in rows)
    return all(_shares(one[..., 4:]) and bool((one[..., 2:4] >= -_SLACK).all()) for one in rows)


def _shares(values: Values) -> bool:
    return bool(np.isfinite(values).all() and (values >= -_SLACK).all() and (values <= 1 + _SLACK).all())
