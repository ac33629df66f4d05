from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from graphprune.gradients import GradientError, vjp
from graphprune.gradients.expansion import prepared
from tests.gradients.checking import check as check_any
from tests.gradients.checking import evaluate, one_node

OURS: dict[str, Any] = {"domain": "com.microsoft", "exact": False, "tolerance": 1e-2}


def check(op: str, *inputs: np.ndarray | None, **options: Any) -> None:
    check_any(op, *inputs, **{**OURS, **options})


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu"])
def test_of_one(op: str) -> None:
    check(op, _normal(2, 3))
    check(op, _normal(2, 3), alpha=1.2) if op == "QuickGelu" else None


def test_with_bias() -> None:
    check("BiasGelu", _normal(2, 3), _normal(3, seed=1))
    check("FastGelu", _normal(2, 3), _normal(3, seed=1))


def test_products() -> None:
    check("FusedMatMul", _normal(2, 3, 2), _normal(2, 2, 3, seed=1), transA=1, transB=1, alpha=0.5)
    check("FusedMatMul", _normal(2, 3), _normal(3, 2, seed=1))
    check("FusedGemm", _normal(2, 3), _normal(2, 3, seed=1), _normal(2, seed=2), transB=1, activation="Tanh")
    check("FusedGemm", _normal(2, 3), _normal(3, 2, seed=1), activation="LeakyRelu", activation_alpha=0.3)


@pytest.mark.parametrize("bias", [False, True])
def test_norms(bias: bool) -> None:
    x, skip, rows = _normal(2, 3, 4), _normal(2, 3, 4, seed=1), [_normal(4, seed=k) for k in range(2, 5)]
    loose = {0: (0, 1), 1: (0, 1)}
    more = [rows[2]] if bias else []
    check("SkipLayerNormalization", x, skip, rows[0], rows[1], *more, epsilon=0.1, loose=loose)
    check("SkipSimplifiedLayerNormalization", x, skip, rows[0], *more, epsilon=0.1, loose=loose)
    check_any("SimplifiedLayerNormalization", x, rows[0], exact=False, tolerance=1e-2, epsilon=0.1, axis=-1)


def test_embeddings() -> None:
    ids = np.asarray([[0, 2, 1], [2, 2, 0]], np.int32)
    tables, rows = [_normal(n, 4, seed=n) for n in (3, 5, 2)], [_normal(4, seed=9), _normal(4, seed=8)]
    segments, mask = np.asarray([[0, 1, 1], [0, 0, 1]], np.int32), np.ones((2, 3), np.int32)
    check("EmbedLayerNormalization", ids, segments, *tables, *rows, mask, outputs=2, epsilon=0.1)
    check("EmbedLayerNormalization", ids, None, *tables[:2], None, *rows, outputs=2, epsilon=0.1)


@pytest.mark.parametrize(("bits", "zeros"), [(4, None), (4, "packed"), (4, "apart"), (8, None)])
def test_weights_of_few_bits(bits: int, zeros: str | None) -> None:
    rng, (outer, many, block) = np.random.default_rng(0), (3, 2, 16)
    packed = rng.integers(0, 256, (outer, many, block * bits // 8), np.uint8)
    more: list[np.ndarray] = []
    if zeros == "packed":
        more = [rng.integers(0, 256, (outer, 1), np.uint8)]
    elif zeros == "apart":
        more = [rng.uniform(6, 9, (outer, many))]
    a, scales = rng.standard_normal((2, 2, 24)), rng.uniform(0.01, 0.02, (outer, many))
    options = {"K": 24, "N": outer, "bits": bits, "block_size": block}
    check("MatMulNBits", a, packed, scales, *more, wrt=[0, 2], loose={0: (0, 1)}, **options)


def test_norm_of_groups_behind() -> None:
    """No kernel of the processor has it: what it opens to is held against the formula."""
    x, gamma, beta = (v.astype(np.float32) for v in (_normal(2, 3, 2, 4), _normal(4, seed=1), _normal(4, seed=2)))
    options = {"groups": 2, "epsilon": 0.1, "activation": 1, "channels_last": 1}
    model = one_node("GroupNorm", [x, gamma, beta], TensorProto.FLOAT, domain="com.microsoft", **options)
    opened, _ = prepared(model)
    found = evaluate(opened, {"x0": x, "x1": gamma, "x2": beta}, False)[0]
    rows = x.reshape(2, 6, 2, 2)
    centred = rows - rows.mean((1, 3), keepdims=True)
    z = (centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 0.1)).reshape(x.shape) * gamma + beta
    assert found == pytest.approx(z / (1 + np.exp(-z)), abs=1e-5)


def test_why_it_is_not_opened() -> None:
    model = one_node(
        "FusedMatMul", [_normal(2, 3, 4), _normal(3, 4, 2)], TensorProto.FLOAT, domain="com.microsoft", transBatchA=1
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(GradientError, match="moves a batch axis"):
        vjp(model, ["y0"], ["x0"])
