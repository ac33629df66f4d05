"""Rules of operators that compute, where attributes or ranks decide what one pattern cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from graphprune.relation import AxisMap, Builder, Relation, Shape
from graphprune.relation.binding import bind
from graphprune.relation.errors import NotationError
from graphprune.relation.notation import Line, parse
from graphprune.relation.zero import Zero
from graphprune.rules.node import NodeView, Rule, Unruled, described

EVERY = "every element of it takes part in each result"


def elementwise(zero: str = "") -> Rule:
    """The rule of an operator that works element by element, with numpy's broadcasting.

    Args:
        zero: as in Relation; ``"+"`` joins all inputs.
    """
    if zero != "+":
        Zero.parse(zero)

    def rule(node: NodeView) -> Relation:
        target = node.out()
        build = Builder()
        axes = build.like(target)
        inputs: list[list[AxisMap] | None] = []
        for shape in node.inputs:
            inputs.append(None if shape is None else broadcast(shape, axes, target))
        joined = "+".join(str(i) for i, s in enumerate(node.inputs) if s is not None) if zero == "+" else zero
        outputs = [None if s is None else axes for s in node.outputs]
        return build.relation(inputs, outputs, zero=joined)

    return described(rule, "element by element")


def broadcast(shape: Shape, axes: list[AxisMap], target: Shape) -> list[AxisMap]:
    """Axes of a tensor that is broadcast to ``target``."""
    lead = len(target) - len(shape)
    if lead < 0 or any(s not in (1, target[lead + a]) for a, s in enumerate(shape)):
        raise Unruled(f"a tensor of shape {shape} does not broadcast to {target}")
    return [axes[lead + a] if s != 1 else AxisMap(()) for a, s in enumerate(shape)]


def homogeneous(rule: Rule, degrees: Mapping[int, float], joint: bool = False) -> Rule:
    """A rule with the degrees of Relation."""

    def scaling(node: NodeView) -> Relation:
        return replace(rule(node), degrees=degrees, joint=joint)

    return described(scaling, rule.__doc__ or "")


def linear(rule: Rule, *signs: int) -> Rule:
    """A rule of an operator whose outputs are sums, or means, of the products that its zero expression says.

    Args:
        rule: the rule.
        signs: of the products; all 1 where none are given.
    """

    def adding(node: NodeView) -> Relation:
        found = rule(node)
        products = found.zero.of(0).products
        return replace(found, signs=signs or (1,) * len(products)) if products else found

    return described(adding, rule.__doc__ or "")


def comparing(rule: Rule) -> Rule:
    """A rule of an operator that says how elements of its inputs compare, and nothing else of them."""

    def compared(node: NodeView) -> Relation:
        return replace(rule(node), compares=True)

    return described(compared, rule.__doc__ or "")


def copied(rule: Rule) -> Rule:
    """A rule of an operator that gives its input back, element by element."""

    def copying(node: NodeView) -> Relation:
        return replace(rule(node), moves=tuple(range(len(node.shape(0)))))

    return described(copying, rule.__doc__ or "")


def power(node: NodeView) -> Relation:
    """Element by element; zero stays zero where the exponent is known to be positive, and divides where negative."""
    exponent = node.value(1)
    least = None if exponent is None or exponent.size == 0 else np.min(exponent)
    relation = elementwise("" if least is None or least == 0 else "0" if least > 0 else "/0")(node)
    one = exponent is not None and np.size(exponent) == 1
    return replace(relation, degrees={0: float(np.asarray(exponent).reshape(()))} if one else {})


def cast(node: NodeView) -> Relation:
    """Element by element."""
    shapes = (node.shape(0), *[None] * (len(node.inputs) - 1))
    relation = copied(elementwise("0"))(replace(node, inputs=shapes))
    return replace(relation, degrees={0: 1} if node.attributes.get("to") in _FLOATS else {})


def cast_like(node: NodeView) -> Relation:
    """Element by element; of the second input only the type counts."""
    build = Builder()
    axes = build.like(node.out())
    return build.relation([axes, build.like(node.shape(1))], [axes])


def dropout(node: NodeView) -> Relation:
    """Element by element, unless it is in training."""
    training = node.value(2)
    if node.has(2) and (training is None or bool(training)):
        raise Unruled("it drops elements by chance, or may: its training_mode (input 2) is not known to be false")
    shapes = (node.shape(0), *[None] * (len(node.inputs) - 1))
    return linear(elementwise("0"))(replace(node, inputs=shapes))


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def clip(node: NodeView) -> Relation:
    """Zero stays zero where the bounds are known to hold it."""
    low = node.attributes.get("min", node.value(1) if node.has(1) else -np.inf)
    high = node.attributes.get("max", node.value(2) if node.has(2) else np.inf)
    holds = (
        low is not None and high is not None and bool(np.all(low <= np.float64(0)) and np.all(high >= np.float64(0)))
    )
    shapes = (node.shape(0), *[None] * (len(node.inputs) - 1))
    return elementwise("0" if holds else "")(replace(node, inputs=shapes))


def gemm(node: NodeView) -> Relation:
    """``m k, k o, (m o) -> m o``, with either operand transposed and the bias broadcast."""
    left = "k m" if node.attributes.get("transA") else "m k"
    right = "o k" if node.attributes.get("transB") else "k o"
    bias = {0: "", 1: "o", 2: "m o"}[len(node.shape(2))] if node.has(2) else "o"
    found = bind(Line(f"{left}, {right}, {bias} -> m o", zero="0*1+2", macs="m k o"), node.inputs, node.outputs)
    return replace(found, bends=any(node.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")))


def einsum(node: NodeView) -> Relation:
    """The equation is the pattern."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(letters)
    if any(len(set(t.replace("...", ""))) != len(t.replace("...", "")) for t in [*terms, right]):
        raise Unruled(f"its equation {equation!r} takes a diagonal")

    def spaced(term: str) -> str:
        return " ".join("..." if c == "\0" else c for c in term.replace("...", "\0"))

    pattern = ", ".join(map(spaced, terms)) + " -> " + spaced(right)
    try:
        parse(pattern)
    except NotationError as no:  # it is the model that wrote this line
        raise Unruled(f"its equation {equation!r} cannot be read: {no}") from no
    every = " ".join(sorted({c for c in left if c.isalpha()}))
    product = "*".join(map(str, range(len(terms))))
    macs = every + (" ..." if "..." in left else "")
    return bind(Line(pattern, zero=product, macs=macs if len(terms) > 1 else ""), node.inputs, node.outputs)


