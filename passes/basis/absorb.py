"""Gains go into the weights that read what they multiply: ``(x * g) W = x (g W)``, so that a norm is isotropic.

What is added behind a gain is divided by it: ``x * g + b = g * (x + b / g)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.mixing import Gain, Mixing, Segment
from graphprune.analysis.reasons import Reason
from graphprune.model import Model, Use, node_name
from graphprune.model.editor import Editor
from graphprune.passes.basis import constants
from graphprune.relation import Values
from graphprune.run.moments import FloatArray

_MOST = 1e3
"""What is added behind a gain may become so large beside what it is added to, without being rounded away."""


@dataclass
class Absorbed:
    """What becomes of the gains of a model.

    Attributes:
        values: by use of a constant what it is to hold.
        stayed: by id of a group why its gains stay as they are.
    """

    values: dict[Use, Values] = field(default_factory=dict)
    stayed: dict[str, Reason] = field(default_factory=dict)


def uniform(analysis: Analysis, mixing: Mixing, gain: Gain) -> bool:
    """Whether a gain is the same for all classes."""
    found = _gain(analysis, mixing, gain)
    return found is not None and bool((found == found[0]).all())


def absorb(analysis: Analysis, mixings: Sequence[Mixing]) -> Absorbed:
    """Make the gains of some groups 1: of each group all, or none where one of them must stay.

    Args:
        analysis: of the model.
        mixings: how a change of basis passes each of the groups.
    """
    found = Absorbed()
    for mixing in mixings:
        values = dict(found.values)
        uneven = [gain for gain in mixing.gains if not uniform(analysis, mixing, gain)]
        whys = ((gain, _absorb(analysis, mixing, gain, values)) for gain in uneven)
        stuck = next(((gain, why) for gain, why in whys if why is not None), None)
        if stuck is None:
            found.values.update(values)
        else:
            gain, why = stuck
            found.stayed[mixing.group.id] = Reason(why, node_name(analysis.model, gain.use.node))
    return found


def absorbed(analysis: Analysis, values: dict[Use, Values]) -> Model:
    """The model with these constants."""
    editor = Editor(analysis.model)
    constants.write(analysis, editor, values)
    return editor.finish()


def _gain(analysis: Analysis, mixing: Mixing, gain: Gain) -> FloatArray | None:
    """For each class what it is multiplied by; None where that differs from strand to strand."""
    axis, own = constants.strands(analysis, mixing, gain.use)
    value = analysis.model.array(analysis.root(gain.use))
    flat = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float64)
    rows = np.concatenate([flat[:, elements] for elements in own])
    return rows[0] if (rows == rows[0]).all() else None


def _absorb(analysis: Analysis, mixing: Mixing, gain: Gain, values: dict[Use, Values]) -> str | None:
    """Put one gain into the weights behind it; a reason where it must stay."""
    factor = _gain(analysis, mixing, gain)
    segment = _behind(mixing, gain)
    if factor is None:
        return "its gain is not one number for each class"
    if segment is None or segment.fed != 1 or segment.normed or segment.centred:
        return "what its gain multiplies is not read by weights alone: a sum or a norm follows (post-norm)"
    tensors = analysis.web.tensors
    read = [(tensors[(m.node, ("in", m.left))], tensors[(m.node, ("in", m.right))]) for m in segment.meetings]
    weights = [use for pair in read for use in pair if isinstance(use, Use)]
    if len(weights) < len(read):
        return "what its gain multiplies is multiplied by another activation"
    why = constants.hindrance(analysis, [gain.use, *weights, *segment.written])
    if why is not None:
        return why
    shifts = {use: _divided(analysis, mixing, use, factor) for use in segment.written}
    if any(shift is None for shift in shifts.values()):
        return "its gain is all but zero where something is added behind it"
    for use in dict.fromkeys(weights):
        values[use] = _scaled(analysis, mixing, use, factor, values)
    values.update((use, shift) for use, shift in shifts.items() if shift is not None)
    values[gain.use] = np.ones_like(analysis.model.array(analysis.root(gain.use)))
    return None


def _behind(mixing: Mixing, gain: Gain) -> Segment | None:
    """The segment that a gain writes to."""
    numbers = {mixing.segment_of[strand] for strand in gain.strands}
    return mixing.segments[numbers.pop()] if len(numbers) == 1 else None


def _scaled(analysis: Analysis, mixing: Mixing, use: Use, factor: FloatArray, values: dict[Use, Values]) -> Values:
    """A constant with its strands multiplied by a gain."""
    axis, own = constants.strands(analysis, mixing, use)
    held = values[use] if use in values else analysis.model.array(analysis.root(use))
    last = np.array(np.moveaxis(held, axis, -1), np.float64)
    for elements in own:
        last[..., elements] *= factor
    return np.ascontiguousarray(np.moveaxis(last, -1, axis)).astype(held.dtype)


def _divided(analysis: Analysis, mixing: Mixing, use: Use, factor: FloatArray) -> Values | None:
    """What is added behind a gain, as it is added before it; None where that would be too large."""
    held = analysis.model.array(analysis.root(use))
    if not held.any():
        return held
    inverse = 1 / np.where(factor == 0, 1, factor)
    found = _scaled(analysis, mixing, use, inverse, {})
    axis, own = constants.strands(analysis, mixing, use)
    last = np.moveaxis(held, axis, -1)
    lost = any(last[..., elements][..., factor == 0].any() for elements in own)
    return None if lost or np.abs(found).max() > _MOST else found
