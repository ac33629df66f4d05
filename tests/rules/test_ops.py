"""One small model an operator: what its rule lets go goes, with a proof and by a mask made by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import graphprune
from models.small import Net
from tests import helpers

MS = "com.microsoft"
Build = Callable[[Net], str]


def sequence(net: Net, width: int = 8) -> str:
    return net.input("x", ["batch", 5, width])


def attention(rank: int, grouped: bool, value: int = 4) -> Build:
    """ONNX's Attention on 4 heads of 4."""

    def build(net: Net) -> str:
        x, keys = sequence(net), 2 if grouped else 4
        q, k, v = net.linear(x, 8, 16), net.linear(x, 8, 4 * keys), net.linear(x, 8, value * keys)
        mask = net.constant(np.triu(np.full((5, 5), -1e4, np.float32), 1))
        if rank == 3:
            y = net.op("Attention", q, k, v, mask, q_num_heads=4, kv_num_heads=keys)
        else:
            q, k, v = (
                net.op("Transpose", net.op("Reshape", t, net.ints(0, 5, n, -1)), perm=[0, 2, 1, 3])
                for t, n in ((q, 4), (k, keys), (v, keys))
            )
            y = net.op("Transpose", net.op("Attention", q, k, v, mask), perm=[0, 2, 1, 3])
            y = net.op("Reshape", y, net.ints(0, 5, 4 * value))
        return net.linear(y, 4 * value, 3)

    return build


def multi_head(net: Net) -> str:
    x = sequence(net)
    q, k, v = (net.op("MatMul", x, net.weight(8, n)) for n in (16, 16, 24))
    y = net.op("MultiHeadAttention", q, k, v, net.weight(56), domain=MS, num_heads=4)
    return net.linear(y, 24, 3)


def fused_attention(net: Net) -> str:
    x = net.linear(sequence(net), 8, 12)
    y = net.op("Attention", x, net.weight(12, 48), net.weight(48), domain=MS, num_heads=4)
    return net.linear(y, 16, 3)


def fused_attention_with_other_values(net: Net) -> str:
    x = net.linear(sequence(net), 8, 12)
    y = net.op(
        "Attention", x, net.weight(12, 56), net.weight(56), domain=MS, num_heads=4, qkv_hidden_sizes=[16, 16, 24]
    )
    return net.linear(y, 24, 3)


def grouped_query(packed: bool) -> Build:
    def build(net: Net) -> str:
        x = sequence(net)
        lengths, total = net.constant(np.full((3,), 4, np.int32)), net.constant(np.int32(5))
        settings = {"domain": MS, "num_heads": 4, "kv_num_heads": 2, "outputs": 3}
        if packed:
            y = net.op("GroupQueryAttention", net.linear(x, 8, 64), "", "", "", "", lengths, total, **settings)
        else:
            q, k, v = net.linear(x, 8, 32), net.linear(x, 8, 16), net.linear(x, 8, 16)
            y = net.op("GroupQueryAttention", q, k, v, "", "", lengths, total, **settings)
        return net.linear(y[0], 32, 3)

    return build


def rotary(domain: str, interleaved: int, rank: int) -> Build:
    def build(net: Net) -> str:
        y = net.linear(sequence(net), 8, 16)
        if rank == 4:
            y = net.op("Transpose", net.op("Reshape", y, net.ints(0, 5, 4, 4)), perm=[0, 2, 1, 3])
        angle = np.arange(5)[:, None] / np.array([[1.0, 3.0]])
        cos, sin = net.constant(np.cos(angle).astype(np.float32)), net.constant(np.sin(angle).astype(np.float32))
        positions = net.op("Expand", net.constant(np.arange(5)[None]), net.op("Shape", "x", end=2))
        order = (positions, cos, sin) if domain else (cos, sin, positions)
        settings = {"num_heads": 4} if rank == 3 else {}
        y = net.op("RotaryEmbedding", y, *order, domain=domain, interleaved=interleaved, **settings)
        if rank == 4:
            y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 5, 16))
        return net.linear(y, 16, 3)

    return build


def skip_norm(op: str) -> Build:
    def build(net: Net) -> str:
        x = sequence(net)
        parts = [net.linear(x, 8, 12), net.linear(x, 8, 12), net.weight(12)]
        parts += [net.weight(12)] if op == "SkipLayerNormalization" else []
        y = net.op(op, *parts, net.weight(12), domain=MS, outputs=4)
        return net.op("Add", net.linear(y[0], 12, 3), net.linear(y[3], 12, 3))

    return build


