"""Weights that are put together from pieces are pruned as if they were stored whole; what is only turned is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

import graphprune
from graphprune.model import assembled, load
from graphprune.model.canonical import canonicalize
from graphprune.rewrite.statedict import narrow
from models.small import Net
from tests import helpers


def gates(net: Net, hidden: int, width: int) -> str:
    """Four gates stored in one order and joined in another, as PyTorch's exporter writes an LSTM; one direction."""
    whole = net.weight(4 * hidden, width)
    cuts = [net.op("Slice", whole, net.ints(k * hidden), net.ints((k + 1) * hidden), net.ints(0)) for k in range(4)]
    return str(net.op("Unsqueeze", net.op("Concat", *(cuts[k] for k in (0, 3, 1, 2)), axis=0), net.ints(0)))


def recurrent(hidden: int = 16, directions: int = 2) -> ModelProto:
    """Embeddings, a recurrence of either direction with joined weights, a classifier."""
    net = Net(3, opset=18)
    x = net.input("x", [7, "batch", 12])
    y = net.linear(x, 12, 20)
    joined = []
    for width in (20, hidden):
        parts = [gates(net, hidden, width) for _ in range(directions)]
        joined.append(net.op("Concat", *parts, axis=0) if directions > 1 else parts[0])
    kind = "bidirectional" if directions > 1 else "forward"
    y, _, _ = net.op("LSTM", y, *joined, hidden_size=hidden, direction=kind, outputs=3)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, -1))
    return net.model(net.linear(y, directions * hidden, 5))


def thirds(net: Net) -> list[str]:
    """One stored weight of queries, keys and values, cut into three."""
    return list(net.op("Split", net.weight(12, 24), net.ints(8, 8, 8), axis=1, outputs=3))


def cut() -> ModelProto:
    """Three products with the pieces of one weight."""
    net = Net(4, opset=18)
    x = net.input("x", ["batch", 12])
    a, b, c = (net.op("MatMul", x, piece) for piece in thirds(net))
    return net.model(net.linear(net.op("Mul", net.op("Mul", a, b), c), 8, 5))


def normalised() -> ModelProto:
    """A convolution whose weight is divided by its own norm, as weight normalisation is written, and its reader."""
    net = Net(7, opset=18)
    v, g = net.weight(16, 6, 3), net.weight(16, 1, 1)
    w = net.op("Mul", g, net.op("Div", v, net.op("ReduceL2", v, net.ints(1, 2), keepdims=1)))
    y = net.op("Relu", net.op("Conv", net.input("x", ["batch", 6, 9]), w))
    return net.model(net.op("Conv", y, net.weight(4, 16, 1)))


CASES = [recurrent, lambda: recurrent(directions=1), cut, normalised]


def size(model: ModelProto) -> int:
    """Elements of all weights."""
    return sum(value.size for value in helpers.constants(model).values() if value.dtype.kind == "f")


@pytest.mark.parametrize("make", CASES, ids=["both", "one", "cut", "normalised"])
def test_pieces_are_pruned_as_one_weight(make: Callable[[], ModelProto], tmp_path: Path) -> None:
    model = make()
    whole = canonicalize(load(model)).proto
    feeds = helpers.random_feeds(model, {"batch": 3})
    for one, other in zip(helpers.run(model, feeds), helpers.run(whole, feeds), strict=True):
        assert helpers.relative(one, other) < 1e-6
    found = graphprune.prune(model, tmp_path / "small.onnx", ratio=0.3)  # which proves it against the original
    small = onnx.load(tmp_path / "small.onnx")
    assert size(small) < 0.8 * size(model)
    masked = helpers.mask_by_hand(whole, found.plan.to_json())
    for one, other in zip(helpers.run(masked, feeds), helpers.run(small, feeds), strict=True):
        assert helpers.relative(one, other) < 1e-5
    graphprune.apply(found.plan, model, tmp_path / "again.onnx")
    assert helpers.bare(tmp_path / "again.onnx") == helpers.bare(tmp_path / "small.onnx")


def test_weights_outside_the_file_stay_there(tmp_path: Path) -> None:
    onnx.save(recurrent(), tmp_path / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=256)
    loaded = canonicalize(load(tmp_path / "in.onnx"))
    joined = loaded.initializers[next(n for n in loaded.graph.node if n.op_type == "LSTM").input[1]]
    assert joined.data_location == TensorProto.EXTERNAL and not joined.raw_data
    graphprune.prune(recurrent(), tmp_path / "inside.onnx", ratio=0.3)
    graphprune.prune(tmp_path / "in.onnx", tmp_path / "outside.onnx", ratio=0.3)
    inside, outside = (helpers.constants(onnx.load(tmp_path / f"{n}.onnx")) for n in ("inside", "outside"))
    assert all(np.array_equal(inside[name], outside[name]) for name in inside)


def quantised() -> ModelProto:
    """A weight that is rounded to eight bits and back where it is read, in two pieces."""
    net = Net(5, opset=18)
    x = net.input("x", ["batch", 12])
    parts = net.op("Split", net.weight(12, 16), net.ints(8, 8), axis=1, outputs=2)
    scale, zero = net.constant(np.float32(0.01)), net.constant(np.int8(0))
    read = [net.op("DequantizeLinear", net.op("QuantizeLinear", p, scale, zero), scale, zero) for p in parts]
    return net.model(net.op("Mul", *(net.op("MatMul", x, r) for r in read)))


def grows() -> ModelProto:
    """A row that is repeated to a matrix: stored as it is used the file would be larger."""
    net = Net(6, opset=18)
    rows = net.weight(1, 8)
    return net.model(net.op("MatMul", net.input("x", ["batch", 12]), net.op("Concat", *[rows] * 12, axis=0)))


def turned() -> ModelProto:
    """A weight that is scaled and turned: it is followed to its source."""
    net = Net(7, opset=18)
    w = net.op("Mul", net.weight(8, 12), net.weight(8, 1))
    return net.model(net.op("MatMul", net.input("x", ["batch", 12]), net.op("Transpose", w, perm=[1, 0])))


def elsewhere() -> ModelProto:
    """A weight that is cut in two, and read as a whole too."""
    net = Net(8, opset=18)
    x, w = net.input("x", ["batch", 12]), net.weight(12, 16)
    parts = net.op("Split", w, net.ints(8, 8), axis=1, outputs=2)
    return net.model(net.op("MatMul", x, w), *(net.op("MatMul", x, p) for p in parts))


@pytest.mark.parametrize("make", [quantised, grows, turned, elsewhere])
def test_what_must_stay_as_it_is(make: Callable[[], ModelProto]) -> None:
    model = load(make())
    assert not assembled.find(model)


def test_weights_of_the_training_code_lose_the_same_gates() -> None:
    """The state dict has the order of gates that the file stores, and the plan speaks of the order that runs."""
    model = recurrent(directions=1)
    stored = {name: value for name, value in helpers.constants(model).items() if len(value) == 64 and value.ndim == 2}
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    found = narrow(load(model), plan, {f"weight.{k}": value for k, value in enumerate(stored.values())})
    assert [value.shape for value in found.tensors.values()] == [(48, 15), (48, 12)]
    (gone,) = (g.removed for g in plan.groups if g.size == 16)
    rows = np.concatenate([16 * gate + np.array(gone) for gate in range(4)])
    assert all(sorted(removed[0]) == sorted(rows) for removed in found.removed.values())
