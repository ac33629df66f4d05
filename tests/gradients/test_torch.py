"""Gradients against those of PyTorch, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gradients.checking import gradients


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


_X, _C, _AT = _normal(2, 4, 6), _normal(6, seed=1), np.asarray([[0, 2], [-1, 2]])
_QKV = [_normal(2, 4, 3, 8, seed=s) for s in range(3)]
_CASES: dict[str, tuple[str, list[np.ndarray], Callable[..., Any], dict[str, Any]]] = {
    "gelu": ("Gelu", [_X], lambda t, x: t.nn.functional.gelu(x), {}),
    "gelu by tanh": ("Gelu", [_X], lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), {"approximate": "tanh"}),
    "layer": ("LayerNormalization", [_X, _C, _C], lambda t, x, s, b: t.nn.functional.layer_norm(x, (6,), s, b), {}),
    "rms": ("RMSNormalization", [_X, _C], lambda t, x, s: t.nn.functional.rms_norm(x, (6,), s, 1e-5), {}),
    "group": (
        "GroupNormalization",
        [_X, _C[:4], _C[:4]],
        lambda t, x, s, b: t.nn.functional.group_norm(x, 2, s, b),
        {"num_groups": 2},
    ),
    "embedding": ("Gather", [_X[0], _AT], lambda t, x, at: t.nn.functional.embedding(at % 4, x), {}),
    "attention": (
        "Attention",
        _QKV,
        lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        {"is_causal": 1},
    ),
    "einsum": ("Einsum", [_X, _X], lambda t, a, b: t.einsum("bic,bjc->bij", a, b), {"equation": "bic,bjc->bij"}),
    "product": ("ReduceProd", [_X * (_X > 0), np.asarray([1])], lambda t, x, _: x.prod(1), {"keepdims": 0}),
    "largest": ("ReduceMax", [np.round(_X), np.asarray([1])], lambda t, x, _: x.amax(1), {"keepdims": 0}),
    "sums": ("CumSum", [_X, np.asarray(1)], lambda t, x, _: x.cumsum(1), {}),
    "reflected": (
        "Pad",
        [_X, np.asarray([0, 0, 2, 0, 0, 1])],
        lambda t, x, _: t.nn.functional.pad(x, (2, 1), mode="reflect"),
        {"mode": "reflect"},
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("case", _CASES)
def test_against_torch(case: str) -> None:
    torch = pytest.importorskip("torch")
    op, inputs, function, options = _CASES[case]
    given = [torch.tensor(v, requires_grad=v.dtype == np.float32) for v in inputs]
    floats = [i for i, v in enumerate(inputs) if v.dtype == np.float32]
    y = function(torch, *given)
    g = _normal(*y.shape, seed=7)
    expected = torch.autograd.grad(y, [given[i] for i in floats], torch.tensor(g))
    found = gradients(op, inputs, [g], floats, **options)
    for i, e in zip(floats, expected, strict=True):
        assert found[f"d:x{i}"] == pytest.approx(e.numpy(), abs=2e-5), i
