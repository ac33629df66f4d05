"""Random valid graphs over sequences, drawn by hypothesis: products, norms, attention, lookups, recurrences, bodies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from models.small import Net

LENGTH = 4
STEPS = (
    "linear", "gelu", "gated", "layer_norm", "rms_norm", "rms_in_parts", "mean_off", "add", "mul", "concat", "split",
    "attention", "attention_op", "grouped", "rotary", "rotary_op", "einsum", "experts", "mixer", "lstm", "gru",
    "branch", "loop", "quantised", "gather_nd", "scatter", "top_k", "cumsum", "softmax", "where", "instance_norm",
    "position", "lp_norm", "half",
)  # fmt: skip


@st.composite
def sequential(draw: st.DrawFn) -> ModelProto:
    """A net over ``[batch, 4, width]`` whose steps read any earlier tensor."""
    steps = draw(
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=8)
    )
    net = Net(draw(st.integers(0, 3)), opset=23, ir_version=10)
    width = draw(st.sampled_from([4, 6, 8, 12]))
    if draw(st.booleans()):
        ids = net.input("ids", ["batch", LENGTH], TensorProto.INT64)
        first = net.op("Gather", net.weight(10, width), ids, axis=0)
    else:
        first = net.linear(net.input("x", ["batch", LENGTH, 5]), 5, width)
    pool: list[tuple[str, int]] = [(first, width)]
    for step, back, option in steps:
        name, c = pool[-1 - back % len(pool)]
        pool += _apply(net, step, name, c, option, pool)
        pool = pool[-4:]
    return net.model(*[net.linear(name, c, 2) for name, c in pool[-2:]], rank=3)


def _heads(net: Net, y: str, heads: int, size: int) -> str:
    return str(net.op("Transpose", net.op("Reshape", y, net.ints(0, LENGTH, heads, size)), perm=[0, 2, 1, 3]))


def _joined(net: Net, y: str, width: int) -> str:
    return str(net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, LENGTH, width)))


def _apply(net: Net, step: str, x: str, c: int, option: int, pool: list[tuple[str, int]]) -> list[tuple[str, int]]:
    wide = (4, 6, 8, 12)[option]
    heads, size = 1 + option, 4
    if step == "linear":
        return [(net.linear(x, c, wide, bias=option > 0), wide)]
    if step == "gelu":
        return [(net.op(("Gelu", "Sigmoid", "Tanh", "Mish")[option], x), c)]
    if step == "gated":
        both = net.op("Split", net.linear(x, c, 2 * wide), outputs=2, axis=2, num_outputs=2)
        return [(net.op("Mul", net.op("Mish", both[0]), both[1]), wide)]
    if step == "layer_norm":
        return [(net.op("LayerNormalization", x, net.weight(c), *([net.weight(c)] if option else []), axis=-1), c)]
    if step == "rms_norm":
        return [(net.op("RMSNormalization", x, net.weight(c), axis=-1, epsilon=0.1), c)]
    if step == "rms_in_parts":
        mean = net.op("ReduceMean", net.op("Mul", x, x), net.ints(-1))
        return [(net.op("Div", x, net.op("Sqrt", net.op("Add", mean, net.constant(np.float32(0.1))))), c)]
    if step == "mean_off":
        return [(net.op("Sub", x, net.op("ReduceMean", x, net.ints(2 - option % 2))), c)]
    if step in ("add", "mul"):
        partner = next((n for n, other in pool if other == c and n != x), x)
        return [(net.op(step.capitalize(), x, partner), c)]
    if step == "concat":
        other, more = pool[option % len(pool)]
        return [(net.op("Concat", x, other, axis=2), c + more)] if c + more <= 24 else []
    if step == "split":
        if c < 2:
            return []
        left = max(1, c // (2 + option % 2))
        a, b = net.op("Split", x, net.ints(left, c - left), outputs=2, axis=-1)
        return [(a, left), (b, c - left)]
    if step == "attention":
        q, k, v = (_heads(net, net.linear(x, c, heads * size), heads, size) for _ in range(3))
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        return [(_joined(net, net.op("MatMul", net.op("Softmax", scores, axis=-1), v), heads * size), heads * size)]
    if step == "attention_op":
        q, k, v = (net.linear(x, c, heads * n) for n in (size, size, 3))
        return [(net.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads), heads * 3)]
    if step == "grouped":
        group = 1 + option % 2
        q, k, v = (net.linear(x, c, n * size) for n in (2 * group, group, group))
        y = net.op("Attention", q, k, v, q_num_heads=2 * group, kv_num_heads=group, is_causal=1)
        return [(y, 2 * group * size)]
    if step == "rotary":
        y = _heads(net, net.linear(x, c, heads * size), heads, size)
        a, b = net.op("Split", y, outputs=2, axis=-1, num_outputs=2)
        turned = net.op("Concat", net.op("Neg", b), a, axis=-1)
        cos, sin = net.weight(LENGTH, size), net.weight(LENGTH, size)
        y = net.op("Add", net.op("Mul", y, cos), net.op("Mul", turned, sin))
        return [(_joined(net, y, heads * size), heads * size)]
    if step == "rotary_op":
        cos, sin = (net.op("Expand", net.weight(1, LENGTH, 2), _batched(net, x, LENGTH, 2)) for _ in range(2))
        y = net.linear(x, c, heads * size)
        return [(net.op("RotaryEmbedding", y, cos, sin, num_heads=heads, interleaved=option % 2), heads * size)]
    if step == "einsum":
        y = net.op("Einsum", x, net.weight(c, heads, size), equation="btc,chd->bthd")
        return [(net.op("Einsum", y, net.weight(heads, size, wide), equation="bthd,hdo->bto"), wide)]
    if step == "experts":
        share = net.op("Sigmoid", net.linear(x, c, 3))
        y = net.op("Relu", net.op("Einsum", x, net.weight(3, c, wide), equation="btc,eco->bteo"))
        y = net.op("Einsum", y, net.weight(3, wide, c), equation="bteo,eoc->btec")
        return [(net.op("Einsum", share, y, equation="bte,btec->btc"), c)]
    if step == "mixer":
        y = net.op("Relu", net.linear(net.op("Transpose", x, perm=[0, 2, 1]), LENGTH, wide))
        return [(net.op("Transpose", net.linear(y, wide, LENGTH), perm=[0, 2, 1]), c)]
    if step in ("lstm", "gru"):
        return [_recurrent(net, step, x, c, option)]
    if step == "branch":
        return [(_branch(net, x, c, wide), wide)]
    if step == "loop":
        return [(_loop(net, x, c), c)]
    if step == "quantised":
        weight = net.constant(net.rng.integers(-90, 90, (c, wide)).astype(np.int8))
        scale = net.constant((net.rng.random(wide) / 90 + 0.01).astype(np.float32))
        point = net.constant(np.full(wide, option - 1, np.int8))
        return [(net.op("MatMul", x, net.op("DequantizeLinear", weight, scale, point, axis=1)), wide)]
    if step == "gather_nd":
        rows = net.op("GatherND", net.op("Transpose", x, perm=[1, 0, 2]), net.constant(np.array([[2], [0], [3], [1]])))
        return [(net.op("Transpose", rows, perm=[1, 0, 2]), c)]
    if step == "scatter":
        moved = net.op("Transpose", x, perm=[1, 0, 2])
        rows = net.op("Slice", net.op("Tanh", moved), net.ints(0), net.ints(2), net.ints(0))
        y = net.op("ScatterND", moved, net.constant(np.array([[3], [1]])), rows)
        return [(net.op("Transpose", y, perm=[1, 0, 2]), c)]
    if step == "top_k":
        return [(net.op("TopK", x, net.ints(LENGTH), axis=1, outputs=2)[0], c)]
    if step == "cumsum":
        return [(net.op("CumSum", x, net.constant(np.array(1 + option // 3))), c)]
    if step == "softmax":
        return [(net.op("Softmax", x, axis=1 + option % 2), c)]
    if step == "where":
        condition = net.op("Greater", x, net.constant(np.float32(0)))
        return [(net.op("Where", condition, x, net.op("Mul", x, net.weight(c))), c)]
    if step == "instance_norm":
        y = net.op("InstanceNormalization", net.op("Transpose", x, perm=[0, 2, 1]), net.weight(c), net.weight(c))
        return [(net.op("Transpose", y, perm=[0, 2, 1]), c)]
    if step == "position":
        return [(net.op("Add", x, net.weight(1, LENGTH, c)), c)]
    if step == "lp_norm":
        return [(net.op("LpNormalization", net.op("Add", x, net.weight(c)), axis=2, p=1 + option % 2), c)]
    assert step == "half"
    y = net.op("Cast", net.op("Cast", x, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
    return [(net.op("MatMul", y, net.op("Transpose", net.weight(wide, c))), wide)]


def _batched(net: Net, x: str, *sizes: int) -> str:
    return str(net.op("Concat", net.op("Shape", x, start=0, end=1), net.ints(*sizes), axis=0))


def _recurrent(net: Net, step: str, x: str, c: int, option: int) -> tuple[str, int]:
    hidden, both = 3 + option, 1 + option % 2
    gates = 4 if step == "lstm" else 3
    weights = [net.weight(both, gates * hidden, n) for n in (c, hidden)]
    weights += [net.weight(both, 2 * gates * hidden)] if option else []
    direction = "bidirectional" if both == 2 else "forward"
    y = net.op(step.upper(), net.op("Transpose", x, perm=[1, 0, 2]), *weights, hidden_size=hidden, direction=direction)
    y = net.op("Reshape", net.op("Transpose", y, perm=[2, 0, 1, 3]), net.ints(0, LENGTH, both * hidden))
    return y, both * hidden


def _within(net: Net) -> Net:
    inner = Net(net.count, opset=net.opset)
    inner.count = 1000 * (1 + net.count)
    return inner


def _value(name: str, kind: int = TensorProto.FLOAT) -> object:
    return helper.make_tensor_value_info(name, kind, None)


def _branch(net: Net, x: str, c: int, wide: int) -> str:
    graphs = []
    for op in ("Relu", "Sigmoid"):
        inner = _within(net)
        y = inner.op(op, inner.linear(x, c, wide))
        graphs.append(helper.make_graph(inner.nodes, op, [], [_value(y)], inner.initializers))
    given = net.op("Cast", net.inputs[0].name, to=TensorProto.FLOAT)  # what is rounded on the way decides nothing
    condition = net.op("Greater", net.op("ReduceSum", given, keepdims=0), net.constant(np.float32(0.5)))
    return str(net.op("If", condition, then_branch=graphs[0], else_branch=graphs[1]))


def _loop(net: Net, x: str, c: int) -> str:
    inner = _within(net)
    step, go, state = (f"{s}_{inner.count}" for s in ("step", "go", "state"))
    y = inner.op("Tanh", inner.linear(state, c, c))
    on = inner.op("Identity", go)
    inputs = [_value(step, TensorProto.INT64), _value(go, TensorProto.BOOL), _value(state)]
    for scalar in inputs[:2]:
        scalar.type.tensor_type.shape.SetInParent()  # type: ignore[attr-defined]
    graph = helper.make_graph(
        inner.nodes, "loop", inputs, [_value(on, TensorProto.BOOL), _value(y)], inner.initializers
    )
    return str(net.op("Loop", net.constant(np.array(2)), net.constant(np.array(True)), x, body=graph))
