"""Convolutions: the gradient of the image is a transposed convolution, that of the kernel a correlation.

With ``y[n, o, t] = sum w[o, c, k] x[n, c, s t + d k - p]`` for strides ``s``, dilations ``d`` and pads ``p``:

- ``dx`` is a convolution of ``g`` with the kernel turned round where all strides are 1, else a transposed one;
- ``dw[o, c, k] = sum over n and t of g[n, o, t] x[n, c, s t + d k - p]``. How it is computed fastest depends on sizes
  (tests/benchmarks/bench_gradients.py): see :func:`correlation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import Dims, Term

_TAPS = 32
"""Elements of a kernel's window up to which its gradient is a product for each of them."""
_CHANNELS = 8
"""Channels below which such products are too thin to be fast."""
_AREA = 400
"""Positions of an image up to which one product over all images is faster than one product for each."""
_BAND = 40
"""Width up to which the products of all columns of a depthwise convolution cost less than a product for each tap."""
_END = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Geometry:
    """How a window moves over an image; of each spatial axis, in order.

    Attributes:
        strides: steps of the window.
        dilations: steps within it.
        begins: padding in front.
        ends: padding behind.
        kernel: sizes of the window, None where they show at run time only.
        group: groups of channels.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    kernel: tuple[int, ...] | None
    group: int

    def attributes(self) -> dict[str, Any]:
        """As a node says it."""
        pads = [*self.begins, *self.ends]
        return {"strides": self.strides, "dilations": self.dilations, "pads": pads, "group": self.group}

    def reach(self) -> tuple[int, ...]:
        """From the first to the last element of the window, 0 for one element."""
        assert self.kernel is not None
        return tuple(d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True))


@rule("Conv")
def _conv(b: Back) -> Sequence[Gradient]:
    x, w, g = b.x[0], b.x[1], b.g0
    how = _geometry(b, x.dims)
    image = spread(g, w, x, how) if b.needs(0) else None
    kernel = correlation(x, g, w, how) if b.needs(1) else None
    return [image, kernel, _bias(b)]


@rule("ConvTranspose")
def _conv_transpose(b: Back) -> Sequence[Gradient]:
    """The same two, with the parts of image and gradient exchanged."""
    x, w, g = b.x[0], b.x[1], b.g0
    how = _transposed(b)
    image = crop(b.tape.op("Conv", g, w, **how.attributes()), x) if b.needs(0) else None
    return [image, correlation(g, x, w, how) if b.needs(1) else None, _bias(b)]


@rule("Col2Im")
def _columns(b: Back) -> Sequence[Gradient]:
    """Columns are added up in an image; the gradient of each is what a window sees: a kernel for each of its places."""
    block, tape = b.value(2), b.tape
    if block is None:
        raise NoGradientError("the size of its blocks is not known before the run")
    sizes, taps = [int(k) for k in block], int(np.prod(block))
    held = {n: v for n, v in b.attributes.items() if n in ("dilations", "pads", "strides")}
    one = tape.constant(np.eye(taps).reshape([taps, 1, *sizes]), b.g0.kind)
    images = b.g0.reshape(tape.join([tape.constant([-1, 1]), b.raw[1]]))
    return [tape.op("Conv", images, one, **held).reshape(b.x[0].shape())]


def _bias(b: Back) -> Term | None:
    if not b.needs(2):
        return None
    assert b.x[0].rank is not None
    return b.g0.sum([0, *range(2, b.x[0].rank)], keep=False)


def _geometry(b: Back, sizes: Dims | None) -> Geometry:
    """Of a convolution whose image has these dimensions."""
    count = _spatial(b)
    held, dims = b.attr("kernel_shape"), b.x[1].dims
    kernel = tuple(held) if held else _numbers(dims[2:] if dims is not None else None)
    strides, dilations = (tuple(b.attr(n) or (1,) * count) for n in ("strides", "dilations"))
    auto = b.attr("auto_pad", "NOTSET")
    pads = list(b.attr("pads") or [0] * 2 * count) if auto == "NOTSET" else [0] * 2 * count
    how = Geometry(strides, dilations, tuple(pads[:count]), tuple(pads[count:]), kernel, b.attr("group", 1))
    if not auto.startswith("SAME"):
        return how
    known = _numbers(sizes[2:] if sizes is not None else None) or ((0,) * count if set(strides) == {1} else None)
    if known is None or kernel is None:
        raise NoGradientError(f"auto_pad is {auto}, and the sizes that it depends on are not known before the run")
    totals = [
        max((-(-n // s) - 1) * s + r + 1 - n, 0) if s > 1 else r
        for n, s, r in zip(known, strides, how.reach(), strict=True)
    ]
    return _padded(how, totals, more_behind=auto == "SAME_UPPER")


def _transposed(b: Back) -> Geometry:
    """Of the convolution that a ConvTranspose transposes."""
    count = _spatial(b)
    auto, shape = b.attr("auto_pad", "NOTSET"), b.attr("output_shape")
    if shape is None and not auto.startswith("SAME"):
        return _geometry(b, None)
    held, dims = b.attr("kernel_shape"), b.x[1].dims
    kernel = tuple(held) if held else _numbers(dims[2:] if dims is not None else None)
    sizes = _numbers(b.x[0].dims[2:] if b.x[0].dims is not None else None)
    if kernel is None or sizes is None:
        raise NoGradientError("its padding depends on sizes that are not known before the run")
    strides, dilations = (tuple(b.attr(n) or (1,) * count) for n in ("strides", "dilations"))
    none = (0,) * count
    how = Geometry(strides, dilations, none, none, kernel, b.attr("group", 1))
    more = b.attr("output_padding") or none
    wanted = shape[-count:] if shape else [n * s for n, s in zip(sizes, strides, strict=True)]
    totals = [
        max((n - 1) * s + m + r + 1 - y, 0)
        for n, s, m, r, y in zip(sizes, strides, more, how.reach(), wanted, strict=True)
    ]
    return _padded(how, totals, more_behind=auto == "SAME_UPPER")


def _padded(how: Geometry, totals: Sequence[int], more_behind: bool) -> Geometry:
    """With padding parted in halves, the odd one behind or in front."""
    less = tuple(t // 2 for t in totals)
    more = tuple(t - t // 2 for t in totals)
    begins, ends = (less, more) if more_behind else (more, less)
    return Geometry(how.strides, how.dilations, begins, ends, how.kernel, how.group)


def _spatial(b: Back) -> int:
    """How many spatial axes there are."""
    rank = b.x[0].rank
    if rank is None or b.x[1].rank is None:
        raise NoGradientError("the ranks of its inputs are not known")
    return rank - 2


def _numbers(dims: Dims | None) -> tuple[int, ...] | None:
    """Sizes, where all are known."""
    found = tuple(d for d in dims or () if isinstance(d, int))
    return found if dims is not None and len(found) == len(dims) else None


def window(x: Term, starts: Sequence[int], stops: Sequence[int], axes: Sequence[int], steps: Sequence[int]) -> Term:
    """A slice along several axes; the tensor itself where all of it is asked for."""
    sizes = [x.dims[a] if x.dims is not None else None for a in axes]
    if all(p == 0 and q == n and s == 1 for p, q, n, s in zip(starts, stops, sizes, steps, strict=True)):
        return x
    return x.tape.op("Slice", x, *(x.tape.constant(list(v)) for v in (starts, stops, axes, steps)))


def crop(x: Term, like: Term) -> Term:
    """Its first elements along the spatial axes, as many as another tensor has."""
    assert like.rank is not None
    axes = list(range(2, like.rank))
    sizes = _numbers(like.dims[2:] if like.dims is not None else None)
    ends = x.tape.constant(list(sizes)) if sizes is not None else like.shape().cut(2, like.rank, 0)
    starts = x.tape.constant([0] * len(axes))
    return x.tape.op("Slice", x, starts, ends, x.tape.constant(axes), dims=like.dims)


def pad(x: Term, begins: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> Term:
    """With zeros around it."""
    if not any((*begins, *ends)):
        return x
    return x.tape.op("Pad", x, x.tape.constant([*begins, *ends]), None, x.tape.constant(list(axes)))


def spread(g: Term, w: Term, x: Term, how: Geometry) -> Term:
    """The gradient of a convolution's image ``x``: every element of ``g`` goes to where its window was."""
    if how.kernel is not None and set(how.strides) == {1}:
        begins, ends = (tuple(r - p for r, p in zip(how.reach(), pads, strict=True)) for pads in (how.begins, how.ends))
        if min(*begins, *ends) >= 0 and (how.group == 1 or _numbers(w.dims) is not None):
            back = Geometry(how.strides, how.dilations, begins, ends, how.kernel, how.group)
            return g.tape.op("Conv", g, _turned(w, how), dims=x.dims, **back.attributes())
    sizes, outs = (_numbers(t.dims[2:] if t.dims is not None else None) for t in (x, g))
    if sizes is None or outs is None or how.kernel is None:  # as long as it may have been, and cut to what it was
        more = [s - 1 for s in how.strides]
        return crop(g.tape.op("ConvTranspose", g, w, output_padding=more, **how.attributes()), x)
    behind = [
        (n - 1) * s + r + 1 - p - m
        for n, s, r, p, m in zip(outs, how.strides, how.reach(), how.begins, sizes, strict=True)
    ]
    cut = Geometry(how.strides, how.dilations, how.begins, tuple(max(v, 0) for v in behind), how.kernel, how.group)
    more = [max(-v, 0) for v in behind]
    return g.tape.op("ConvTranspose", g, w, dims=x.dims, output_padding=more, **cut.attributes())