def along_axis(default: int = -1, outputs: str = "same", zero: str = "") -> Rule:
    """The rule of an operator that ties together all elements along its axis and leaves the other axes alone.

    Args:
        default: the axis where no attribute gives it.
        outputs: ``same`` shape, or ``one`` (the axis is reduced).
        zero: as in Relation.
    """
    Zero.parse(zero)

    def rule(node: NodeView) -> Relation:
        shape = node.shape(0)
        axis = node.axis(default)
        if node.op in ("CumSum", "CumProd"):
            place = node.value(1)
            if place is None:
                raise Unruled("its axis is computed from the data")
            axis = int(np.asarray(place).reshape(())) % len(shape)
        build = Builder()
        axes = [build.dim(s, pinned=EVERY if a == axis else None) for a, s in enumerate(shape)]
        sides: list[list[AxisMap] | None] = []
        for given in node.outputs:
            if given is None:
                sides.append(None)
            elif outputs == "same":
                sides.append(axes)
            else:
                middle = [AxisMap(())] if node.attributes.get("keepdims", 1) else []
                sides.append([*axes[:axis], *middle, *axes[axis + 1 :]])
        return build.relation([axes] + [None] * (len(node.inputs) - 1), sides, zero=zero)

    return described(rule, "its axis is pinned, the others pass")


def recurrent(gates: int) -> Rule:
    """LSTM, GRU and RNN; their states start at zero and stay there where the weights are zero."""

    def rule(node: NodeView) -> Relation:
        given = node.attributes.get("activations", [])
        keeps = all(name.lower() in (b"sigmoid", b"tanh", b"relu") for name in given)
        if gates == 1 and b"sigmoid" in [name.lower() for name in given]:
            keeps = False
        w, b, many = (f"(!{gates} h)", f"(!{2 * gates} h)", f"{gates} ") if gates > 1 else ("h", "(!2 h)", "")
        first, state, output = "!s b i", "!d b h", "!s !d b h"
        if node.attributes.get("layout"):
            first, state, output = "b !s i", "b !d h", "b !s !d h"
        left = f"{first}, !d {w} i, !d {w} h, !d {b}, b, {state}, {state}, !d (!3 h)"
        relation = bind(
            Line(
                f"{left} -> {output}, {state}, {state}",
                zero="0*1+2+3+5+6" if keeps else "",
                macs=f"s b d {many}h i + s b d {many}h h",
            ),
            node.inputs,
            node.outputs,
            reason="one step of the recurrence needs the one before it, and each gate has its own place",
            attributes={"hidden_size": "h"} if "hidden_size" in node.attributes else {},
        )
        return replace(relation, kind="state", masks={4: None})  # lengths, one for each sequence

    return described(rule, "the hidden size goes in all gates at once, the input size like any")
