"""Attention of com.microsoft, as ONNX's operators: projections, rotations, masks, and products with a softmax between.

Heads are axis 1: queries ``[batch, heads, length, size]``, keys and values ``[batch, heads, total, size]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.expansion import body
from graphprune.gradients.table import Back
from graphprune.gradients.terms import INT, Term

MICROSOFT = "com.microsoft"
_LOWEST: dict[int, float] = {TensorProto.FLOAT16: -65504.0}


def heads(x: Term, many: int) -> Term:
    """``[batch, length, heads * size]`` with the heads in front of the length."""
    size = x.dims[2] if x.dims is not None else None
    each = size // many if isinstance(size, int) else -1
    tape = x.tape
    cut = x.reshape(tape.join([x.size(0), x.size(1), tape.constant([many, each])]))
    dims = (x.dims[0], x.dims[1], many, each if each > 0 else None) if x.dims is not None else (None, None, many, None)
    return Term(tape, cut.name, x.kind, dims).transpose([0, 2, 1, 3])


def merged(x: Term) -> Term:
    """Heads behind the length again, as one axis."""
    tape, flat = x.tape, x.transpose([0, 2, 1, 3])
    return flat.reshape(tape.join([flat.size(0), flat.size(1), tape.constant([-1])]))


def lowest(kind: int) -> float:
    """What takes an element out of a softmax."""
    return _LOWEST.get(kind, float(np.finfo(np.float32).min))


def attended(q: Term, k: Term, v: Term, scale: float, masks: Sequence[Term], cap: float = 0.0) -> Term:
    """Values by how much their keys are asked for.

    Args:
        q: queries.
        k: keys.
        v: values.
        scale: of the products.
        masks: what is added in front of the softmax.
        cap: bound of the products, none if it is zero.
    """
    scores = (q * scale) @ k.swapped()
    if cap:
        scores = (scores / cap).unary("Tanh") * cap
    for mask in masks:
        scores = scores + mask
    return scores.unary("Softmax", axis=-1) @ v


def head_scale(b: Back, q: Term) -> float:
    """The scale of products: one by the root of the size of heads, unless it is given."""
    given = float(b.attr("scale", 0.0))
    if given:
        return given
    size = q.dims[-1] if q.dims is not None else None
    if not isinstance(size, int):
        raise NoGradientError("the size of its heads is not known")
    return 1 / math.sqrt(size)


def numbers(tape_of: Term, count: Term) -> Term:
    """``0, 1, 2, ...``, as many as ``count`` says."""
    tape = tape_of.tape
    if count.value is not None:
        return tape.constant(np.arange(int(count.value.reshape(-1)[0])))
    return tape.op("Range", tape.constant(0), count.reshape([]), tape.constant(1), kind=INT, dims=(None,))


def causal(q: Term, k: Term) -> Term:
    """Takes out keys behind the query's own; the last query sees all keys."""
    rows, columns = numbers(q, q.size(2)), numbers(k, k.size(2))
    seen = columns.unsqueeze([0]) - (k.size(2) - q.size(2))
    return (seen > rows.unsqueeze([1])).where(q.like(lowest(q.kind)), 0)


def padding(b: Back, mask: Term, k: Term) -> Term:
    """Takes out keys that a mask names: by their number, or one by one."""
    fill = k.like(float(b.attr("mask_filter_value", -10000.0)))
    if mask.rank in (2, 3):
        return mask.equals(0).where(fill, 0).unsqueeze([1, 2] if mask.rank == 2 else [1])
    if mask.rank == 1 and mask.dims is not None and k.dims is not None and mask.dims[0] == k.dims[0] is not None:
        places = numbers(k, k.size(2)).unsqueeze([0])
        return (places >= mask.cast(INT).unsqueeze([1])).where(fill, 0).unsqueeze([1, 2])
    raise NoGradientError("its mask is of a form that is not followed")


def appended(past: Term | None, new: Term) -> Term:
    """Keys or values of a cache, and new ones behind them."""
    if past is None:
        return new
    dims = (*new.dims[:2], None, new.dims[3]) if new.dims is not None else None
    if past.dims is not None and new.dims is not None and dims is not None:
        p, n = past.dims[2], new.dims[2]
        dims = (*dims[:2], p + n if isinstance(p, int) and isinstance(n, int) else None, dims[3])
    return past.tape.op("Concat", past, new, dims=dims, axis=2)


