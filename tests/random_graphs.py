"""Random valid graphs, drawn by hypothesis from a list of steps."""

from __future__ import annotations

from hypothesis import strategies as st
from onnx import ModelProto

from models.small import Net

STEPS = (
    "conv", "pointwise", "grouped", "depthwise", "norm", "relu", "sigmoid", "add", "mul", "concat", "split", "slice",
    "strided", "gather", "pad", "shuffle", "pixels", "squeeze_excite", "pool", "transposed", "leaky", "linear", "tile",
    "attention", "reshape", "reduce", "softmax", "scale",
)  # fmt: skip


@st.composite
def convolutional(draw: st.DrawFn) -> ModelProto:
    """A net over NCHW tensors whose steps read any earlier tensor."""
    steps = draw(
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9)
    )
    net = Net(draw(st.integers(0, 3)))
    channels = draw(st.sampled_from([4, 6, 8, 12]))
    first = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, channels)
    pool: list[tuple[str, int]] = [(first, channels)]
    for step, back, option in steps:
        name, c = pool[-1 - back % len(pool)]
        pool += _apply(net, step, name, c, option, pool)
        pool = pool[-4:]
    outputs = []
    for name, c in pool[-2:]:
        outputs.append(net.conv(name, c, 2, k=1))
    return net.model(*outputs, rank=4)


def _apply(net: Net, step: str, x: str, c: int, option: int, pool: list[tuple[str, int]]) -> list[tuple[str, int]]:
    wide = (4, 6, 8, 12)[option]
    if step == "conv":
        return [(net.conv(x, c, wide), wide)]
    if step == "pointwise":
        return [(net.conv(x, c, wide, k=1, bias=option > 1), wide)]
    if step == "grouped":
        group = 2 if c % 2 == 0 else 1
        return [(net.conv(x, c, group * (2 + option), group=group), group * (2 + option))]
    if step == "depthwise":
        multiplier = 1 + option // 2
        return [(net.conv(x, c, c * multiplier, group=c), c * multiplier)]
    if step == "norm":
        return [(net.batch_norm(x, c), c)]
    if step in ("relu", "sigmoid"):
        return [(net.op(step.capitalize(), x), c)]
    if step == "leaky":
        return [(net.op("PRelu", x, net.weight(c, 1, 1)), c)]
    if step in ("add", "mul"):
        partner = next((n for n, other in pool if other == c and n != x), x)
        return [(net.op(step.capitalize(), x, partner), c)]
    if step == "scale":
        return [(net.op(("Mul", "Add", "Sub", "Div")[option], x, net.weight(1, c, 1, 1)), c)]
    if step == "concat":
        other, more = pool[option % len(pool)]
        return [(net.op("Concat", x, other, axis=1), c + more)] if c + more <= 32 else []
    if step == "split":
        if c < 2:
            return []
        left = max(1, c // (2 + option % 2))
        a, b = net.op("Split", x, net.ints(left, c - left), outputs=2, axis=1)
        return [(a, left), (b, c - left)]
    if step == "slice":
        if c < 2:
            return []
        start, stop = option % 2, max(option % 2 + 1, c - option)
        return [(net.op("Slice", x, net.ints(start), net.ints(stop), net.ints(1)), stop - start)]
    if step == "strided":
        even = net.op("Slice", x, net.ints(0), net.ints(2**31), net.ints(1), net.ints(2))
        odd = net.op("Slice", x, net.ints(1), net.ints(2**31), net.ints(1), net.ints(2))
        if c % 2:
            return []
        return [(net.op("Concat", odd, even, axis=1), c)]
    if step == "gather":
        order = net.rng.permutation(c)[: max(1, c - option)]
        return [(net.op("Gather", x, net.ints(*map(int, order)), axis=1), len(order))]
    if step == "pad":
        return [(net.op("Pad", x, net.ints(0, option % 2, 0, 0, 0, option, 0, 0)), c + option % 2 + option)]
    if step == "shuffle":
        if c % 2:
            return []
        y = net.op("Reshape", x, net.ints(0, 2, c // 2, 4, 4))
        y = net.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        return [(net.op("Reshape", y, net.ints(0, -1, 4, 4)), c)]
    if step == "pixels":
        if c % 4:
            return []
        y = net.op("DepthToSpace", x, blocksize=2, mode="DCR" if option % 2 else "CRD")
        return [(net.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), c // 4)]
    if step == "squeeze_excite":
        y = net.op("GlobalAveragePool", x)
        y = net.op("Relu", net.conv(y, c, wide, k=1))
        return [(net.op("Mul", x, net.op("Sigmoid", net.conv(y, wide, c, k=1))), c)]
    if step == "pool":
        kind = ("MaxPool", "AveragePool")[option % 2]
        return [(net.op(kind, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), c)]
    if step == "transposed":
        w = net.weight(c, wide, 3, 3)
        return [(net.op("ConvTranspose", x, w, net.weight(wide), pads=[1, 1, 1, 1], kernel_shape=[3, 3]), wide)]
    if step == "linear":
        y = net.op("Transpose", net.op("Reshape", x, net.ints(0, c, 16)), perm=[0, 2, 1])
        y = net.op("Transpose", net.linear(y, c, wide), perm=[0, 2, 1])
        return [(net.op("Reshape", y, net.ints(0, 0, 4, 4)), wide)]
    if step == "tile":
        return [(net.op("Tile", x, net.ints(1, 2, 1, 1)), 2 * c)] if c <= 12 else []
    if step == "attention":
        return _attention(net, x, c, 1 + option)
    if step == "reshape":
        if c % 2:
            return []
        y = net.op("Reshape", x, net.ints(0, c // 2, 2, 16))
        y = net.op("Mul", y, net.weight(1, c // 2, 1, 1) if option % 2 else net.weight(2, 1))
        return [(net.op("Reshape", y, net.ints(0, c, 4, 4)), c)]
    if step == "reduce":
        if option == 0:
            y = net.op("ReduceSum", x, net.ints(1))
        else:
            y = net.op(("ReduceMax", "ReduceL2", "ReduceMean")[option - 1], x, axes=[1])
        return [(net.op("Mul", x, net.op("Tanh", y)), c)]
    assert step == "softmax"
    return [(net.op("Softmax", x, axis=1 + option % 2), c)]


def _attention(net: Net, x: str, c: int, heads: int) -> list[tuple[str, int]]:
    size = 3
    flat = net.op("Transpose", net.op("Reshape", x, net.ints(0, c, 16)), perm=[0, 2, 1])
    qkv = net.op("Split", net.linear(flat, c, 3 * heads * size), outputs=3, axis=2)
    q, k, v = (net.op("Reshape", t, net.ints(0, 0, heads, size)) for t in qkv)
    q, k, v = (net.op("Transpose", t, perm=p) for t, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    y = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=-1), v)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, heads * size))
    y = net.op("Transpose", net.linear(y, heads * size, c), perm=[0, 2, 1])
    return [(net.op("Reshape", y, net.ints(0, 0, 4, 4)), c)]
