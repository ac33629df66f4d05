"""An operator that one line describes is coupled, observed, fitted and made sparse; nothing else knows it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
from graphprune import rules
from graphprune.analysis import analyze
from graphprune.analysis.contractions import observe
from graphprune.analysis.products import find_products
from graphprune.rules.table import line
from graphprune.run import synthetic
from graphprune.run.runtime import generate
from models.small import Net
from tests.helpers_sparse import follows

KEY = ("com.microsoft", "FusedMatMul")  # ONNX Runtime runs it; to graphprune it is here what the line says


def perceptron() -> ModelProto:
    """A product in the middle whose weight is held as ``[outputs, sums]``."""
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, 64))
    x = net.op("FusedMatMul", x, net.weight(64, 64, stem="projection"), domain=KEY[0], transB=1)
    return net.model(net.linear(net.op("Relu", x), 64, 16), domains=[KEY[0]], rank=3)


def projection(model: ModelProto) -> np.ndarray:
    node = next(n for n in model.graph.node if n.op_type == KEY[1])
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[1])


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SAMPLES", 32)
    monkeypatch.setattr(rules, "_registered", dict(rules._registered))
    rules.register(KEY[1], line("... i, o i -> ... o", "0*1", "... i o"), domain=KEY[0])


def test_without_its_line_it_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rules._registered, KEY)
    analysis = analyze(perceptron())
    assert len(find_products(analysis.model, analysis.rulings)) == 2 and not analysis.groups


def test_it_is_coupled_and_observed() -> None:
    analysis = analyze(perceptron())
    assert [g.size for g in analysis.groups] == [64, 64]
    seen = observe(analysis, analysis.groups, lambda: [generate(analysis.model, {"x": (4, 8, 64)})])
    names = [analysis.model.nodes[c.node].op_type for c in seen]
    assert names == ["FusedMatMul", "MatMul"] and all(c.matrix.shape[:2] == (1, 64) for c in seen)
    assert seen[0].labels(analysis.groups[0]) is not None


def test_it_is_fitted() -> None:
    result = graphprune.prune(perceptron(), ratio=0.4, align=1, calibration="generated")
    assert projection(result.model.proto).size < 0.6 * 64 * 64
    fit = next(f for f in result.fits if "FusedMatMul" in f.node)
    assert fit.kept and fit.after < 0.8 * fit.before


def test_it_is_made_sparse() -> None:
    for given in ({}, {"calibration": "generated"}):
        result = graphprune.sparsify(perceptron(), **given)
        assert result.sparse is not None
        assert [n for t in result.sparse.thinned for n in t.target.nodes if "FusedMatMul" in n]
        assert follows(projection(result.model.proto), 1)
    assert any(f.kept and "FusedMatMul" in f.node for f in result.fits)
