"""Which quantised products are 8 bits in and out, and where a model breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime import quantization as q

from graphprune.analysis import analyze, int8
from models.small import Net


def network() -> ModelProto:
    """A convolution, one beside a skip, and a matrix product with a bias and an activation of two nodes."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["batch", 32, 8, 8]), 32, 32))
    x = net.op("Relu", net.op("Add", net.conv(x, 32, 32), x))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.linear(x, 32, 64)
    x = net.op("Mul", x, net.op("Sigmoid", x))
    return net.model(net.op("Softmax", net.linear(x, 64, 8), axis=1), rank=2)


class Drawn(q.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        draw = np.random.default_rng(0).standard_normal
        self.left = [{"x": draw((2, 32, 8, 8), np.float32)} for _ in range(3)]

    def get_next(self) -> Any:
        return self.left.pop() if self.left else None


def quantised(folder: Path, outputs: bool, **options: Any) -> ModelProto:
    """As ONNX Runtime quantises; without outputs what reads them quantises them for itself, or not at all."""
    onnx.save(network(), folder / "m.onnx")
    kinds = ["Conv", "MatMul", "Add", "Relu", "Sigmoid", "Mul", "GlobalAveragePool", "Flatten", "Softmax"]
    extra = {} if outputs else {"OpTypesToExcludeOutputQuantization": kinds}
    q.quantize_static(
        folder / "m.onnx", folder / "q.onnx", Drawn(), op_types_to_quantize=kinds if outputs else ["Conv", "MatMul"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, **extra}, **options,
    )  # fmt: skip
    return onnx.load(folder / "q.onnx")


def found(model: ModelProto) -> list[int8.Product]:
    analysis = analyze(model)
    return int8.products(analysis.model, analysis.witness, analysis.web)


def test_with_quantised_outputs_all_products_are_int8(tmp_path: Path) -> None:
    products = found(quantised(tmp_path, True))
    assert len(products) == 4 and [p.breaks for p in products] == [None] * 4


def test_a_float_output_is_named_with_the_remedy(tmp_path: Path) -> None:
    """A bias, an activation (also one of two nodes) and a quantised skip are passed; what is not fused is named."""
    model = quantised(tmp_path, False)
    convs, products = ([n for n in model.graph.node if n.op_type == kind] for kind in ("Conv", "MatMul"))
    skip, pooled = (next(n for n in model.graph.node if n.op_type == kind) for kind in ("Add", "GlobalAveragePool"))
    last = model.graph.node[-1]
    assert skip.input[0] == convs[1].output[0] and last.op_type == "Softmax"
    assert [(p.node, str(p.breaks)) for p in found(model)] == [
        (convs[0].name, "None"),
        (convs[1].name, f"its output is not quantised: node {pooled.name!r} (GlobalAveragePool) reads "
                        f"{pooled.input[0]!r} in float; quantise {pooled.input[0]!r}"),
        (products[0].name, "None"),
        (products[1].name, f"its output is not quantised: node {last.name!r} (Softmax) reads {last.input[0]!r} in "
                           f"float; quantise {last.input[0]!r}"),
    ]  # fmt: skip
    assert not found(network())


def pair(net: Net, x: str) -> str:
    """Quantised and dequantised."""
    scale, zero = net.constant(np.float32(0.1)), net.constant(np.int8(0))
    return str(net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero))


def test_a_skip_in_float_a_float_input_and_integers_are_said() -> None:
    net = Net()
    raw = net.input("x", ["batch", 32])
    weight = pair(net, net.weight(32, 32))
    made = net.op("MatMul", pair(net, raw), weight)
    last = net.op("MatMul", net.op("Add", made, raw), weight)
    integers = net.constant(np.ones((32, 8), np.int8))
    eight = net.op("QuantizeLinear", last, net.constant(np.float32(1)), net.constant(np.int8(0)))
    last = net.op("MatMulInteger", eight, integers)
    said = [str(p.breaks) for p in found(net.model(net.op("Cast", last, to=onnx.TensorProto.FLOAT), rank=2))]
    adds = next(n for n in net.nodes if n.op_type == "Add")
    assert said == [
        f"its output is not quantised: node {adds.name!r} (Add) reads {made!r} in float; quantise {made!r}",
        f"it reads {adds.output[0]!r} in float, so that it is computed in float; quantise {adds.output[0]!r}",
        "it multiplies integers by an operator of its own, which TensorRT does not read; quantise as pairs of "
        "QuantizeLinear and DequantizeLinear",
    ]