def _turned(w: Term, how: Geometry) -> Term:
    """A kernel with its window turned round, and inputs and outputs exchanged within groups.

    A product with a permutation, which moves elements faster than a slice with steps back.
    """
    assert how.kernel is not None
    count, taps = len(how.kernel), int(np.prod(how.kernel))
    whole = _numbers(w.dims)
    if taps > 1 and whole is not None:
        turn = w.tape.constant(np.eye(taps)[::-1], w.kind)
        w = (w.reshape([-1, taps]) @ turn).reshape(list(whole))
    if how.group == 1:
        w = w.transpose([1, 0, *range(2, count + 2)])
    else:
        outs, ins = _numbers(w.dims[:2] if w.dims is not None else None) or (0, 0)
        parts = w.reshape([how.group, outs // how.group, ins, *how.kernel])
        order = [0, 2, 1, *range(3, count + 3)]
        w = parts.transpose(order).reshape([how.group * ins, outs // how.group, *how.kernel])
    long = [a for a, k in enumerate(how.kernel, 2) if k > 1 and whole is None]
    return window(w, [-1] * len(long), [-_END] * len(long), long, [-1] * len(long)) if long else w


def correlation(x: Term, g: Term, w: Term, how: Geometry) -> Term:
    """The gradient of a convolution's kernel ``w``, of image ``x`` and the gradient ``g`` of what it gave.

    Four ways, by what is known and how large it is; all give the same sums. Many small products need less memory moved
    than one convolution with windows as large as images; where those are small, one product over all images fills its
    rows; depthwise, products are of single rows.
    """
    kernel, outs = how.kernel, _numbers(g.dims[2:] if g.dims is not None else None)
    whole = _numbers(w.dims)
    if kernel is None or outs is None or whole is None:
        return by_convolution(x, g, w, how)
    channels = whole[:2]
    depthwise = channels == (how.group, 1)
    if depthwise and len(kernel) == 2 and outs[1] <= _BAND:
        return by_bands(x, g, w, how)
    if np.prod(kernel) > _TAPS or (channels[1] < _CHANNELS and not depthwise):
        return by_convolution(x, g, w, how)
    apart = 1 if set(how.strides) == {1} else 2  # steps along rows move single elements, unless channels come last
    if how.group == 1 and int(np.prod(outs)) <= _AREA * apart:
        return by_rows(x, g, w, how)
    return by_taps(x, g, w, how)


def by_convolution(x: Term, g: Term, w: Term, how: Geometry) -> Term:
    """A convolution with ``g`` as the kernel, images as channels, and channels as images; steps are dilations.

    Needs no size to be known.
    """
    tape, count = x.tape, len(how.strides)
    rest = list(range(2, count + 2))
    image = x.transpose([1, 0, *rest])
    if how.group > 1:
        parts = image.reshape(tape.join([tape.constant([how.group, -1]), _tail(image, 1)]))
        flat = tape.join([tape.constant([-1]), x.size(0) * how.group, _tail(x, 2)])
        image = parts.transpose([1, 0, *(k + 1 for k in (1, *rest))]).reshape(flat)
    swapped = Geometry(how.dilations, how.strides, how.begins, how.ends, None, how.group)
    found = crop(tape.op("Conv", image, g.transpose([1, 0, *rest]), **swapped.attributes()), w)
    return Term(tape, found.transpose([1, 0, *rest]).name, g.kind, w.dims)


def _tail(x: Term, start: int) -> Term:
    """Its dimensions from one on."""
    sizes = _numbers(x.dims[start:] if x.dims is not None else None)
    return x.tape.constant(list(sizes)) if sizes is not None else x.shape().cut(start, _END, 0)


def by_taps(x: Term, g: Term, w: Term, how: Geometry) -> Term:
    """For each element of the window a product for each image, added up."""
    channels, kernel, outs = _sizes(w, g)
    rows, columns, group = channels[0] // how.group, channels[1], how.group
    axes = list(range(2, len(outs) + 2))
    image = pad(x, how.begins, how.ends, axes)
    flat = g.reshape([0, group, rows, -1])
    products = []
    for starts, stops in _views(kernel, outs, how):
        seen = window(image, starts, stops, axes, how.strides).reshape([0, group, columns, -1])
        found = (flat @ seen.transpose([0, 1, 3, 2])).sum([0], keep=False)
        products.append(found.reshape([*channels, 1]))
    return x.tape.join(products, 2).reshape([*channels, *kernel])


def by_rows(x: Term, g: Term, w: Term, how: Geometry) -> Term:
    """For each element of the window one product over all images, with channels last; without groups."""
    channels, kernel, outs = _sizes(w, g)
    last = [0, *range(2, len(outs) + 2), 1]
    axes = list(range(1, len(outs) + 1))
    image = pad(x.transpose(last), how.begins, how.ends, axes)
    flat = g.transpose(last).reshape([-1, channels[0]])
    products = []
    for starts, stops in _views(kernel, outs, how):
        seen = window(image, starts, stops, axes, how.strides).reshape([-1, channels[1]])
        products.append(x.tape.op("Gemm", flat, seen, transA=1).reshape([*channels, 1]))
    return x.tape.join(products, 2).reshape([*channels, *kernel])


def _sizes(w: Term, g: Term) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Channels and window of a kernel, and positions of what it gave."""
    whole, outs = _numbers(w.dims), _numbers(g.dims[2:] if g.dims is not None else None)
    assert whole is not None and outs is not None
    return whole[:2], whole[2:], outs


def _views(kernel: Sequence[int], outs: Sequence[int], how: Geometry) -> Iterator[tuple[list[int], list[int]]]:
    """What each element of the window sees of the padded image: from where to where."""
    for tap in product(*map(range, kernel)):
        starts = [k * d for k, d in zip(tap, how.dilations, strict=True)]
        yield starts, [p + (n - 1) * s + 1 for p, n, s in zip(starts, outs, how.strides, strict=True)]


def by_bands(x: Term, g: Term, w: Term, how: Geometry) -> Term:
    """Of a depthwise convolution: for each row of the window, the product of all columns by all columns.

    What a column of ``g`` has to do with one of the image lies on diagonals. Where rows become longer by the stride,
    diagonals become columns.
    """
    tape, group = x.tape, how.group
    _, kernel, outs = _sizes(w, g)
    stride, dilation = how.strides[1], how.dilations[1]
    width = (outs[1] - 1) * stride + dilation * (kernel[1] - 1) + 1
    image = pad(x.transpose([1, 0, 2, 3]), how.begins, how.ends, [2, 3])
    flat = g.transpose([1, 0, 2, 3]).reshape([group, -1, outs[1]]).swapped()
    rows = []
    for k in range(kernel[0]):
        start = k * how.dilations[0]
        stop = start + (outs[0] - 1) * how.strides[0] + 1
        seen = window(image, [start, 0], [stop, width], [2, 3], [how.strides[0], 1]).reshape([group, -1, width])
        rows.append((flat @ seen).reshape([group, 1, outs[1] * width]))
    longer = pad(tape.join(rows, 1), [0], [outs[1] * stride], [2]).reshape([group, kernel[0], outs[1], width + stride])
    taps = window(longer, [0], [dilation * (kernel[1] - 1) + 1], [3], [dilation])
    return taps.reduced("ReduceSum", [2], keep=False).reshape([group, 1, *kernel])
