"""The smallest weights go."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from graphprune.analysis import analyze
from graphprune.analysis.patterns import OfEvery, Unstructured
from graphprune.passes.sparse import thinning
from graphprune.passes.sparse.targets import Scope, choose
from models.small import Net


def three(scales: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> ModelProto:
    net = Net()
    x = net.linear(net.input("x", ["batch", 64]), 64, 64)
    for scale in scales:
        x = net.op("MatMul", x, net.constant((net.rng.standard_normal((64, 64)) * scale).astype(np.float32)))
    return net.model(net.linear(x, 64, 64))


def lamp(squares: np.ndarray) -> np.ndarray:
    """The paper's equation (4), term by term."""
    flat = squares.reshape(-1)
    return np.array([u / flat[flat >= u].sum() for u in flat]).reshape(squares.shape)


def test_lamp_is_that_of_the_paper() -> None:
    analysis = analyze(three((1.0, 0.1, 3.0)))
    targets, _ = choose(analysis, Unstructured(0.6), Scope())
    model, found = thinning.mask(analysis.model, analysis.model, targets, Unstructured(0.6))
    scores = [lamp(analysis.model.array(t.weight).astype(np.float64) ** 2) for t in targets]
    limit = np.sort(np.concatenate([s.reshape(-1) for s in scores]))[int(0.6 * sum(s.size for s in scores))]
    for target, own in zip(targets, scores, strict=True):
        gone = model.array(target.weight) == 0
        assert np.mean(gone == (own < limit)) > 0.999  # equal up to rounding at the limit
    assert abs(np.mean([t.kept for t in found]) - 0.4) < 1e-3


def test_a_layer_of_small_numbers_is_not_emptied() -> None:
    analysis = analyze(three((1.0, 1e-3, 1.0)))
    targets, _ = choose(analysis, Unstructured(0.6), Scope())
    _, found = thinning.mask(analysis.model, analysis.model, targets, Unstructured(0.9))
    assert min(t.kept for t in found) > 0.05


def test_shares_of_magnitude() -> None:
    analysis = analyze(three())
    targets, _ = choose(analysis, OfEvery(2, 4), Scope())
    model, found = thinning.mask(analysis.model, analysis.model, targets, OfEvery(2, 4))
    for target, one in zip(targets, found, strict=True):
        before, after = (np.abs(m.array(target.weight)).sum() for m in (analysis.model, model))
        assert np.isclose(one.kept_magnitude, after / before, rtol=1e-5) and one.kept == 0.5