@body("Attention", domain=MICROSOFT)
def _projected(b: Back) -> Sequence[Term] | None:
    """Attention with the projection of queries, keys and values inside."""
    x, weights, tape = b.raw[0], b.raw[1], b.tape
    if x.rank is None or weights.dims is None:
        return None
    if b.attr("do_rotary", 0) or b.attr("past_present_share_buffer", 0) or b.has(6):
        raise NoGradientError("it rotates, or shares its cache")
    many, width = b.attr("num_heads"), weights.dims[1]
    sizes = b.attr("qkv_hidden_sizes") or ([width // 3] * 3 if isinstance(width, int) else None)
    if sizes is None:
        raise NoGradientError("the size of its heads is not known")
    whole = x @ weights
    whole = whole + b.raw[2] if b.has(2) else whole
    dims = [(*x.dims[:2], n) if x.dims is not None else None for n in sizes]
    parts = tape.ops("Split", whole, tape.constant(sizes), kinds=[x.kind] * 3, dims=dims, axis=2)
    q, k, v = (heads(part, many) for part in parts)
    if b.has(4):
        past = [b.raw[4].take(i) for i in (0, 1)]
        k, v = appended(past[0], k), appended(past[1], v)
    masks = [padding(b, b.raw[3], k)] if b.has(3) else []
    masks += [causal(q, k)] if b.attr("unidirectional", 0) else []
    masks += [b.raw[5]] if b.has(5) else []
    y = merged(attended(q, k, v, head_scale(b, q), masks))
    if len(b.node.output) > 1 and b.node.output[1]:
        return [y, tape.join([k.unsqueeze([0]), v.unsqueeze([0])])]
    return [y]


@body("MultiHeadAttention", domain=MICROSOFT)
def _multi_head(b: Back) -> Sequence[Term] | None:
    """Separate projections, keys and values in heads, or all of them packed."""
    if any(b.has(i) for i in (8, 9)) or len([o for o in b.node.output if o]) > 3:
        raise NoGradientError("it shares its cache, or gives its scores")
    given = _separate(b)
    if given is None:
        return None
    q, k, v = given
    k = appended(b.raw[6] if b.has(6) else None, k)
    v = appended(b.raw[7] if b.has(7) else None, v)
    masks = [padding(b, b.raw[4], k)] if b.has(4) else []
    masks += [causal(q, k)] if b.attr("unidirectional", 0) else []
    masks += [b.raw[5]] if b.has(5) else []
    return [merged(attended(q, k, v, head_scale(b, q), masks)), k, v][: len(b.node.output)]


def _separate(b: Back) -> tuple[Term, Term, Term] | None:
    """Queries, keys and values of MultiHeadAttention in heads, with their biases added."""
    tape, many, query = b.tape, b.attr("num_heads"), b.raw[0]
    parts = [query, *(b.raw[i] for i in (1, 2) if b.has(i))]
    if any(p.rank is None for p in parts):
        return None
    if query.rank == 5 or parts[-1].rank == 5:
        packed = parts[-1]
        kinds, many_parts = [packed.kind] * (3 if query.rank == 5 else 2), 3 if query.rank == 5 else 2
        cut = tape.ops("Split", packed, kinds=kinds, axis=3, num_outputs=many_parts)
        dims = packed.dims[:3] + packed.dims[4:] if packed.dims is not None else None
        flat = [Term(tape, t.squeeze([3]).name, t.kind, dims) for t in cut]
        in_heads = [t.transpose([0, 2, 1, 3]) for t in flat]
        parts = in_heads if query.rank == 5 else [query, *in_heads]
    if b.has(3):
        if any(p.rank != 3 for p in parts):
            raise NoGradientError("it adds biases to what is in heads")
        widths = tape.join([p.size(2) for p in parts])
        biases = tape.ops("Split", b.raw[3], widths, kinds=[query.kind] * 3, dims=[p.dims[2:] for p in parts if p.dims])
        parts = [p + bias for p, bias in zip(parts, biases, strict=True)]
    q, k, v = (heads(p, many) if p.rank == 3 else p for p in parts)
    return q, k, v


def rotated(x: Term, cos: Term, sin: Term, interleaved: bool) -> Term:
    """Pairs of elements turned together: halves, or neighbours; what lies behind those that turn stays."""
    tape, width = x.tape, cos.dims[-1] if cos.dims is not None else None
    if not isinstance(width, int) or x.dims is None:
        raise NoGradientError("the size of what it rotates is not known")
    size = x.dims[-1]
    turned = x if size == 2 * width else x.cut(0, 2 * width, 3)
    dims = (*x.dims[:-1], width)
    if interleaved:
        pairs = turned.reshape(tape.join([*(x.size(k) for k in range(3)), tape.constant([width, 2])]))
        one, two = (Term(tape, pairs.take(i, 4).name, x.kind, dims) for i in (0, 1))
    else:
        one, two = tape.ops("Split", turned, kinds=[x.kind] * 2, dims=[dims, dims], axis=-1, num_outputs=2)
    first, second = one * cos - two * sin, two * cos + one * sin
    if interleaved:
        both = tape.op("Concat", first.unsqueeze([4]), second.unsqueeze([4]), axis=4)
        y = both.reshape(tape.join([*(x.size(k) for k in range(3)), tape.constant([2 * width])]))
    else:
        y = tape.op("Concat", first, second, axis=3)
    if turned is not x:
        y = tape.op("Concat", y, x.cut(2 * width, 2**62, 3), axis=3)
    return Term(tape, y.name, x.kind, x.dims)


@body("RotaryEmbedding", domain=MICROSOFT)
def _rotary(b: Back) -> Sequence[Term] | None:
    """Rotation by tables that positions look up: given for each, or the first of all."""
    x, at, tables = b.raw[0], b.raw[1], b.raw[2:4]
    if x.rank is None or at.rank is None or tables[0].dims is None:
        return None
    if b.attr("is_packed_batching", 0) or b.attr("scale", 1.0) != 1.0:
        raise NoGradientError("it is packed, or scaled")
    flat, width = x.rank == 3, tables[0].dims[1]
    many = b.attr("num_heads", 0)
    if flat and not many and x.dims is not None and isinstance(x.dims[2], int) and isinstance(width, int):
        many = x.dims[2] // (2 * width)
    if flat and not many:
        raise NoGradientError("the number of its heads is not known")
    inner = heads(x, many) if flat else x
    places = at if at.rank == 2 else (numbers(x, inner.size(2)) + at).unsqueeze([0])
    cos, sin = (_looked_up(table, places) for table in tables)
    y = rotated(inner, cos, sin, bool(b.attr("interleaved", 0)))
    return [merged(y) if flat else y]


def _looked_up(table: Term, places: Term) -> Term:
    """Rows of a table by batch and position, for all heads."""
    found = table.take(places)
    dims = (*(places.dims or (None, None)), table.dims[1] if table.dims is not None else None)
    return Term(table.tape, found.name, table.kind, dims).unsqueeze([1])


@body("GroupQueryAttention", domain=MICROSOFT)
def _grouped(b: Back) -> Sequence[Term] | None:
    """Queries in groups that share keys and values, behind a cache, of which each row fills a part.

    New keys stand behind the cache; masks hold for the positions that they have in their row.
    """
    query, tape = b.raw[0], b.tape
    if query.rank is None or query.dims is None:
        return None
    if any(b.has(i) for i in range(11, 14)) or b.attr("smooth_softmax", 0):
        raise NoGradientError("it has a sink, or scales of a quantised cache")
    many, groups = b.attr("num_heads"), b.attr("kv_num_heads")
    parts = [query, b.raw[1], b.raw[2]] if b.has(1) else _unpacked(query, many, groups)
    q, k, v = (heads(p, n) for p, n in zip(parts, (many, groups, groups), strict=True))
    first = b.has(3) and b.raw[3].dims is not None and b.raw[3].dims[2] != 0
    if b.has(3) and b.raw[3].dims is None:
        return None
    length = numbers(query, query.size(1))
    filled = tape.constant([[0]])
    if first:
        filled = tape.op("Max", b.raw[5].cast(INT).reshape([-1, 1]) + 1 - query.size(1), filled, dims=(None, 1))
    places = filled + length.unsqueeze([0])
    if b.attr("do_rotary", 0):
        at = b.raw[9] if b.has(9) else places
        cos, sin = (_looked_up(b.raw[i], at) for i in (7, 8))
        q, k = (rotated(t, cos, sin, bool(b.attr("rotary_interleaved", 0))) for t in (q, k))
    new = [k, v]
    masks = [_seen(b, q, places, filled, first)] + ([b.raw[10]] if b.has(10) else [])
    if first:
        k, v = appended(b.raw[3], k), appended(b.raw[4], v)
        new = (
            [_cache(b, t, past, filled) for t, past in ((k, b.raw[3]), (v, b.raw[4]))]
            if len(b.node.output) > 1
            else new
        )
    k, v = (_repeated(t, many // groups) for t in (k, v))
    y = merged(attended(q, k, v, head_scale(b, q), masks, float(b.attr("softcap", 0.0))))
    return [y, *new][: len(b.node.output)]


def _cache(b: Back, both: Term, past: Term, filled: Term) -> Term:
    """What a cache holds behind a step, new elements where its rows were not filled.

    Args:
        b: the node.
        both: the cache, and what is new behind it.
        past: the cache.
        filled: how many elements of each row were there.
    """
    tape, total, length = b.tape, b.raw[6].cast(INT).reshape([1]), b.raw[0].size(1)
    places = numbers(both, tape.op("Max", past.size(2), total, dims=(1,))).unsqueeze([0])
    end = filled + length
    source = ((places >= filled) & (places < end)).where(places - filled + past.size(2), places)
    shape = tape.join([both.size(0), both.size(1), tape.op("Max", past.size(2), total, dims=(1,)), both.size(3)])
    return tape.op("GatherElements", both, tape.op("Expand", source.unsqueeze([1, 3]), shape), axis=2)


def _unpacked(x: Term, many: int, groups: int) -> list[Term]:
    width = x.dims[2] if x.dims is not None else None
    if not isinstance(width, int) or x.dims is None:
        raise NoGradientError("the size of its heads is not known")
    size = width // (many + 2 * groups)
    sizes = [many * size, groups * size, groups * size]
    dims = [(*x.dims[:2], n) for n in sizes]
    return list(x.tape.ops("Split", x, x.tape.constant(sizes), kinds=[x.kind] * 3, dims=dims, axis=2))


def _repeated(x: Term, times: int) -> Term:
    """Each head as many times as queries share it."""
    if times == 1:
        return x
    tape, (batch, groups, length, size) = x.tape, (x.size(k) for k in range(4))
    wide = tape.op("Expand", x.unsqueeze([2]), tape.constant([1, 1, times, 1, 1]))
    shape = tape.join([batch, tape.constant([_number(groups) * times]), length, size])
    dims = (x.dims[0], _number(groups) * times, *x.dims[2:]) if x.dims is not None else None
    return Term(tape, wide.reshape(shape).name, x.kind, dims)


def _number(term: Term) -> int:
    assert term.value is not None
    return int(term.value.reshape(-1)[0])


def _seen(b: Back, q: Term, places: Term, filled: Term, first: bool) -> Term:
    """Takes out keys behind the query's own, those before its window, and what the cache has not filled."""
    tape, window = b.tape, b.attr("local_window_size", -1)
    keys = places
    hidden = None
    if first:
        cached = numbers(q, b.raw[3].size(2)).unsqueeze([0])
        zero = filled - filled
        keys = tape.op("Concat", cached + zero, places + zero, axis=1)
        hidden = tape.op("Concat", cached >= filled, (places + zero) < 0, axis=1).unsqueeze([1])
    rows, columns = places.unsqueeze([2]), keys.unsqueeze([1])
    out = columns > rows
    out = out | hidden if hidden is not None else out
    out = out | ((rows - columns) >= window) if window > 0 else out
    return out.where(q.like(lowest(q.kind)), 0).unsqueeze([1])
