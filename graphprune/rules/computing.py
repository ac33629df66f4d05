"""Rules of operators that compute, where attributes or ranks decide what one pattern cannot say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from graphprune.relation import AxisMap, Correction, Relation, Shape, Slot
from graphprune.relation.notation import NotationError, bind, parse, read, read_zero
from graphprune.relation.window import Window
from graphprune.rules.moving import Builder
from graphprune.rules.node import NodeView, Rule, Unruled, described

EVERY = "every element of it takes part in each result"
MEAN = "a mean and a variance run over it"


def elementwise(zero: str = "") -> Rule:
    """The rule of an operator that works element by element, with numpy's broadcasting.

    Args:
        zero: as in Relation; ``"+"`` joins all inputs.
    """
    if zero != "+":
        read_zero(zero)

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
    return elementwise("0")(replace(node, inputs=shapes))


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
    found = bind(f"{left}, {right}, {bias} -> m o", node.inputs, node.outputs, zero="0*1+2", macs="m k o")
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
    return bind(pattern, node.inputs, node.outputs, zero=product, macs=macs if len(terms) > 1 else "")


def reduce(kind: str) -> Rule:
    """The rule of a reduction.

    Args:
        kind: ``sum`` (exact where what is removed is zero), ``mean`` (the same, times k/n), or ``order`` (pinned).
    """

    def rule(node: NodeView) -> Relation:
        shape = node.shape(0)
        given = node.operand(1, "axes")
        if given is None or len(given) == 0:
            if node.attributes.get("noop_with_empty_axes"):
                return elementwise("0")(replace(node, inputs=(shape, *[None] * (len(node.inputs) - 1))))
            given = np.arange(len(shape))
        gone = {int(a) % len(shape) for a in given}
        mark = {"sum": "", "mean": "+", "order": "!"}[kind]
        words = [f"d{a}" for a in range(len(shape))]
        left = " ".join((mark if a in gone else "") + w for a, w in enumerate(words))
        keep = bool(node.attributes.get("keepdims", 1))
        right = " ".join("1" if a in gone else w for a, w in enumerate(words) if keep or a not in gone)
        inputs = (shape, *[None] * (len(node.inputs) - 1))
        others = ", _" * (len(node.inputs) - 1)
        text = f"{left}{others} -> {right}"
        zero = "0" if kind != "order" or node.op in ("ReduceMax", "ReduceMin", "ReduceProd") else ""
        relation = bind(text, inputs, node.outputs, zero=zero, reason=EVERY)
        return corrected(relation, (("out", 0), 1)) if kind == "mean" else relation

    texts = {"sum": "sums over its axes", "mean": "means over its axes, times k/n", "order": "its axes are pinned"}
    return described(rule, texts[kind])


def along_axis(default: int = -1, outputs: str = "same", zero: str = "") -> Rule:
    """The rule of an operator that ties together all elements along its axis and leaves the other axes alone.

    Args:
        default: the axis where no attribute gives it.
        outputs: ``same`` shape, ``one`` (the axis is reduced), or ``new`` (it has another size).
        zero: as in Relation.
    """
    read_zero(zero)

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
            elif outputs == "new":
                sides.append([*axes[:axis], build.dim(given[axis], pinned=EVERY), *axes[axis + 1 :]])
            else:
                middle = [AxisMap(())] if node.attributes.get("keepdims", 1) else []
                sides.append([*axes[:axis], *middle, *axes[axis + 1 :]])
        return build.relation([axes] + [None] * (len(node.inputs) - 1), sides, zero=zero)

    return described(rule, "its axis is pinned, the others pass")


def softmax(node: NodeView) -> Relation:
    """Since opset 13 along one axis; before, over all axes from the given one on."""
    if node.opset >= 13:
        return along_axis(-1)(node)
    shape = node.shape(0)
    axis = node.axis(1)
    build = Builder()
    axes = [build.dim(s, pinned=EVERY if a >= axis else None) for a, s in enumerate(shape)]
    return build.relation([axes], [axes], zero="")


def corrected(relation: Relation, *targets: tuple[Slot | str, float], default: float = 0.0) -> Relation:
    """A relation whose statistics, over all its dims marked ``~`` or ``+``, are kept what they were.

    Args:
        relation: the relation.
        targets: what is multiplied, and by which power of k/n (see ``Correction``).
        default: of the attribute among the targets.
    """
    over = tuple(d for d, dim in enumerate(relation.dims) if dim.statistic or dim.summed)
    made = tuple(Correction(t, p, over, default if isinstance(t, str) else 0.0) for t, p in targets)
    return replace(relation, corrections=made if over else ())


def root_mean(
    relation: Relation, scale: Slot, epsilon: str = "epsilon", default: float = 1e-5, inverse: int | None = None
) -> Relation:
    """Division by ``sqrt(mean + epsilon)``: a gain times sqrt(n/k) and epsilon times n/k make up for the new count.

    Args:
        relation: the relation.
        scale: the gain.
        epsilon, default: the attribute, and its value where it is absent.
        inverse: the output that is ``1 / sqrt(mean + epsilon)`` itself, where it is used.
    """
    given = inverse is not None and inverse < len(relation.outputs) and relation.outputs[inverse] is not None
    also = [(("out", inverse), -0.5)] if inverse is not None and given else []
    return corrected(relation, (scale, -0.5), (epsilon, -1), *also, default=default)


def layer_normalization(centred: bool) -> Rule:
    """``*n ~*c, ~*c, ~*c -> *n ~*c``, and the statistics without the axes that they ran over.

    Args:
        centred: whether a mean is taken off, which no correction can keep; without, only squares are summed.
    """

    def rule(node: NodeView) -> Relation:
        shape = node.shape(0)
        axis = node.axis(-1)
        build = Builder()
        axes = build.like(shape)
        for d in (axes[a].dims[0] for a in range(axis, len(shape)) if shape[a] != 1):
            build.dims[d] = replace(build.dims[d], statistic=MEAN if centred else None, summed=not centred)
        inputs = [axes] + [None if s is None else broadcast(s, axes, shape) for s in node.inputs[1:]]
        statistics = [*axes[:axis], *[AxisMap(())] * (len(shape) - axis)]
        outputs = [axes] + [None if s is None else statistics for s in node.outputs[1:]]
        relation = build.relation(inputs, outputs, zero="0*1+2" if node.has(2) else "0*1")
        return root_mean(replace(relation, sums="0"), ("in", 1), inverse=2 if centred else 1)

    return described(rule, "``*n ~*c, ~*c, ~*c -> *n ~*c``" if centred else "``*n +*c, +*c -> *n +*c``")


def _several(node: NodeView) -> bool:
    """Whether more than the first output is used."""
    return any(shape is not None for shape in node.outputs[1:])


def batch_normalization(node: NodeView) -> Relation:
    """``n c *s, c, c, c, c -> n c *s``; in training the statistics of the batch are results too."""
    mark = "!" if node.attributes.get("training_mode") or _several(node) else ""
    pattern = f"{mark}n c {mark}*s, c, c, c, c -> {mark}n c {mark}*s, c, c, c, c"
    return bind(pattern, node.inputs, node.outputs, reason="the statistics of a batch run over it", zero="1+2;;;;")


def max_pool(node: NodeView) -> Relation:
    """``n c !*x -> n c !*y``."""
    if _several(node):
        raise Unruled("it gives out positions that count through all of its input")
    return bind("n c !*x -> n c !*y", node.inputs, node.outputs, reason="a window slides over it", zero="0")


def group_normalization(node: NodeView) -> Relation:
    """``n (g ~c) ~*s``: a mean and a variance over the channels of each group."""
    groups = node.integer("num_groups")
    scale = "g" if node.opset < 21 else "(g ~c)"
    pattern = f"n (g ~c) ~*s, {scale}, {scale} -> n (g ~c) ~*s"
    relation = bind(
        pattern,
        node.inputs,
        node.outputs,
        sizes={"g": groups},
        zero="1+2",
        statistic=MEAN,
        attributes={"num_groups": "g"},
    )
    return root_mean(relation, ("in", 1))


def instance_normalization(node: NodeView) -> Relation:
    """``n c ~*s, c, c -> n c ~*s``: a mean and a variance over the positions of each channel."""
    relation = bind("n c ~*s, c, c -> n c ~*s", node.inputs, node.outputs, zero="1+2", statistic=MEAN)
    return root_mean(relation, ("in", 1))


def global_average(node: NodeView) -> Relation:
    """``n c +*x -> n c *y``."""
    return corrected(bind("n c +*x -> n c *y", node.inputs, node.outputs, zero="0"), (("out", 0), 1))


def mean_variance(node: NodeView) -> Relation:
    """MeanVarianceNormalization: no gain follows, so the result itself is multiplied."""
    rank = len(node.shape(0))
    over = {int(a) % rank for a in node.attributes.get("axes", (0, 2, 3))}
    words = " ".join(f"{'~' if a in over else ''}d{a}" for a in range(rank))
    apart = any(a not in over for a in range(1, rank))  # a masked channel of its own would have no variance
    relation = bind(f"{words} -> {words}", node.inputs, node.outputs, statistic=MEAN, zero="/0" if apart else "")
    return corrected(relation, (("out", 0), -0.5))


def lp_normalization(node: NodeView) -> Relation:
    """Each element is divided by a norm along the axis: exact where what is removed is zero."""
    shape = node.shape(0)
    axis = node.axis(-1)
    words = " ".join(f"{'+' if a == axis else ''}d{a}" for a in range(len(shape)))
    return bind(f"{words} -> {words}", node.inputs, node.outputs, zero="0")


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
    read(pattern, zero=zero, macs=macs)

    def rule(node: NodeView) -> Relation:
        groups = int(node.attributes.get("group", 1))
        relation = bind(
            pattern,
            node.inputs,
            node.outputs,
            sizes={"g": groups},
            reason="a window slides over it",
            zero=zero,
            macs=macs,
            attributes={"group": "g"},
        )
        return replace(relation, kind="channel", window=geometry(node))

    return described(rule, f"``{pattern}``")


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
            f"{left} -> {output}, {state}, {state}",
            node.inputs,
            node.outputs,
            reason="one step of the recurrence needs the one before it, and each gate has its own place",
            zero="0*1+2+3+5+6" if keeps else "",
            macs=f"s b d {many}h i + s b d {many}h h",
            attributes={"hidden_size": "h"} if "hidden_size" in node.attributes else {},
        )
        return replace(relation, kind="state", masks={4: None})  # lengths, one for each sequence

    return described(rule, "the hidden size goes in all gates at once, the input size like any")
