"""Constant classes go exactly: what they added to their readers is in the biases of these."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.analysis import analyze
from graphprune.passes.choose.constants import constant
from models.small import Net, residual
from tests.helpers import random_feeds, relative, run

DEAD = [1, 4, 6]


def normalised(padding: int, scale: float = 0.0, after: str = "Relu", bias: bool = True) -> onnx.ModelProto:
    """A convolution, a normalisation whose scale is zero for some channels, and a convolution that reads it."""
    net, rng = Net(), np.random.default_rng(0)
    gamma = rng.uniform(0.5, 1.5, 8).astype(np.float32)
    gamma[DEAD] = scale
    beta = rng.uniform(0.5, 1.0, 8).astype(np.float32)
    mean, variance = (rng.uniform(0.5, 1.0, 8).astype(np.float32) for _ in range(2))
    y = net.op("Conv", net.input("x", ["batch", 3, 8, 8]), net.weight(8, 3, 3, 3), pads=[1, 1, 1, 1])
    y = net.op("BatchNormalization", y, *map(net.constant, (gamma, beta, mean, variance)))
    more = [net.weight(4)] if bias else []
    return net.model(net.op("Conv", net.op(after, y), net.weight(4, 8, 3, 3), *more, pads=[padding] * 4))


def zero_rows(read: str) -> onnx.ModelProto:
    """A matrix of which some columns are zero, and a product that reads it, with a bias or without."""
    net, rng = Net(), np.random.default_rng(0)
    weight = rng.standard_normal((6, 8)).astype(np.float32)
    weight[:, DEAD] = 0
    y = net.op("MatMul", net.input("x", ["batch", 5, 6]), net.constant(weight))
    y = net.op("Sigmoid", net.op("Add", y, net.constant(rng.standard_normal(8).astype(np.float32))))
    y = net.op("MatMul", y, net.weight(8, 4))
    return net.model(net.op("Add", y, net.weight(4)) if read == "bias" else net.op("Relu", y))


CASES = {
    "scale of zero": normalised(0),
    "scale of zero, no bias": normalised(0, bias=False),
    "zero columns": zero_rows("bias"),
    "zero columns, no bias": zero_rows(""),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost(name: str) -> None:
    model = CASES[name]
    analysis = analyze(model)
    (found,) = constant(analysis, analysis.groups).values()
    assert found.tolist() == DEAD
    result = graphprune.prune(model, ratio=3 / 8, align=1)
    assert result.plan.folded == {analysis.groups[0].id: DEAD}
    assert result.plan.proof is not None and result.plan.proof["folded"]["outputs"][0]["max_rel"] < 1e-5
    feeds = random_feeds(model, {"batch": 3})
    assert relative(run(model, feeds)[0], run(result.model.proto, feeds)[0]) < 1e-5
    plain = graphprune.prune(model, ratio=3 / 8, align=1)
    again = graphprune.apply(plain.plan, model)
    assert relative(run(model, feeds)[0], run(again.model.proto, feeds)[0]) < 1e-5


def test_with_others_gone_too_only_these_cost() -> None:
    result = graphprune.prune(normalised(0), ratio=0.5, align=1)
    (group,) = result.plan.groups
    assert set(DEAD) < set(group.removed) and result.plan.folded == {group.id: DEAD}
    assert result.proof is not None and result.proof.worst < 1e-5


def test_zeros_at_the_border_are_not_the_constant() -> None:
    """With padding the constant is not everywhere: no bias stands for it, and it is left to the fit."""
    result = graphprune.prune(normalised(1), ratio=3 / 8, align=1)
    assert result.plan.groups[0].removed == DEAD and result.plan.folded == {}


def test_a_class_that_is_always_zero_needs_no_bias() -> None:
    model = zero_rows("bias")
    for tensor in model.graph.initializer:
        if list(tensor.dims) == [8]:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(8, -40, np.float32), tensor.name))
    result = graphprune.prune(model, ratio=3 / 8, align=1)
    assert result.plan.groups[0].removed == DEAD
    feeds = random_feeds(model, {"batch": 3})
    assert relative(run(model, feeds)[0], run(result.model.proto, feeds)[0]) < 1e-5


def test_small_is_not_zero() -> None:
    for model in (normalised(0, scale=1e-6), residual()):
        analysis = analyze(model)
        assert constant(analysis, analysis.groups) == {}


def test_the_plan_says_so(tmp_path: Path) -> None:
    onnx.save(normalised(0), tmp_path / "m.onnx")
    graphprune.prune(tmp_path / "m.onnx", tmp_path / "p.onnx", ratio=3 / 8, align=1)
    plan = json.loads((tmp_path / "p.plan.json").read_text())
    assert list(plan["folded"].values()) == [DEAD] and "folded" in plan["proof"]
