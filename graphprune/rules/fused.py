"""Rules of operators that ONNX Runtime's optimizers make of several (domain com.microsoft), attention apart."""

from __future__ import annotations

from dataclasses import replace

from graphprune.relation import AxisMap, Builder, Choice, Relation
from graphprune.relation.binding import bind
from graphprune.relation.notation import Line
from graphprune.relation.zero import Sum, Zero
from graphprune.rules.choosing import EXPERT
from graphprune.rules.computing import broadcast, gemm
from graphprune.rules.node import NodeView, Rule, Unruled, described
from graphprune.rules.statistics import MEAN, root_mean
from graphprune.rules.windows import convolution

_KEEP_ZERO = (b"", b"Relu", b"LeakyRelu", b"Tanh", b"Elu", b"Selu", b"Swish", b"Gelu", b"Mish", b"HardSwish")


def activated(rule: Rule) -> Rule:
    """A rule whose result goes through the activation that an attribute names."""

    def through(node: NodeView) -> Relation:
        found = rule(node)
        found = replace(found, bends=found.bends or bool(node.attributes.get("activation")))
        keeps = node.attributes.get("activation", b"") in _KEEP_ZERO
        return found if keeps else replace(found, zero=Zero(), sums=found.zero.of(0))

    return described(through, rule.__doc__ or "")


fused_conv = activated(
    convolution("n (g i) !*x, (g o) i !*k, (g o), n (g o) !*y -> n (g o) !*y", "n g i o *k *y", zero="0*1+2+3")
)
fused_gemm = activated(gemm)


def fused_matmul(node: NodeView) -> Relation:
    """A matrix product with either operand transposed."""
    if node.attributes.get("transBatchA") or node.attributes.get("transBatchB"):
        raise Unruled("it moves a batch axis to the end")
    left = "... k m" if node.attributes.get("transA") else "... m k"
    right = "... o k" if node.attributes.get("transB") else "... k o"
    found = bind(Line(f"{left}, {right} -> ... m o", zero="0*1", macs="... m k o"), node.inputs, node.outputs)
    return replace(found, bends=node.attributes.get("alpha", 1.0) != 1.0)


def skip_norm(centred: bool) -> Rule:
    """SkipLayerNormalization and SkipSimplifiedLayerNormalization: a sum, and a norm over its last axis.

    Args:
        centred: whether the mean is taken off; only then there is a shift, input 3.
    """
    bias = 4 if centred else 3

    def rule(node: NodeView) -> Relation:
        shape = node.shape(0)
        build = Builder()
        axes = build.like(shape)
        if shape[-1] != 1:
            last = axes[-1].dims[0]
            build.dims[last] = replace(build.dims[last], statistic=MEAN if centred else None, summed=not centred)
        sides = [axes] + [None if s is None else broadcast(s, axes, shape) for s in node.inputs[1:]]
        rows = [*axes[:-1], AxisMap(())]
        outputs = [None if s is None else rows if k in (1, 2) else axes for k, s in enumerate(node.outputs)]
        total = f"0+1+{bias}"
        normed = "2+3" if centred else f"2*0+2*1+2*{bias}"
        relation = build.relation(sides, outputs, zero=f"{normed};;;{total}")
        over = tuple(d for d, dim in enumerate(relation.dims) if dim.summed or dim.statistic)
        about, plain = (over, ()) if centred else ((), over)
        relation = replace(relation, sums=Sum.parse(total), isotropic=plain, centring=about)
        return root_mean(relation, ("in", 2), default=1e-12, inverse=2)

    return described(rule, "a sum of its inputs, and a norm over the last axis")


def embedding_norm(node: NodeView) -> Relation:
    """EmbedLayerNormalization: rows of up to three tables are added and normalised."""
    relation = bind(
        Line("b s, b s, !v ~h, !p ~h, !w ~h, ~h, ~h, _, _ -> b s ~h, _, b s ~h", zero="5+6;;2+3+4", sums="2+3+4"),
        tuple(None if i in (7, 8) else s for i, s in enumerate(node.inputs)),
        tuple(None if k == 1 else s for k, s in enumerate(node.outputs)),
        reason="its rows are looked up by indices that the model computes",
        statistic=MEAN,
    )
    return root_mean(relation, ("in", 5), default=1e-12)


def experts(node: NodeView) -> Relation:
    """MoE with sparse routing: experts may go that are never chosen, as long as k are left; so may hidden features."""
    inner = "f" if node.shape(2)[1] == node.shape(4)[2] else "!f2"
    x = "!x" if node.attributes.get("use_sparse_mixer") else "x"  # it weighs the chosen ones by all
    pattern = (
        f"... c, t {x}, {x} {inner} c, {x} {inner}, {x} c2 f, {x} c2, {x} f c, {x} f -> ... c2"
        if inner == "f"
        else f"... c, t {x}, {x} {inner} c, {x} {inner}, {x} c2 !f, {x} c2, _, _ -> ... c2"
    )
    relation = bind(
        Line(pattern, zero="4+5", sums="0*2*4", macs="... x f c + ... x f c2"),
        node.inputs,
        node.outputs,
        reason="a fused gate keeps its order, and a sparse mixer weighs experts by each other",
    )
    choice = Choice(count=int(node.attributes.get("k", 1)), kind=EXPERT, by=1)
    dims = (replace(d, choice=choice) if d.name == x else d for d in relation.dims)
    return replace(relation, dims=tuple(dims))
