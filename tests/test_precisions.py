"""Half precisions, mixed ones, and quantised models in every form that ONNX Runtime's tools write."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

import graphprune
import models
from graphprune.analysis.blocks import find_blocks as found_blocks
from graphprune.errors import InputError
from graphprune.passes.depth.depth import Request
from models.small import Net
from tests import helpers, rotation

NAMES = ["vgg-dynamo18s", "mobilenet-v2-dynamo18", "shufflenet-v2-dynamo18", "yolo-dynamo18", "lstm-tagger-dynamo18s"]
NAMES += ["bert-classifier-ts17", "gpt2-dynamo18", "llama-dynamo18", "vit-ts16", "t5-encoder-ts14", "moe-dynamo18"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Two random batches."""

    def __init__(self, model: ModelProto) -> None:
        sizes: dict[str, int] = defaultdict(lambda: 4, {"batch": 2, "sequence": 9})
        self.batches = iter([helpers.random_feeds(model, sizes, seed) for seed in range(2)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def static(model: ModelProto, folder: Path, **settings: Any) -> ModelProto:
    onnx.save(model, folder / "in.onnx")
    settings = {"per_channel": True, "weight_type": QuantType.QInt8, **settings}
    quantize_static(folder / "in.onnx", folder / "out.onnx", Batches(model), **settings)
    return onnx.load(folder / "out.onnx")


def dynamic(model: ModelProto, folder: Path, **settings: Any) -> ModelProto:
    onnx.save(model, folder / "in.onnx")
    quantize_dynamic(folder / "in.onnx", folder / "out.onnx", **settings)
    return onnx.load(folder / "out.onnx")


def blocks(model: ModelProto, symmetric: bool) -> ModelProto:
    quantiser = MatMulNBitsQuantizer(model, block_size=16, is_symmetric=symmetric)
    quantiser.process()
    return quantiser.model.model


Convert = Callable[[ModelProto, Path], ModelProto]
FORMS: dict[str, tuple[Convert, float]] = {
    "float16": (lambda m, _: convert_float_to_float16(m), 0.9),
    "float16 with casts": (
        lambda m, _: convert_float_to_float16(m, keep_io_types=True, op_block_list=["Softmax", "LayerNormalization"]),
        0.9,
    ),
    "qdq, per channel": (lambda m, f: static(m, f, quant_format=QuantFormat.QDQ), 0.8),
    "qdq, per tensor": (
        lambda m, f: static(
            m, f, quant_format=QuantFormat.QDQ, per_channel=False, weight_type=QuantType.QUInt8,
            activation_type=QuantType.QUInt8,
        ),
        0.8,
    ),
    "operators": (lambda m, f: static(m, f, quant_format=QuantFormat.QOperator), 0.8),
    "dynamic, per channel": (lambda m, f: dynamic(m, f, per_channel=True), 0.8),
    "dynamic, unsigned": (lambda m, f: dynamic(m, f, weight_type=QuantType.QUInt8), 0.8),
    "4 bits, symmetric": (lambda m, _: blocks(m, symmetric=True), 0.5),
    "4 bits, with zero points": (lambda m, _: blocks(m, symmetric=False), 0.25),
}  # fmt: skip
"""By form: how a model is brought into it, and how much of what float32 loses it must lose at least."""

TOOL_FAILS = {("operators", "t5-encoder-ts14")}
"""What ONNX Runtime's quantiser itself does not take."""


BLOCKY = ("vit-ts16", "resnext-dynamo18", "llama-dynamo18", "bert-classifier-ts17")


@pytest.mark.parametrize(("form", "name"), rotation.pairs(list(FORMS), BLOCKY))
def test_blocks_go_from_every_form(form: str, name: str, tmp_path: Path) -> None:
    """Quantisers and casts between do not hide them, and the proof is not of what optimisation makes of the rest."""
    model = FORMS[form][0](models.export(name), tmp_path)
    analysis = graphprune.analyze(model)
    found = found_blocks(analysis).blocks
    for block in found if rotation.ALL else found[:: max(1, len(found) // 3)]:
        result = graphprune.prune(model, blocks=Request([block.id]))
        assert result.without is not None and result.without.proof is not None
        assert result.without.proof.worst < 1e-2
    assert found


@pytest.mark.parametrize(("form", "name"), rotation.pairs(list(FORMS), NAMES, 3))
def test_every_form_is_pruned_with_a_proof(form: str, name: str, tmp_path: Path) -> None:
    convert, least = FORMS[form]
    if (form, name) in TOOL_FAILS:
        with pytest.raises(RuntimeError, match="Invalid model with unknown initializers"):
            convert(models.export(name), tmp_path)
        return
    model = convert(models.export(name), tmp_path)
    result = graphprune.prune(model, ratio=0.3)
    assert result.proof is not None
    assert result.proof.worst <= (1e-2 if "16" in form else 1e-4)
    rounds = form not in ("float16", "float16 with casts") and "bits" not in form
    assert (result.proof.rounded is not None) == rounds
    if result.proof.rounded is not None:  # but for recurrences that quantise inside
        assert result.proof.rounded.whole == (not form.startswith("dynamic") or "lstm" not in name)
    usual = graphprune.prune(models.export(name), ratio=0.3, prove=False)
    share, full = (1 - r.after.parameters / r.before.parameters for r in (result, usual))
    assert share >= least * full - 0.02, (share, full)


def bfloat16(model: ModelProto) -> ModelProto:
    """Every float32 tensor as bfloat16, the interface too."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            bits = (value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            tensor.CopyFrom(
                TensorProto(name=tensor.name, dims=tensor.dims, data_type=TensorProto.BFLOAT16, raw_data=bits.tobytes())
            )
    for values in (model.graph.input, model.graph.output, model.graph.value_info):
        for value in values:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize("name", ["vgg-dynamo18s", "mobilenet-v2-dynamo18", "conv3d-dynamo18", "moe-dynamo18"])
def test_bfloat16_is_proven_in_float32(name: str) -> None:
    """ONNX Runtime has no kernels for it on a processor, so both models are widened for the proof alone."""
    result = graphprune.prune(bfloat16(models.export(name)), ratio=0.3)
    assert result.proof is not None and result.proof.worst <= 1e-4
    kinds = {t.data_type for t in result.model.graph.initializer}
    assert TensorProto.BFLOAT16 in kinds and TensorProto.FLOAT not in kinds


def qdq_weight(zero_point: int, block: int = 0, kind: type[np.generic] = np.int8) -> ModelProto:
    """A linear layer whose first weight is quantised with a zero point, per tensor, per channel or in blocks."""
    net = Net(3, opset=21, ir_version=10)
    weight = net.constant(net.rng.integers(0, 7, (8, 12)).astype(kind))
    shape, axis = ((8 // block, 12), 0) if block else ((12,), 1)
    scale = net.constant((net.rng.random(shape) / 50 + 0.01).astype(np.float32))
    point = net.constant(np.full(shape, zero_point).astype(kind))
    settings = {"axis": axis, **({"block_size": block} if block else {})}
    x = net.linear(net.input("x", ["batch", 5]), 5, 8)
    y = net.op("MatMul", x, net.op("DequantizeLinear", weight, scale, point, **settings))
    return net.model(net.linear(y, 12, 3))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, ml_dtypes.int4, ml_dtypes.uint4], ids=lambda k: k.__name__)
@pytest.mark.parametrize(("point", "block"), [(0, 0), (5, 0), (5, 2), (3, 4)])
def test_a_mask_writes_the_zero_point(point: int, block: int, kind: type[np.generic]) -> None:
    """Were 0 written in its place, what is removed would not be zero, and the proof would fail."""
    model = qdq_weight(point, block, kind)
    result = graphprune.prune(model, ratio=0.5)
    assert result.proof is not None and result.proof.worst < 1e-5
    assert {g.size for g in result.plan.groups} >= {12}
    if block:
        assert {g.size for g in result.plan.groups} & {8 // block, block}
    helpers.check(result.model.proto)


def test_what_cannot_go_in_4_bits_says_why() -> None:
    net = Net(3, opset=21, ir_version=10)
    x = net.linear(net.input("x", ["batch", 5]), 5, 24)
    weight = net.constant(net.rng.integers(0, 255, (6, 2, 8)).astype(np.uint8))
    y = net.op("MatMulNBits", x, weight, net.weight(6, 2), domain="com.microsoft", K=24, N=6, bits=4, block_size=16)
    model = net.model(net.op("Softmax", y), domains=["com.microsoft"], rank=2)
    analysis = graphprune.analyze(model)
    reasons = [r.text for g in analysis.fixed if g.size == 24 for r in g.reasons]
    assert any("packed into bytes" in r for r in reasons)
    with pytest.raises(InputError, match="nothing is prunable"):
        graphprune.prune(model, ratio=0.5)
