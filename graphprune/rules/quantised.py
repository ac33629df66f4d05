"""Rules of operators on quantised numbers.

A removed element of a quantised tensor is *zero* where it holds the zero point, so zeros are followed as everywhere; a
mask writes the zero point, and leaves scales as they are. A scale or a zero point is one for the whole tensor, one for
each element of an axis, or one for each block of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from graphprune.relation import AxisMap, Builder, Relation, Shape
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line
from graphprune.rules.computing import broadcast
from graphprune.rules.cutting import through
from graphprune.rules.node import NodeView, Rule, Unruled, described


def word(shape: Shape | None, letters: str) -> str:
    """How a scale or zero point stands in a pattern: nothing where it is one number, else along the given axes."""
    if shape is None:
        return "_"
    return " ".join("1" for _ in shape) if prod(shape) == 1 else letters


def rounding(rule: Rule) -> Rule:
    """The rule of an operator that rounds what it computes to steps."""

    def rounded(node: NodeView) -> Relation:
        return replace(rule(node), rounds=True)

    return described(rounded, rule.__doc__ or "")


def linear_quantiser(node: NodeView) -> Relation:
    """QuantizeLinear and DequantizeLinear: per tensor, per axis, or per block."""
    shape, scale = node.shape(0), node.shape(1)
    axis = node.axis(1)
    build = Builder()
    axes = build.like(shape)
    block = int(node.attributes.get("block_size", 0))
    attributes: dict[str, tuple[int, ...]] = {}
    if prod(scale) == 1:
        own = [AxisMap(())] * len(scale)
    elif len(scale) == 1:
        if scale[0] != shape[axis]:
            raise Unruled(f"its scale of {scale[0]} elements does not fit axis {axis} of {shape[axis]}")
        own = [axes[axis]]
    else:
        own = list(axes)
        if block > 1 and shape[axis] == block * scale[axis]:
            blocks, inside = build.dim(scale[axis]), build.dim(block)
            axes[axis], own[axis] = AxisMap(blocks.dims + inside.dims), blocks
            attributes = {"block_size": inside.dims}
        elif block != 1:  # the last block is not full
            axes[axis] = build.dim(shape[axis], pinned="its blocks do not fill the axis")
            own[axis] = build.dim(scale[axis], pinned="its blocks do not fill the axis")
    sides = [axes, own] + [None if s is None else (own if len(s) == len(own) else []) for s in node.inputs[2:]]
    relation = build.relation(sides, [axes])
    masks: dict[int, int | None] = {1: None, 2: None}
    if node.op == "DequantizeLinear":
        masks[0] = 2
    return replace(relation, attributes=attributes, masks=masks)


def dynamic_quantiser(node: NodeView) -> Relation:
    """DynamicQuantizeLinear: its range always includes zero, so removed zeros leave it alone."""
    words = " ".join(f"+d{a}" for a in range(len(node.shape(0))))
    return bind(Line(f"{words} -> {words}, , ", zero="0;;"), node.inputs, node.outputs)


def convolution(weight: int, scales: Mapping[int, str], bias: int | None, masks: Mapping[int, int | None]) -> Rule:
    """ConvInteger and QLinearConv.

    Args:
        weight: the input that holds the weight; the data is input 0.
        scales: by input its axes, where it has any.
        bias: the input that holds the bias.
        masks: as in Relation.
    """

    def rule(node: NodeView) -> Relation:
        words = {0: "n (g i) !*x", weight: "(g o) i !*k"}
        if bias is not None:
            words[bias] = "(g o)"
        for i, letters in scales.items():
            words[i] = word(node.inputs[i] if i < len(node.inputs) else None, letters)
        count = max(words) + 1
        shapes = tuple(s if words.get(i, "_") != "_" else None for i, s in enumerate(node.inputs))
        relation = bind(
            Line(
                ", ".join(words.get(i, "_") for i in range(count)) + " -> n (g o) !*y",
                zero=f"0*{weight}" + ("" if bias is None else f"+{bias}"),
                macs="n g i o *k *y",
            ),
            shapes,
            node.outputs,
            sizes={"g": int(node.attributes.get("group", 1))},
            reason="a window slides over it",
            attributes={"group": "g"},
        )
        return replace(relation, kind="channel", masks=masks)

    return described(rule, "a convolution; scales and zero points go with the output channels")


def product(
    right: int,
    columns: Sequence[int] = (),
    bias: int | None = None,
    masks: Mapping[int, int | None] | None = None,
    dynamic: bool = False,
) -> Rule:
    """A matrix product of quantised numbers.

    Args:
        right: the input that holds the right matrix; the left one is input 0.
        columns: inputs with one element for each column of the right matrix, or one in all.
        bias: the input that holds the bias.
        masks: as in Relation.
        dynamic: whether the left matrix is quantised inside, by its own range.
    """

    def rule(node: NodeView) -> Relation:
        left = node.shape(0)
        transposed = bool(node.attributes.get("transB"))
        words = {0: "... m k" if len(left) > 1 else "k", right: "o k" if transposed else "... k o"}
        if node.attributes.get("transA"):
            words[0] = "k m"
        if bias is not None and bias < len(node.inputs):
            shape = node.inputs[bias]
            words[bias] = "_" if shape is None else "m o" if len(shape) == 2 else "o"
        for i in columns:
            shape = node.inputs[i] if i < len(node.inputs) else None
            words[i] = word(shape, "o") if shape is None or len(shape) < 2 else "... 1 o"
        shapes = tuple(s if words.get(i, "_") != "_" else None for i, s in enumerate(node.inputs))
        pattern = ", ".join(words.get(i, "_") for i in range(len(node.inputs)))
        out = "... m o" if len(left) > 1 else "... o"
        relation = bind(
            Line(
                f"{pattern} -> {out}",
                zero=f"0*{right}" + (f"+{bias}" if bias is not None else ""),
                sums="0" if dynamic else f"0*{right}",
                macs="... m k o",
            ),
            shapes,
            node.outputs,
        )
        return replace(relation, masks=masks or {})

    return described(rule, "a matrix product; scales and zero points go with the columns")


def elementwise(tensors: Sequence[int], zero: str, masks: Mapping[int, int | None]) -> Rule:
    """Element by element on quantised tensors; all other inputs are scales and zero points of whole tensors."""

    def rule(node: NodeView) -> Relation:
        target = node.out()
        build = Builder()
        axes = build.like(target)
        sides = [
            broadcast(s, axes, target) if s is not None and i in tensors else None for i, s in enumerate(node.inputs)
        ]
        return replace(build.relation(sides, [axes], zero=zero), masks=masks)

    return described(rule, "element by element")


def pool(node: NodeView) -> Relation:
    """QLinearAveragePool and QLinearGlobalAveragePool."""
    pattern = "n !*x c -> n !*y c" if node.attributes.get("channels_last") else "n c !*x -> n c !*y"
    left, _, right = pattern.partition(" -> ")
    inputs = (node.inputs[0], *[None] * (len(node.inputs) - 1))
    others = ", _" * (len(node.inputs) - 1)
    return bind(Line(f"{left}{others} -> {right}", zero="0"), inputs, node.outputs, reason="a window slides over it")


def joined(node: NodeView) -> Relation:
    """QLinearConcat: tensors with a scale and a zero point each, behind those of the output."""
    target = node.out()
    axis = node.axis(rank=len(target))
    build = Builder()
    axes = build.like(target)
    sides: list[list[AxisMap] | None] = [None] * len(node.inputs)
    start = 0
    for i in range(2, len(node.inputs), 3):
        size = node.shape(i)[axis]
        own = list(axes)
        own[axis] = through(axes[axis], np.arange(start, start + size))
        sides[i], start = own, start + size
    return build.relation(sides, [axes], zero="+".join(str(i) for i in range(2, len(node.inputs), 3)))


def blocks_of_bits(node: NodeView) -> Relation:
    """MatMulNBits: rows may go; of what it sums over whole blocks, in as many as share a byte of zero points."""
    size, count, bits = node.integer("block_size"), node.integer("K"), int(node.attributes.get("bits", 4))
    blocks = node.shape(2)[-1] if len(node.shape(2)) == 2 else node.shape(1)[1]
    packed_points = node.has(3) and node.shape(3) != node.shape(2)
    together = 8 // bits if packed_points else 1
    full = count == size * blocks and blocks % together == 0
    block = "j !p" if full else "!j"
    columns = f"({block} !l)" if full else "!k"
    scales = f"(o {block})" if len(node.shape(2)) == 1 else f"o ({block})"
    points = "_"
    if node.has(3):
        own = ("j" if packed_points else block) if full else "!z"
        points = f"(o {own})" if len(node.shape(3)) == 1 else f"o ({own})"
    sizes = {"o": node.integer("N")}
    if full:
        sizes |= {"l": size, "p": together}
    relation = bind(
        Line(
            f"... {columns}, o ({block}) !y, {scales}, {points}, _, o -> ... o",
            zero="0*2+5",
            sums="0*2",
            macs="... j p l o" if full else "... k o",
        ),
        tuple(None if i == 4 else s for i, s in enumerate(node.inputs)),
        node.outputs,
        sizes=sizes,
        reason="blocks of it are packed into bytes",
        attributes={"N": "o", "K": "j p l"} if full else {"N": "o"},
    )
    return replace(relation, masks={1: None, 3: None})


def recurrent(node: NodeView) -> Relation:
    """DynamicQuantizeLSTM: weights transposed, and a scale and a zero point for each direction or each column."""
    words = ["!s b i", "!d i (!4 h)", "!d h (!4 h)", "!d (!8 h)", "b", "!d b h", "!d b h", "!d (!3 h)"]
    for i in range(8, 12):
        words.append("!d (!4 h)" if node.has(i) and len(node.shape(i)) == 2 else "!d" if node.has(i) else "_")
    relation = bind(
        Line(
            ", ".join(words) + " -> !s !d b h, !d b h, !d b h",
            zero="0*1+2+3+5+6",
            sums="0",
            macs="s b d 4 h i + s b d 4 h h",
        ),
        node.inputs,
        node.outputs,
        reason="one step of the recurrence needs the one before it, and each gate has its own place",
        attributes={"hidden_size": "h"},
    )
    return replace(relation, kind="state", masks={1: 9, 2: 11, 4: None, 8: None, 9: None, 10: None, 11: None})
