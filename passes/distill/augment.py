"""Pictures made different by what a model should not mind, and mixed.

Shifts, crops, brightness and contrast; and pictures laid over each other (mixup), of which the teacher says what they
are: with few inputs that keeps most (Beyer et al., Knowledge distillation: a good teacher is patient and consistent,
CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run.runtime import Feeds

Augment = Callable[[Feeds, np.random.Generator], Feeds]

_SHIFT, _ZOOM = 0.06, 0.1
"""At most so much of the sides."""
_BRIGHTNESS, _CONTRAST = 0.15, 0.2
"""At most so much of the deviation of a picture's elements."""
_MIX = 0.5
"""At most so much of another picture."""
_LEAST = 8
"""Shorter sides are of no picture."""


def pictures(model: Model) -> dict[str, int]:
    """Inputs that are pictures, with the axis of their channels: four axes, one of 1 or 3 channels, and floats."""
    found = {}
    for value in model.inputs:
        kind = value.type.tensor_type
        dims = [d.dim_value for d in kind.shape.dim]
        if len(dims) == 4 and kind.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            axis = next((k for k in (1, 3) if dims[k] in (1, 3)), None)
            if axis is not None and all(d == 0 or d >= _LEAST for k, d in enumerate(dims) if k not in (0, axis)):
                found[value.name] = axis
    return found


def augmenting(model: Model) -> Augment | None:
    """What changes a model's inputs, None where none is a picture."""
    axes = pictures(model)
    if not axes:
        return None

    def augment(feeds: Feeds, rng: np.random.Generator) -> Feeds:
        return {n: changed(v, axes[n], rng) if n in axes else v for n, v in feeds.items()}

    return augment


def changed(pictures: Values, channels: int, rng: np.random.Generator) -> Values:
    """Pictures moved, zoomed and lit otherwise, each by itself, and each mixed with another.

    Args:
        pictures: of four axes, samples first.
        channels: the axis of their channels.
        rng: draws what is done.
    """
    made = np.empty_like(pictures)
    rows, columns = (2, 3) if channels == 1 else (1, 2)
    for k, picture in enumerate(pictures):
        for axis in (rows - 1, columns - 1):
            picture = _resampled(picture, axis, rng)
        deviation, mean = float(picture.std()), float(picture.mean())
        light = deviation * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
        made[k] = (picture - mean) * (1 + rng.uniform(-_CONTRAST, _CONTRAST)) + mean + light
    if len(made) > 1:
        share = rng.uniform(0, _MIX, (len(made), 1, 1, 1)).astype(made.dtype)
        made += share * (made[rng.permutation(len(made))] - made)
    return made


def _resampled(picture: Values, axis: int, rng: np.random.Generator) -> Values:
    """Zoomed and shifted along an axis, with linear interpolation; beyond an edge stands what is there."""
    size = picture.shape[axis]
    zoom, shift = 1 + rng.uniform(-_ZOOM, _ZOOM), rng.uniform(-_SHIFT, _SHIFT) * size
    middle = (size - 1) / 2
    places = np.clip((np.arange(size) - middle) * zoom + middle + shift, 0, size - 1)
    low = np.minimum(places.astype(np.int64), size - 2)
    part = (places - low).astype(picture.dtype)
    shape = [1] * picture.ndim
    shape[axis] = size
    one, two = (np.take(picture, low + k, axis) for k in (0, 1))
    return one + (two - one) * part.reshape(shape)
