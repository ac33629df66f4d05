"""Rules of operators that take sums and statistics over axes: reductions and norms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphprune.relation import AxisMap, Builder, Correction, Relation, Slot
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line
from graphprune.relation.zero import Sum
from graphprune.rules.computing import EVERY, broadcast, elementwise
from graphprune.rules.node import NodeView, Rule, described

MEAN = "a mean and a variance run over it"


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
        relation = bind(Line(text, zero=zero), inputs, node.outputs, reason=EVERY)
        return corrected(relation, (("out", 0), 1)) if kind == "mean" else relation

    texts = {"sum": "sums over its axes", "mean": "means over its axes, times k/n", "order": "its axes are pinned"}
    return described(rule, texts[kind])


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


def isotropic(rule: Rule) -> Rule:
    """The rule of an operator that knows nothing of the dims that it sums over but the sum of their squares."""

    def lengths(node: NodeView) -> Relation:
        found = rule(node)
        kept = {d for axes in found.outputs for a in axes or () for d in a.dims}
        return replace(found, isotropic=tuple(d for d in range(len(found.dims)) if d not in kept))

    return described(lengths, rule.__doc__ or "")


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
        over = tuple(d for d, dim in enumerate(relation.dims) if dim.summed or dim.statistic)
        about, plain = (over, ()) if centred else ((), over)
        relation = replace(relation, sums=Sum.parse("0"), isotropic=plain, centring=about)
        return root_mean(relation, ("in", 1), inverse=2 if centred else 1)

    return described(rule, "``*n ~*c, ~*c, ~*c -> *n ~*c``" if centred else "``*n +*c, +*c -> *n +*c``")


def batch_normalization(node: NodeView) -> Relation:
    """``n c *s, c, c, c, c -> n c *s``; in training the statistics of the batch are results too."""
    mark = "!" if node.attributes.get("training_mode") or node.several() else ""
    pattern = f"{mark}n c {mark}*s, c, c, c, c -> {mark}n c {mark}*s, c, c, c, c"
    return bind(
        Line(pattern, zero="1+2;;;;"), node.inputs, node.outputs, reason="the statistics of a batch run over it"
    )


def group_normalization(node: NodeView) -> Relation:
    """``n (g ~c) ~*s``: a mean and a variance over the channels of each group."""
    groups = node.integer("num_groups")
    scale = "g" if node.opset < 21 else "(g ~c)"
    pattern = f"n (g ~c) ~*s, {scale}, {scale} -> n (g ~c) ~*s"
    relation = bind(
        Line(pattern, zero="1+2"),
        node.inputs,
        node.outputs,
        sizes={"g": groups},
        statistic=MEAN,
        attributes={"num_groups": "g"},
    )
    return root_mean(relation, ("in", 1))


def instance_normalization(node: NodeView) -> Relation:
    """``n c ~*s, c, c -> n c ~*s``: a mean and a variance over the positions of each channel."""
    relation = bind(Line("n c ~*s, c, c -> n c ~*s", zero="1+2"), node.inputs, node.outputs, statistic=MEAN)
    return root_mean(relation, ("in", 1))


def global_average(node: NodeView) -> Relation:
    """``n c +*x -> n c *y``."""
    return corrected(bind(Line("n c +*x -> n c *y", zero="0"), node.inputs, node.outputs), (("out", 0), 1))


def mean_variance(node: NodeView) -> Relation:
    """MeanVarianceNormalization: no gain follows, so the result itself is multiplied."""
    rank = len(node.shape(0))
    over = {int(a) % rank for a in node.attributes.get("axes", (0, 2, 3))}
    words = " ".join(f"{'~' if a in over else ''}d{a}" for a in range(rank))
    apart = any(a not in over for a in range(1, rank))  # a masked channel of its own would have no variance
    relation = bind(Line(f"{words} -> {words}", zero="/0" if apart else ""), node.inputs, node.outputs, statistic=MEAN)
    return corrected(relation, (("out", 0), -0.5))


def lp_normalization(node: NodeView) -> Relation:
    """Each element is divided by a norm along the axis: exact where what is removed is zero."""
    shape = node.shape(0)
    axis = node.axis(-1)
    words = " ".join(f"{'+' if a == axis else ''}d{a}" for a in range(len(shape)))
    relation = bind(Line(f"{words} -> {words}", zero="0"), node.inputs, node.outputs)
    squares = node.attributes.get("p", 2) == 2
    return replace(relation, isotropic=tuple(d for d, dim in enumerate(relation.dims) if dim.summed and squares))
