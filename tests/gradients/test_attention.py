from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gradients.checking import check as check_any

OURS: dict[str, Any] = {"domain": "com.microsoft", "exact": False, "tolerance": 1e-2}


def check(op: str, *inputs: np.ndarray | None, **options: Any) -> None:
    check_any(op, *inputs, **{**OURS, **options})


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


_MASKS = {
    "none": None,
    "lengths": np.asarray([2, 3], np.int32),
    "keys": np.asarray([[1, 1, 0], [1, 1, 1]], np.int32),
}


@pytest.mark.parametrize("mask", _MASKS)
def test_projected(mask: str) -> None:
    x, w, bias = _normal(2, 3, 4), _normal(4, 12, seed=1), _normal(12, seed=2)
    options: dict[str, Any] = {"num_heads": 2, "loose": {0: (0, 1)} if mask != "lengths" else {}}
    check("Attention", x, w, bias, _MASKS[mask], **options)
    if mask == "none":
        check("Attention", x, w, bias, None, unidirectional=1, **options)
        check("Attention", x, w, bias, None, _normal(2, 2, 2, 2, 2, seed=3), outputs=2, **options)
        check("Attention", x, w, bias, None, None, _normal(1, 2, 3, 3, seed=4), scale=0.3, **options)


def test_separate() -> None:
    q, k, v = _normal(2, 2, 4), _normal(2, 3, 4, seed=1), _normal(2, 3, 4, seed=2)
    options: dict[str, Any] = {"num_heads": 2, "loose": {0: (0, 1), 1: (0, 1), 2: (0, 1)}}
    check("MultiHeadAttention", q, k, v, _normal(12, seed=3), **options)
    check("MultiHeadAttention", q, k, v, None, _MASKS["keys"], **options)
    check("MultiHeadAttention", q, k, v, None, None, _normal(1, 2, 2, 3, seed=4), **options)
    check("MultiHeadAttention", k, k, v, unidirectional=1, **options)
    past = [_normal(2, 2, 2, 2, seed=s) for s in (5, 6)]
    check("MultiHeadAttention", k, k, v, None, None, None, *past, outputs=3, **options)
    inner = [_normal(2, 2, 3, 2, seed=s) for s in (5, 6)]
    check("MultiHeadAttention", q, *inner, **{**options, "loose": {0: (0, 1)}})


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("flat", [False, True])
def test_rotary(interleaved: int, flat: bool) -> None:
    angles = np.outer(np.arange(5), [1.0, 0.3])
    x = _normal(2, 3, 8) if flat else _normal(2, 2, 3, 4)
    options: dict[str, Any] = {"interleaved": interleaved, "loose": {0: (0, 1) if flat else (0, 2)}}
    for at in (np.asarray([1], np.int64), np.asarray([[0, 1, 2], [2, 3, 4]], np.int64)):
        check("RotaryEmbedding", x, at, np.cos(angles), np.sin(angles), wrt=[0], **options)
    if flat:
        check("RotaryEmbedding", _normal(2, 3, 12), at, *_tables(), num_heads=2, rotary_embedding_dim=4, **options)


def _tables(size: int = 2) -> list[np.ndarray]:
    angles = np.outer(np.arange(8), 0.7 ** np.arange(size))
    return [np.cos(angles), np.sin(angles)]


@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("window", [-1, 2])
def test_groups_of_queries(rotary: int, window: int) -> None:
    q, k, v = _normal(1, 3, 64), _normal(1, 3, 32, seed=1), _normal(1, 3, 32, seed=2)
    many: dict[str, Any] = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": rotary, "local_window_size": window}
    tables = _tables(8) if rotary else []
    lengths, total = np.asarray([2], np.int32), np.asarray(3, np.int32)
    options: dict[str, Any] = {**many, "wrt": [0, 1, 2], "loose": {0: (0, 1), 1: (0, 1), 2: (0, 1)}}
    check("GroupQueryAttention", q, k, v, None, None, lengths, total, *tables, outputs=3, **options)
    check("GroupQueryAttention", q, k, v, None, None, lengths, total, *tables, outputs=3, softcap=2.0, **options)
    past = [_normal(1, 2, 4, 16, seed=s) for s in (5, 6)]
    behind = {**options, "wrt": [0, 1, 2, 3, 4]}
    for filled in (4, 1):  # a cache that grows, and one that is long enough
        last, whole = np.asarray([filled + 2], np.int32), np.asarray(filled + 3, np.int32)
        check("GroupQueryAttention", q, k, v, *past, last, whole, *tables, outputs=3, **behind)
    packed = np.concatenate([q, k, v], -1)
    packed_options = {**many, "wrt": [0], "loose": {0: (0, 1)}}
    check("GroupQueryAttention", packed, None, None, None, None, lengths, total, *tables, outputs=3, **packed_options)


ONNX: dict[str, Any] = {"exact": False, "tolerance": 1e-2}


@pytest.mark.parametrize("opset", [23, 24])
def test_of_onnx(opset: int) -> None:
    q, k, v = _normal(2, 4, 3, 2), _normal(2, 2, 4, 2, seed=1), _normal(2, 2, 4, 2, seed=2)
    loose = {0: (0, 2), 1: (0, 2), 2: (0, 2)}
    options = {**ONNX, "opset": opset, "loose": loose}
    check_any("Attention", q, k, v, **options)
    check_any("Attention", q, k, v, _normal(3, 4, seed=3), scale=0.4, softcap=2.0, **options)
    check_any("Attention", q, k[:, :, :3], v[:, :, :3], is_causal=1, **options)
    flat = [t.transpose(0, 2, 1, 3).reshape(2, -1, t.shape[1] * 2) for t in (q, k, v)]
    options["loose"] = {0: (0, 1), 1: (0, 1), 2: (0, 1)}
    check_any("Attention", *flat, q_num_heads=4, kv_num_heads=2, **options)
    past = [_normal(2, 2, 2, 2, seed=s) for s in (5, 6)]
    check_any("Attention", *flat, None, *past, q_num_heads=4, kv_num_heads=2, outputs=3, **options)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_of_onnx(interleaved: int) -> None:
    x, tables = _normal(2, 2, 3, 4), _tables()
    at = np.asarray([[0, 1, 2], [2, 3, 4]], np.int64)
    check_any("RotaryEmbedding", x, *tables, at, interleaved=interleaved, loose={0: (0, 2)}, **ONNX)
    rows = [t[at] for t in tables]
    check_any("RotaryEmbedding", x, *rows, interleaved=interleaved, loose={0: (0, 2)}, **ONNX)
    flat = x.transpose(0, 2, 1, 3).reshape(2, 3, 8)
    check_any("RotaryEmbedding", flat, *rows, num_heads=2, interleaved=interleaved, loose={0: (0, 1)}, **ONNX)
