"""Proofs without rounding and without chance: what stands for each operator, and that structure is still proven."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphprune
from graphprune.errors import ProofError
from graphprune.proof import proof, steady
from graphprune.proof.difference import STEP
from graphprune.rewrite.rewrite import rewrite
from models.small import Net
from tests import helpers

SCALE = 0.05


def quantised(net: Net, x: str, kind: type[np.generic] = np.int8, point: int = 3, scale: float = SCALE) -> list[str]:
    """A tensor in steps, its scale and its zero point."""
    step, zero = net.constant(net.dtype(scale)), net.constant(np.asarray(point).astype(kind))
    return [net.op("QuantizeLinear", x, step, zero), step, zero]


def pair(net: Net, x: str, kind: type[np.generic] = np.int8, point: int = 3, scale: float = SCALE) -> str:
    return str(net.op("DequantizeLinear", *quantised(net, x, kind, point, scale)))


def ties(kind: type[np.generic] = np.int8) -> ModelProto:
    """Sums of multiples of 0.3 in steps of 3: every tenth is a tie, and the order of the sum decides it."""
    net = Net(0)
    x = net.op("Sign", net.linear(net.input("x", ["batch", 8]), 8, 700))
    weight = (net.rng.integers(-3, 4, (700, 8)) * 0.3).astype(np.float32)
    point = 0 if kind is np.int8 else 128
    y = pair(net, net.op("MatMul", x, net.constant(weight)), kind, point, 3.0)
    return net.model(net.linear(net.op("Relu", net.linear(y, 8, 24)), 24, 3))


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_tie_in_a_quantiser_is_no_failure(kind: type[np.generic]) -> None:
    result = graphprune.prune(ties(kind), ratio=0.5)
    found = result.proof
    assert found is not None and found.rounded is not None
    assert found.worst < 1e-5  # structure, to float32's resolution
    assert found.rounded.whole and found.rounded.steps >= 1
    assert max(o.max_rel for o in found.rounded.outputs) > STEP
    written = found.to_json()
    assert written["unrounded"] is True and written["rounded"]["steps"] >= 1


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_an_error_less_than_a_step_is_found(share: float) -> None:
    """Two steps of 8 bits would let it pass."""
    analysis = graphprune.analyze(ties())
    done = rewrite(analysis, {g.id: list(range(0, g.size, 3)) for g in analysis.groups})
    weight = next(t for t in done.model.graph.initializer if list(t.dims) == [16, 3])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(share), weight.name))
    with pytest.raises(ProofError, match=r"is off by 0\.01 relative"):
        proof.prove(analysis.model, done.model, done.plan, done.removal, [analysis.witness.inputs])


def test_the_range_of_a_type_is_kept() -> None:
    """A clip is continuous: it is no tie, and what saturates does so in the proof as well."""
    net = Net(0)
    model = net.model(pair(net, net.op("Mul", net.input("x", ["batch", 4]), net.constant(np.float32(100)))))
    analysis = graphprune.analyze(model)
    feeds = {"x": np.array([[-1, 1, 0.03, 0.01]], np.float32)}
    (value,) = helpers.run(steady.find_steady(analysis)(analysis.model).proto, feeds)
    assert value == pytest.approx(np.array([[-131 * SCALE, 124 * SCALE, 3, 1]]), rel=1e-5)


Build = Callable[[Net, str], str]


def own(net: Net, x: str, op: str, *more: str, scale: float = SCALE, **attributes: object) -> str:
    """A quantised operator of one or two quantised inputs, and what dequantises it."""
    ends = [net.constant(np.float32(scale)), net.constant(np.uint8(100))]
    domain = "com.microsoft" if op not in ("QLinearConv", "QLinearMatMul") else ""
    y = net.op(op, *quantised(net, x, np.uint8, 120), *more, *ends, domain=domain, **attributes)
    return str(net.op("DequantizeLinear", y, *ends))


def weight(net: Net, *shape: int, columns: int | None = None) -> list[str]:
    """A quantised weight with its scale and zero point, one for each element of an axis where that is given."""
    count = () if columns is None else (shape[columns],)
    scale = net.constant(net.rng.uniform(0.01, 0.02, count).astype(np.float32))
    return [
        net.constant(net.rng.integers(-100, 100, shape).astype(np.int8)),
        scale,
        net.constant(np.zeros(count, np.int8)),
    ]


def convolution(net: Net, x: str) -> str:
    ends = [net.constant(np.float32(0.4)), net.constant(np.uint8(100))]
    bias = net.constant(net.rng.integers(-900, 900, 6).astype(np.int32))
    inputs = [*quantised(net, x, np.uint8, 120), *weight(net, 6, 2, 3, 3, columns=0), *ends, bias]
    return str(net.op("DequantizeLinear", net.op("QLinearConv", *inputs, group=2, pads=[1] * 4), *ends))


def dynamic(net: Net, x: str) -> str:
    y, step, point = net.op("DynamicQuantizeLinear", x, outputs=3)
    value, _, zero = weight(net, 6, 5)
    found = net.op("Cast", net.op("MatMulInteger", y, value, point, zero), to=TensorProto.FLOAT)
    return str(net.op("Mul", found, step))


def moved(net: Net, x: str) -> str:
    """Steps that are turned, pooled, split and joined before they are numbers again."""
    y, step, zero = quantised(net, x)
    parts = net.op(
        "Split",
        net.op("Transpose", net.op("MaxPool", y, kernel_shape=[2, 2]), perm=[0, 2, 3, 1]),
        outputs=2,
        num_outputs=2,
        axis=3,
    )
    return str(net.op("Add", *(net.op("DequantizeLinear", part, step, zero) for part in parts)))


def by_channel(net: Net, x: str) -> str:
    ends = [net.constant(np.linspace(0.03, 0.06, 4, dtype=np.float32)), net.constant(np.arange(4).astype(np.int8))]
    return str(net.op("DequantizeLinear", net.op("QuantizeLinear", x, *ends, axis=1), *ends, axis=1))


def rounded(net: Net, x: str) -> str:
    step = net.constant(np.float32(SCALE))
    return str(net.op("Mul", net.op("Round", net.op("Div", x, step)), step))


IMAGE, ROWS = ["batch", 4, 5, 5], ["batch", 6]
FORMS: dict[str, tuple[list[int | str], Build]] = {
    "int8": (IMAGE, lambda n, x: pair(n, x)),
    "uint8": (IMAGE, lambda n, x: pair(n, x, np.uint8, 120)),
    "int16": (IMAGE, lambda n, x: pair(n, x, np.int16)),
    "int4": (IMAGE, lambda n, x: pair(n, x, ml_dtypes.int4, 1, 0.5)),
    "float8": (IMAGE, lambda n, x: pair(n, x, ml_dtypes.float8_e4m3fn, 0, 0.5)),
    "by channel": (IMAGE, by_channel),
    "moved": (IMAGE, moved),
    "Round": (IMAGE, rounded),
    "QLinearConv": (IMAGE, convolution),
    "QLinearMatMul": (ROWS, lambda n, x: own(n, x, "QLinearMatMul", *weight(n, 6, 5, columns=1), scale=0.2)),
    "QGemm": (ROWS, lambda n, x: own(n, x, "QGemm", *weight(n, 5, 6, columns=0), "", scale=0.2, transB=1, alpha=0.7)),
    "QLinearAdd": (ROWS, lambda n, x: own(n, x, "QLinearAdd", *quantised(n, n.op("Sin", x), np.uint8, 128))),
    "QLinearMul": (ROWS, lambda n, x: own(n, x, "QLinearMul", *quantised(n, n.op("Sin", x), np.uint8, 128))),
    "QLinearLeakyRelu": (ROWS, lambda n, x: own(n, x, "QLinearLeakyRelu", alpha=0.2)),
    "QLinearSigmoid": (ROWS, lambda n, x: own(n, x, "QLinearSigmoid", scale=0.01)),
    "QLinearSoftmax": (ROWS, lambda n, x: own(n, x, "QLinearSoftmax", scale=0.01, axis=-1, opset=13)),
    "QLinearGlobalAveragePool": (IMAGE, lambda n, x: own(n, x, "QLinearGlobalAveragePool", channels_last=0)),
    "QLinearAveragePool": (IMAGE, lambda n, x: own(n, x, "QLinearAveragePool", kernel_shape=[2, 2])),
    "dynamic": (ROWS, dynamic),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_for_an_operator_is_it_but_for_rounding(form: str) -> None:
    shape, build = FORMS[form]
    net = Net(1, opset=21, ir_version=10)
    model = net.model(build(net, net.input("x", shape)), domains=["com.microsoft"])
    analysis = graphprune.analyze(model)
    taken = steady.find_steady(analysis)
    assert taken.replaced and not taken.rounds
    feeds = helpers.random_feeds(model, {"batch": 3})
    (expected,), (found,) = (helpers.run(m, feeds) for m in (model, taken(analysis.model).proto))
    scale = float(np.abs(expected).max())
    assert 0 < np.abs(expected - found).max() < (0.15 if form in ("int4", "float8") else 0.1) * scale


def test_what_cannot_be_replaced_rounds_as_before_with_all_that_it_reads() -> None:
    net = Net(1)
    y, step, _ = quantised(net, net.op("Relu", net.linear(net.input("x", ["batch", 4]), 4, 12)))
    moved = net.op("Cast", net.op("Cast", y, to=TensorProto.INT32), to=TensorProto.FLOAT)
    out = net.linear(net.op("Mul", moved, step), 12, 3)
    model = net.model(out, net.linear(pair(net, out), 3, 2))
    taken = steady.find_steady(graphprune.analyze(model))
    assert taken.rounds and y not in taken.carried
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.rounded is not None
    assert not result.proof.rounded.whole and result.proof.to_json()["unrounded"] is False


def test_quantised_outputs_are_compared_before_they_are_rounded() -> None:
    net = Net(1)
    y = quantised(net, net.linear(net.op("Relu", net.linear(net.input("x", ["batch", 4]), 4, 12)), 12, 3))[0]
    model = net.model(y)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.rounded is not None and result.proof.worst < 1e-5
    assert result.model.graph.output[0].type.tensor_type.elem_type == TensorProto.INT8
