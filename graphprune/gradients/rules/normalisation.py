"""What is normalised by statistics of its own, or by given ones.

All are ``y = z * scale + bias`` with ``z = (x - mean) / deviation``, over different axes. Of ``s = g * scale``, the
gradient of ``x`` is ``(s - mean(s) - z * mean(s * z)) / deviation``, without the first mean where none is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Dims, Term


@dataclass(frozen=True)
class Normed:
    """A tensor of mean zero and deviation one.

    Attributes:
        z: its elements.
        inverse: one by the deviation that it had.
        axes: over which statistics are taken.
        centred: whether a mean was taken off.
    """

    z: Term
    inverse: Term
    axes: Sequence[int]
    centred: bool

    def back(self, s: Term) -> Term:
        """The gradient of what was normalised, by that of ``z``."""
        inner = s - self.z * (s * self.z).mean(self.axes)
        return (inner - s.mean(self.axes) if self.centred else inner) * self.inverse


def normed(x: Term, axes: Sequence[int], epsilon: float, centred: bool = True) -> Normed:
    """A tensor normalised over axes."""
    rest = x - x.mean(axes) if centred else x
    inverse = 1 / ((rest * rest).mean(axes) + epsilon).unary("Sqrt")
    return Normed(rest * inverse, inverse, axes, centred)


def _last(b: Back) -> list[int]:
    """Axes from ``axis`` on, counted from the end."""
    axis, rank = b.attr("axis", -1), b.x[0].rank
    if axis >= 0 and rank is None:
        raise NoGradientError("the rank of its input is not known")
    return list(range(axis if axis < 0 else axis - (rank or 0), 0))


def _layer(b: Back) -> Normed:
    """As the kernel of the forward pass does it at once, where it can."""
    x, scale, axes, epsilon = b.x[0], b.x[1], _last(b), b.attr("epsilon", 1e-5)
    if x.kind != TensorProto.FLOAT or x.rank is None:
        return normed(x, axes, epsilon)
    length = scale.dims[0] if scale.dims is not None and len(scale.dims) == 1 else None
    ones = b.tape.constant([1.0] * length, x.kind) if isinstance(length, int) else scale.filled(1)
    small: Dims = (*x.dims[: len(axes) * -1], *[1] * len(axes)) if x.dims is not None else ()
    z, _, inverse = b.tape.ops(
        "LayerNormalization",
        *(x, ones),
        kinds=[x.kind] * 3,
        dims=[x.dims, small, small],
        axis=axes[0],
        epsilon=epsilon,
    )
    return Normed(z, inverse, axes, True)


@rule("LayerNormalization")
def _layer_normalization(b: Back) -> Sequence[Gradient]:
    done = _layer(b)
    dx = _statistics(b, done)
    if b.g[0] is not None:
        inner = done.back(b.g0 * b.x[1])
        dx = inner + dx if dx is not None else inner
    return [dx if b.needs(0) else None, *_affine(b, done.z)]


def _statistics(b: Back, done: Normed) -> Term | None:
    """What gradients of the mean and of one by the deviation, which are outputs too, give to ``x``."""
    mean, inverse = (b.g[k] if len(b.g) > k else None for k in (1, 2))
    if mean is None and inverse is None:
        return None
    if b.x[0].rank is None:
        raise NoGradientError("the rank of its input is not known")
    many = done.z.filled(1).sum(done.axes)
    parts = [mean / many + done.z.zeros()] if mean is not None else []
    if inverse is not None:
        parts.append(-inverse * done.inverse * done.inverse * done.z / many)
    return b.tape.total(parts)


def _affine(b: Back, z: Term) -> list[Gradient]:
    scale = (b.g0 * z).sum_to(b.x[1]) if b.needs(1) else None
    return [scale, b.g0.sum_to(b.x[2]) if b.needs(2) else None]


@rule("RMSNormalization", "SimplifiedLayerNormalization")
@rule("SimplifiedLayerNormalization", domain="com.microsoft")
def _root_mean_square(b: Back) -> Sequence[Gradient]:
    if len(b.g) > 1 and any(g is not None for g in b.g[1:]):
        raise NoGradientError("its statistics have a gradient too")
    done = normed(b.x[0], _last(b), b.attr("epsilon", 1e-5), centred=False)
    return [done.back(b.g0 * b.x[1]) if b.needs(0) else None, *_affine(b, done.z)]


def _spatial(b: Back) -> tuple[int, list[int]]:
    """The rank of the input, and its axes but those of batch and channels."""
    rank = b.x[0].rank
    if rank is None:
        raise NoGradientError("the rank of its input is not known")
    return rank, list(range(2, rank))


def _channels(term: Term, rank: int) -> Term:
    """A value for each channel, where it is broadcast."""
    return term.unsqueeze(list(range(1, rank - 1)))


def _by_channel(b: Back, z: Term, rank: int) -> list[Gradient]:
    """Gradients of scale and bias, one of each for each channel."""
    axes = [0, *range(2, rank)]
    scale = (b.g0 * z).sum(axes, keep=False) if b.needs(1) else None
    return [scale, b.g0.sum(axes, keep=False) if b.needs(2) else None]


@rule("InstanceNormalization")
def _instance(b: Back) -> Sequence[Gradient]:
    rank, axes = _spatial(b)
    done = normed(b.x[0], axes, b.attr("epsilon", 1e-5))
    dx = done.back(b.g0 * _channels(b.x[1], rank)) if b.needs(0) else None
    return [dx, *_by_channel(b, done.z, rank)]


@rule("BatchNormalization")
def _batch(b: Back) -> Sequence[Gradient]:
    """By given statistics; in training by those of the batch."""
    rank, axes = _spatial(b)
    x, g, epsilon = b.x[0], b.g0, b.attr("epsilon", 1e-5)
    if b.attr("training_mode", 0):
        return _batch_in_training(b, rank, [0, *axes], epsilon)
    inverse = 1 / (b.x[4].cast(x.kind) + epsilon).unary("Sqrt")
    gain = b.x[1].cast(x.kind) * inverse
    found: list[Gradient] = [g * _channels(gain, rank) if b.needs(0) else None, None, None, None, None]
    if not any(b.needs(i) for i in range(1, 5)):
        return found
    total = g.sum([0, *axes], keep=False)
    along = (g * (x - _channels(b.x[3].cast(x.kind), rank))).sum([0, *axes], keep=False)
    found[1:] = [along * inverse, total, -total * gain, along * gain * inverse * inverse * -0.5]
    return [part if b.needs(i) else None for i, part in enumerate(found)]


def _batch_in_training(b: Back, rank: int, axes: Sequence[int], epsilon: float) -> Sequence[Gradient]:
    """By statistics of the batch, which also move the running ones, outputs 1 and 2."""
    x, kept = b.x[0], b.attr("momentum", 0.9)
    done = normed(x, axes, epsilon)
    dx = done.back(b.g0 * _channels(b.x[1], rank))
    mean, variance = (b.g[k] if len(b.g) > k else None for k in (1, 2))
    for given, slope in ((mean, None), (variance, done.z / done.inverse * 2)):
        if given is not None:
            part = _channels(given * (1 - kept), rank) / x.filled(1).sum(axes)
            dx = dx + (part * slope if slope is not None else part)
    running = [given * kept if given is not None else None for given in (mean, variance)]
    return [dx, *_by_channel(b, done.z, rank), *running]


@rule("GroupNormalization")
def _group(b: Back) -> Sequence[Gradient]:
    """Scale and bias are one for each channel, before opset 21 one for each group."""
    rank, _ = _spatial(b)
    x, g, groups = b.x[0], b.g0, b.attr("num_groups")
    rows = [0, groups, -1]
    done = normed(x.reshape(rows), [2], b.attr("epsilon", 1e-5))
    if b.known.opset < 21:
        flat = g.reshape(rows)
        s, z = flat * b.x[1].unsqueeze([1]), done.z
    else:
        flat, z = g, done.z.shaped_as(x)
        s = (g * _channels(b.x[1], rank)).reshape(rows)
    axes = [0, *range(2, rank if b.known.opset >= 21 else 3)]
    dx = done.back(s).reshape(x.shape()) if b.needs(0) else None
    scale = (flat * z).sum(axes, keep=False) if b.needs(1) else None
    return [dx, scale, flat.sum(axes, keep=False) if b.needs(2) else None]