def fused(op: str, *weights: tuple[int, ...], **attributes: object) -> Build:
    def build(net: Net) -> str:
        y = net.linear(sequence(net), 8, 12)
        y = net.op(op, y, *(net.weight(*w) for w in weights), domain=MS, **attributes)
        return net.linear(y, 12, 3)

    return build


def fused_conv(net: Net) -> str:
    x = net.conv(net.input("x", ["batch", 3, 6, 6]), 3, 12)
    y = net.op("FusedConv", x, net.weight(12, 12, 1, 1), net.weight(12), x, domain=MS, activation="Relu")
    return net.conv(y, 12, 2)


def fused_gemm(net: Net) -> str:
    x = net.input("x", ["batch", 8])
    y = net.op("FusedGemm", x, net.weight(12, 8), net.weight(12), domain=MS, transB=1, activation="Relu")
    return net.op("FusedGemm", y, net.weight(12, 3), net.weight(3), domain=MS, activation="Sigmoid")


def experts(net: Net) -> str:
    x = net.linear(net.input("x", ["batch", 8]), 8, 12)
    up, down = net.weight(4, 16, 12), net.weight(4, 12, 16)
    y = net.op(
        "MoE", x, net.linear(x, 12, 4), up, net.weight(4, 16), down, net.weight(4, 12), domain=MS, k=2,
        activation_type="relu",
    )  # fmt: skip
    return net.linear(y, 12, 3)


def deformed(net: Net) -> str:
    x = net.conv(net.input("x", ["batch", 3, 6, 6]), 3, 8)
    offset, mask = net.conv(x, 8, 18), net.op("Sigmoid", net.conv(x, 8, 9))
    y = net.op("DeformConv", x, net.weight(12, 4, 3, 3), offset, net.weight(12), mask, group=2, pads=[1, 1, 1, 1])
    return net.conv(y, 12, 2)


def grid_sample(net: Net) -> str:
    x = net.conv(net.input("x", ["batch", 3, 6, 6]), 3, 8)
    grid = net.op("Tanh", net.op("Transpose", net.conv(x, 8, 2), perm=[0, 2, 3, 1]))
    return net.conv(net.op("GridSample", x, grid), 8, 2)


def scatter_nd(net: Net) -> str:
    y = net.linear(net.input("x", [4, 8]), 8, 12)
    fresh = net.op("Tanh", net.linear("x", 8, 12))
    rows = net.op("Slice", fresh, net.ints(0), net.ints(2), net.ints(0))
    return net.linear(net.op("ScatterND", y, net.constant(np.array([[2], [0]])), rows), 12, 3)


def scatter_elements(net: Net) -> str:
    y = net.linear(net.input("x", [4, 8]), 8, 12)
    rows = net.op("Slice", net.op("Tanh", y), net.ints(0), net.ints(1), net.ints(0))
    places = net.op("Cast", net.op("Mul", rows, net.constant(np.float32(0))), to=TensorProto.INT64)
    return net.linear(net.op("ScatterElements", y, places, rows, axis=0), 12, 3)


def gather_nd(net: Net) -> str:
    y = net.linear(net.input("x", [4, 8]), 8, 12)
    return net.linear(net.op("GatherND", y, net.constant(np.array([[2], [0], [3]]))), 12, 3)


def tensor_scatter(net: Net) -> str:
    y = net.linear(sequence(net), 8, 12)
    cache = net.op("Expand", net.constant(np.zeros((1, 7, 12), np.float32)), net.op("Concat", *(
        net.op("Shape", y, start=0, end=1), net.ints(7, 12)), axis=0))  # fmt: skip
    return net.linear(net.op("TensorScatter", cache, y, axis=1), 12, 3)


def trilu(net: Net) -> str:
    y = net.conv(net.input("x", ["batch", 3, 6, 6]), 3, 8)
    return net.conv(net.op("Trilu", y), 8, 2)


def top_k(net: Net) -> str:
    y = net.linear(sequence(net), 8, 12)
    return net.linear(net.op("TopK", y, net.ints(3), axis=1, outputs=2)[0], 12, 3)


def col2im(net: Net) -> str:
    y = net.op("Reshape", net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 32), net.ints(0, 32, 16))
    y = net.op("Col2Im", y, net.ints(8, 8), net.ints(2, 2), strides=[2, 2])
    return net.conv(y, 8, 2)


def mean_variance(net: Net) -> str:
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 8)
    return net.conv(net.op("MeanVarianceNormalization", y, axes=[1, 2, 3]), 8, 2)


def one_hot_router(net: Net) -> str:
    y = net.linear(sequence(net), 8, 12)
    index = net.op("ArgMax", net.linear(y, 12, 4), axis=-1, keepdims=0)
    chosen = net.op("OneHot", index, net.constant(np.array(4)), net.constant(np.array([0, 1], np.float32)))
    return net.op("MatMul", net.op("Transpose", chosen, perm=[0, 2, 1]), net.linear(y, 12, 3))


