"""Drawn images with boxes that are known, and how well a detector finds them: rectangles, ellipses and triangles.

Images are ``[n, 3, 96, 96]`` in [0, 1], as detectors take them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

from graphprune.model import Model
from graphprune.verdict.detections import Found, find
from graphprune.verdict.detections.precision import average_precisions

SIZE = 96
NAMES = {0: "rectangle", 1: "ellipse", 2: "triangle"}
MOST = 4
"""Shapes in one image."""
SCORED = 400
"""Held-out images."""
_SEEDS = {"train": 1, "held out": 2}
Array = npt.NDArray[np.float32]


@cache
def drawn(part: str, count: int) -> tuple[Array, tuple[npt.NDArray[np.float64], ...]]:
    """The first images of a part, ``train`` or ``held out``, and for each its boxes: rows of x1, y1, x2, y2, class."""
    pictures, boxes = [], []
    for number in range(count):
        picture, found = _picture(np.random.default_rng([_SEEDS[part], number]))
        pictures.append(picture)
        boxes.append(found)
    return np.stack(pictures), tuple(boxes)


def _picture(rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.float64]]:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    slope = rng.normal(0, 0.15, (2, 3, 1, 1))
    canvas = rng.uniform(0.1, 0.9, (3, 1, 1)) + slope[0] * (x / SIZE - 0.5) + slope[1] * (y / SIZE - 0.5)
    boxes: list[list[float]] = []
    for _ in range(rng.integers(1, MOST + 1)):
        box = _free(rng, boxes)
        if box is None:
            continue
        kind = int(rng.integers(len(NAMES)))
        inside = _inside(kind, int(rng.integers(4)), (x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1]))
        ink = canvas.mean((1, 2), keepdims=True) + rng.choice([-1, 1], (3, 1, 1)) * rng.uniform(0.12, 0.45, (3, 1, 1))
        canvas = np.where(inside, ink, canvas)
        boxes.append([*box, kind])
    canvas = canvas + rng.normal(0, rng.uniform(0.02, 0.12), canvas.shape)
    return np.clip(canvas, 0, 1).astype(np.float32), np.array(boxes, np.float64).reshape(-1, 5)


def _free(rng: np.random.Generator, taken: list[list[float]]) -> list[float] | None:
    """A box that covers little of others; None where none is found soon."""
    for _ in range(20):
        w, h = rng.integers(10, 45, 2)
        left, top = rng.integers(0, SIZE - w), rng.integers(0, SIZE - h)
        box = [float(left), float(top), float(left + w), float(top + h)]
        shared = (_shared(box, other) for other in taken)
        if all(both < 0.2 * min(w * h, (o[2] - o[0]) * (o[3] - o[1])) for both, o in zip(shared, taken, strict=True)):
            return box
    return None


def _shared(a: list[float], b: list[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _inside(kind: int, turn: int, u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where a shape is, in coordinates in which its box is the unit square; a triangle points to one of four sides."""
    square = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    if kind == 0:
        return square
    if kind == 1:
        return (u - 0.5) ** 2 + (v - 0.5) ** 2 <= 0.25
    along, across = ((v, u), (1 - v, u), (u, v), (1 - u, v))[turn]
    return square & (np.abs(across - 0.5) <= along / 2)


def precision(model: ModelProto) -> float:
    """Mean average precision at IoU 0.5 to 0.95 of a detector on held-out images."""
    truth = [Found(own[:, :4], np.ones(len(own)), own[:, 4].astype(np.int64)) for own in drawn("held out", SCORED)[1]]
    return float(average_precisions(truth, found(model)).mean())


def found(model: ModelProto) -> list[Found]:
    """What a detector finds in each held-out image."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    active = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = drawn("held out", SCORED)[0]
    made = [active.run(None, {"images": x[k : k + 50]}) for k in range(0, len(x), 50)]
    form = find(Model(model), made, "scores")
    return [one for outputs in made for one in form.read(outputs)]
