"""Rules of attention in one node: ONNX's own operators, and those that ONNX Runtime's optimizers make.

Letters: ``b`` batch, ``s`` queries, ``t`` keys given, ``u`` all keys (``p`` of them from the cache), ``g`` heads of
keys, ``r`` query heads for each of these, ``d`` size of a query or key head, ``e`` size of a value head. A packed
projection is one dim that is cut into stretches (see ``graphprune.relation.binding.packed``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np

from graphprune.relation import Kept, Operand, Relation, Shape, Values
from graphprune.relation.binding import bind, packed
from graphprune.relation.notation import Line
from graphprune.rules.node import NodeView, Unruled

POSITIONS = "each position is compared with every other"


def frozen_scale(relation: Relation) -> Relation:
    """The default scale, ``1 / sqrt(d)``, written out where heads shrink: removal must not change it."""
    place = next((i for i, dim in enumerate(relation.dims) if dim.name == "d"), None)
    if place is None:
        return relation
    size = relation.dims[place].size

    def refit(value: Values | None, kept: Kept) -> Values | None:
        if (value is not None and value != 0) or len(kept(("dim", place), 0)) == size:
            return None
        return np.asarray(1 / sqrt(size))

    return replace(relation, operands=(*relation.operands, Operand(-1, refit, attribute="scale")))


def summed(relation: Relation, *names: str) -> Relation:
    """Dims that a sum runs over although they stay on an output (a cache)."""
    return replace(relation, dims=tuple(replace(d, summed=True) if d.name in names else d for d in relation.dims))


def mixed(relation: Relation, *names: str) -> Relation:
    """Dims along which the node is linear, though it is not as a whole."""
    return replace(relation, mixed=tuple(d for d, dim in enumerate(relation.dims) if dim.name in names))


def trimmed(shapes: Sequence[Shape | None], skip: Sequence[int]) -> tuple[Shape | None, ...]:
    """Shapes without those of some inputs."""
    return tuple(None if i in skip else s for i, s in enumerate(shapes))


def heads(node: NodeView, index: int, name: str) -> int:
    """Number of heads: axis 1 of a tensor of rank 4, an attribute for one of rank 3."""
    shape = node.shape(index)
    count = shape[1] if len(shape) == 4 else int(node.attributes.get(name, 0))
    if count < 1:
        raise Unruled(f"its attribute {name!r} is missing")
    return count


def attention(node: NodeView) -> Relation:
    """ONNX's Attention (opset 23 and later): grouped queries, rank 3 or 4, with or without a cache."""
    queries, keys = heads(node, 0, "q_num_heads"), heads(node, 1, "kv_num_heads")
    flat = [len(node.shape(i)) == 3 for i in range(3)]
    q = "b !s (g r d)" if flat[0] else "b (g r) !s d"
    k = "b !t (g d)" if flat[1] else "b g !t d"
    v = "b !t (g e)" if flat[2] else "b g !t e"
    mask = " ".join(["b", "(g r)", "!s", "!v"][4 - len(node.shape(3)) :]) if node.has(3) else "_"
    out = "b !s (g r e)" if flat[0] else "b (g r) !s e"
    pattern = f"{q}, {k}, {v}, {mask}, b g !p d, b g !p e, b -> {out}, b g !u d, b g !u e, b (g r) !s !u"
    counts = {"q_num_heads": "g r", "kv_num_heads": "g"}
    relation = bind(
        Line(pattern, zero="2+5;1+4;2+5;", sums="0*1+0*4", macs="b g r s t d + b g r s t e"),
        node.inputs,
        node.outputs,
        sizes={"g": keys, "r": queries // keys},
        reason=POSITIONS,
        attributes={a: dims for a, dims in counts.items() if a in node.attributes},
    )
    return mixed(frozen_scale(summed(replace(relation, masks={6: None}), "d")), "d", "e")


def multi_head(node: NodeView) -> Relation:
    """MultiHeadAttention: separate projections, keys and values in heads, or everything packed."""
    n = node.integer("num_heads")
    q, k = node.shape(0), node.inputs[1] if node.has(1) else None
    first, second, third = "b !s (n d)", "b !t (n d)", "b !t (n e)"
    value = "e"
    if len(q) == 5:
        first, value = "b !s n !3 d", "d"
    elif k is not None and len(k) == 5:
        second, value = "b !t n !2 d", "d"
    elif k is not None and len(k) == 4:
        second, third = "b n !t d", "b n !t e"
    pattern = (
        f"{first}, {second}, {third}, w, _, b n !s !u, b n !p d, b n !p {value}, _, _ "
        f"-> b !s (n {value}), b n !u d, b n !u {value}, b n !s !u"
    )
    zero, sums = ("2+3+7;1+3+6;2+3+7;", "0*1+0*6") if value == "e" else ("0+1+3+7;0+1+3+6;0+1+3+7;", "0*1+0*6")
    relation = bind(
        Line(pattern, zero=zero, sums="0" if len(q) == 5 else sums, macs=f"b n s t d + b n s t {value}"),
        trimmed(node.inputs, (4, 8, 9)),
        node.outputs,
        sizes={"n": n},
        reason=POSITIONS,
        attributes={"num_heads": "n"},
    )
    found = frozen_scale(summed(packed(relation, "w", "n d", "n d", f"n {value}"), "d"))
    return mixed(found, "d", "e") if node.has(1) and node.has(2) else found


def projected(node: NodeView) -> Relation:
    """Attention with the projection of queries, keys and values inside."""
    return _projected(node, "b !s i, i w, w, _, !2 b n !p d, b n !s !u, _", (3, 6), quantised=False)


def projected_quantised(node: NodeView) -> Relation:
    """QAttention: the same on quantised numbers."""
    scale = "w" if node.has(4) and np.prod(node.shape(4)) > 1 else "..."
    point = "w" if node.has(7) and np.prod(node.shape(7)) > 1 else "..."
    pattern = f"b !s i, i w, w, _, {scale}, _, _, {point}, !2 b n !p d"
    return _projected(node, pattern, (3, 5, 6), quantised=True)


def _projected(node: NodeView, inputs: str, skip: Sequence[int], quantised: bool) -> Relation:
    n = node.integer("num_heads")
    if node.attributes.get("do_rotary"):
        raise Unruled("it rotates inside, by the size of its heads")
    given = node.attributes.get("qkv_hidden_sizes")
    width = node.shape(1)[1]
    sizes = [int(s) for s in given] if given else [width // 3] * 3
    d, e = sizes[0] // n, sizes[2] // n
    value = "e" if d != e else "d"
    pattern = f"{inputs} -> b !s (n {value}), !2 b n !u d"
    relation = bind(
        Line(pattern, zero="0*1+2;", sums="0*1", macs=f"b s i w + b n s s d + b n s s {value}"),
        trimmed(node.inputs, skip),
        node.outputs,
        sizes={"n": n, "d": d, value: e},
        reason=POSITIONS,
        attributes={"num_heads": "n"},
    )
    relation = replace(relation, masks={1: 7, 4: None, 7: None} if quantised else {})
    place = {dim.name: k for k, dim in enumerate(relation.dims)}

    def refit(old: Values | None, kept: Kept) -> Values | None:
        count = {name: len(kept(("dim", place[name]), 0)) if name in place else 1 for name in ("n", "d", value)}
        new = np.array([count["n"] * count["d"]] * 2 + [count["n"] * count[value]])
        return None if old is None and (new == new[0]).all() else new

    relation = packed(relation, "w", "n d", "n d", f"n {value}")
    if not quantised:
        relation = replace(relation, operands=(Operand(-1, refit, attribute="qkv_hidden_sizes"),))
    return frozen_scale(summed(relation, "d"))


def grouped_query(node: NodeView) -> Relation:
    """GroupQueryAttention: the size of heads is bound to what kernels accept, so only heads can go."""
    queries, keys = node.integer("num_heads"), node.integer("kv_num_heads")
    separate = node.has(1) and node.has(2)
    first = "b !s (g r !d)" if separate else "b !s w"
    pattern = (
        f"{first}, b !t (g !d), b !t (g !d), b g !p !d, b g !p !d, _, _, _, _, _, b (g r) !s !v, (g r), _, _, _, _, _ "
        "-> b !s (g r !d), b g !u !d, b g !u !d, b (g r) !s !u"
    )
    sizes = {"g": keys, "r": queries // keys}
    if not separate:
        sizes["d"] = node.shape(0)[-1] // (queries + 2 * keys)
    relation = bind(
        Line(
            pattern,
            zero="2+4;1+3;2+4;" if separate else "0+4;0+3;0+4;",
            macs="b g r s t d + b g r s t d" if separate else "b g r s s d + b g r s s d",
        ),
        trimmed(node.inputs, (5, 6, 7, 8, 9, 12, 13, 14, 15, 16)),
        node.outputs,
        sizes=sizes,
        reason="its kernels accept heads of certain sizes only",
        attributes={"num_heads": "g r", "kv_num_heads": "g"},
    )
    return relation if separate else packed(relation, "w", "g r d", "g d", "g d")


def rotary(node: NodeView) -> Relation:
    """ONNX's RotaryEmbedding: pairs of elements are rotated together, halves or neighbours."""
    return _rotary(node, cos=1, sin=2, positions=3)


def rotary_of_onnxruntime(node: NodeView) -> Relation:
    """The same of com.microsoft, with the positions before the tables."""
    return _rotary(node, cos=2, sin=3, positions=1)


def _rotary(node: NodeView, cos: int, sin: int, positions: int) -> Relation:
    shape, table = node.shape(0), node.shape(cos)
    partial = int(node.attributes.get("rotary_embedding_dim", 0))
    rotated = 2 * table[-1]
    count = int(node.attributes.get("num_heads", 0))
    size = shape[-1] if len(shape) == 4 else shape[-1] // count if count else rotated
    if partial and partial != size:
        pair, half = "!d", "!h"  # a part is rotated, the rest passes: the whole stays
    else:
        pair, half = ("h !q" if node.attributes.get("interleaved") else "!q h"), "h"
    first = f"b n !s ({pair})" if len(shape) == 4 else f"b !s (n {pair})"
    rows = "!m" if len(table) == 2 else "b !s"
    placed = "b !s" if node.has(positions) and len(node.shape(positions)) == 2 else "_"
    words = {0: first, cos: f"{rows} {half}", sin: f"{rows} {half}", positions: placed}
    sizes = {"d": size} if pair == "!d" else {"q": 2, "h": size // 2}
    attributes = {"num_heads": "n"} if count else {}
    if partial and pair != "!d":
        attributes["rotary_embedding_dim"] = "q h"
    relation = bind(
        Line(", ".join(words[i] for i in range(4)) + f" -> {first}", zero="0"),
        trimmed(node.inputs, () if placed != "_" else (positions,)),
        node.outputs,
        sizes=sizes,
        reason="halves of a head are rotated together, by the position",
        attributes=attributes,
    )
    return replace(relation, masks={positions: None})


def linear_attention(node: NodeView) -> Relation:
    """LinearAttention (opset 27): a recurrent state for each head of keys."""
    queries, keys = node.integer("q_num_heads"), node.integer("kv_num_heads")
    wide = node.has(4) and node.shape(4)[-1] != keys
    pattern = (
        f"b !s (g r d), b !s (g d), b !s (g e), b g d e, b !s {'(g d)' if wide else 'g'}, b !s g "
        "-> b !s (g r e), b g d e"
    )
    relation = bind(
        Line(pattern, zero="2+3;1*2+3", sums="0*1+0*3", macs="b s g d e + b s g r d e"),
        node.inputs,
        node.outputs,
        sizes={"g": keys, "r": queries // keys},
        reason="each step needs the one before it",
        attributes={"q_num_heads": "g r", "kv_num_heads": "g"},
    )
    return frozen_scale(summed(relation, "d"))


def relative_bias(node: NodeView) -> Relation:
    """RelativePositionBias: a table of buckets by heads becomes heads by positions."""
    return bind(Line("!v n, _, _ -> 1 n !s !t", zero="0"), trimmed(node.inputs, (1, 2)), node.outputs, reason=POSITIONS)