def spectrum(net: Net) -> str:
    y = net.op("Unsqueeze", net.linear(sequence(net), 8, 12), net.ints(3))
    y = net.op("Slice", net.op("DFT", y, "", net.constant(np.array(1))), net.ints(0), net.ints(1), net.ints(3))
    return net.linear(net.op("Squeeze", y, net.ints(3)), 12, 3)


def linear_attention_parts(net: Net) -> str:
    """The recurrence as ONNX's einsums write it: keys times values, then queries."""
    x = sequence(net)
    q, k, v = (net.op("Reshape", net.linear(x, 8, 16), net.ints(0, 5, 4, 4)) for _ in range(3))
    y = net.op("Einsum", q, net.op("Einsum", k, v, equation="bthd,bthe->bhde"), equation="bthd,bhde->bthe")
    return net.linear(net.op("Reshape", y, net.ints(0, 5, 16)), 16, 3)


CASES: dict[str, tuple[Build, set[int]]] = {
    "attention": (attention(3, grouped=False), {4}),
    "attention, rank 4": (attention(4, grouped=False), {4}),
    "attention, grouped": (attention(3, grouped=True), {2, 4}),
    "attention, grouped, rank 4": (attention(4, grouped=True), {2, 4}),
    "attention, other values": (attention(3, grouped=False, value=6), {4, 6}),
    "multi-head": (multi_head, {4, 6}),
    "fused attention": (fused_attention, {4, 12}),
    "fused attention, other values": (fused_attention_with_other_values, {4, 6, 12}),
    "grouped query": (grouped_query(packed=False), {2}),
    "grouped query, packed": (grouped_query(packed=True), {2}),
    "rotary": (rotary("", 0, 3), {2, 4}),
    "rotary, interleaved": (rotary("", 1, 4), {2, 4}),
    "rotary of ONNX Runtime": (rotary(MS, 0, 3), {2, 4}),
    "rotary of ONNX Runtime, interleaved": (rotary(MS, 1, 3), {2, 4}),
    "skip norm": (skip_norm("SkipLayerNormalization"), {12}),
    "skip norm, simplified": (skip_norm("SkipSimplifiedLayerNormalization"), {12}),
    "bias gelu": (fused("BiasGelu", (12,)), {12}),
    "fast gelu": (fused("FastGelu", (12,)), {12}),
    "quick gelu": (fused("QuickGelu"), {12}),
    "fused matmul": (fused("FusedMatMul", (12, 12), transB=1, alpha=0.5), {12}),
    "fused conv": (fused_conv, {12}),
    "fused gemm": (fused_gemm, {12}),
    "experts": (experts, {4, 12, 16}),
    "deformed": (deformed, {4, 6}),
    "grid sample": (grid_sample, {8}),
    "scatter nd": (scatter_nd, {12}),
    "scatter elements": (scatter_elements, {12}),
    "gather nd": (gather_nd, {12}),
    "tensor scatter": (tensor_scatter, {12}),
    "trilu": (trilu, {8}),
    "top k": (top_k, {12}),
    "col2im": (col2im, {8}),
    "mean variance": (mean_variance, {8}),
    "one hot router": (one_hot_router, {12}),
    "spectrum": (spectrum, {12}),
    "linear attention in parts": (linear_attention_parts, {4}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_rule_lets_go_goes(name: str) -> None:
    build, sizes = CASES[name]
    net = Net(5, opset=24 if name == "tensor scatter" else 23, ir_version=10)
    y = build(net)
    net.nodes.append(onnx.helper.make_node("Identity", [y], ["y"]))
    model = net.model("y", domains=[MS])
    result = graphprune.prune(model, ratio=0.5, allow_statistical=True, input_shapes=fed(name))
    assert sizes <= {g.size for g in result.plan.groups}, [(g.id, g.size) for g in result.analysis.fixed]
    assert result.proof is not None and result.proof.worst < 1e-5
    if result.proof.statistical or any(g.kind == "expert" for g in result.plan.groups):  # these are never chosen
        return
    feeds = helpers.random_feeds(model, {"batch": 3})
    masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)
    for expected, found in zip(masked, helpers.run(result.model.proto, feeds), strict=True):
        assert helpers.relative(expected, found) < 1e-5


def fed(name: str) -> dict[str, tuple[int, ...]]:
    """Grouped query attention is told the lengths of a batch of three."""
    return {"x": (3, 5, 8)} if name.startswith("grouped") else {}
