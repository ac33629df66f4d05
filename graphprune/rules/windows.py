"""Rules of operators that slide a window over their input: convolutions, and what they know of its geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphprune.relation import Relation
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line, read
from graphprune.relation.window import Window
from graphprune.rules.node import NodeView, Rule, Unruled, described

Geometry = Callable[[NodeView], Window | None]


def forward(node: NodeView) -> Window:
    """The window of a convolution by its attributes."""
    axes = tuple(range(2, len(node.shape(1))))
    ones, none = (1,) * len(axes), (0,) * len(axes)
    given, automatic = node.attributes, node.attributes.get("auto_pad", b"NOTSET")
    pads = tuple(given.get("pads", none + none)) if automatic in (b"NOTSET", b"") else none + none
    return Window(
        axes,
        axes,
        axes,
        tuple(given.get("strides", ones)),
        tuple(given.get("dilations", ones)),
        pads[: len(axes)],
        pads[len(axes) :],
        {b"SAME_UPPER": "upper", b"SAME_LOWER": "lower"}.get(automatic, ""),
    )


def backward(node: NodeView) -> Window | None:
    """That of a transposed one; None where pads follow from a size, or cut off more than a kernel reaches."""
    plain = forward(node)
    if plain.same or "output_shape" in node.attributes:
        return None
    more = tuple(node.attributes.get("output_padding", (0,) * len(plain.input)))
    found = replace(plain, backward=True, more=more)
    return found if min(map(min, found.pads((), node.shape(1)[2:])), default=0) >= 0 else None


def unknown(node: NodeView) -> None:
    """No window, where its geometry is computed by the model."""


def convolution(pattern: str, macs: str, zero: str = "0*1+2", geometry: Geometry = forward) -> Rule:
    """The rule of a convolution, with the group count bound beforehand."""
    line = Line(pattern, zero=zero, macs=macs)
    read(line)

    def rule(node: NodeView) -> Relation:
        groups = int(node.attributes.get("group", 1))
        relation = bind(
            line,
            node.inputs,
            node.outputs,
            sizes={"g": groups},
            reason="a window slides over it",
            attributes={"group": "g"},
        )
        return replace(relation, kind="channel", window=geometry(node))

    return described(rule, f"``{pattern}``")


def max_pool(node: NodeView) -> Relation:
    """``n c !*x -> n c !*y``."""
    if node.several():
        raise Unruled("it gives out positions that count through all of its input")
    return bind(Line("n c !*x -> n c !*y", zero="0"), node.inputs, node.outputs, reason="a window slides over it")
