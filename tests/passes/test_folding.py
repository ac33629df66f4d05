"""Folding: what is computed in the same way is the same, and what reads it takes the one for the other."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from models.small import Net, residual
from tests.helpers import random_feeds, relative, run

SCALES = np.array([0.5, 0.9, 0.7, 0.8], np.float32)


def reader(net: Net, inputs: int, outputs: int, *kernel: int) -> str:
    """A weight that says little of the second half of what it reads, so that it is the one to go."""
    value = net.rng.standard_normal((inputs, outputs, *kernel)).astype(np.float32)
    value[inputs // 2 :] *= 0.1
    return net.constant(value.swapaxes(0, 1) if kernel else value)


def doubled(kind: str) -> ModelProto:
    """Eight channels, of which four are the others times something; and what reads them."""
    net, rng = Net(), np.random.default_rng(0)
    if kind == "matrix":
        half, bias = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
        weight, shift = np.concatenate([half, half * SCALES], 1), np.concatenate([bias, bias * SCALES])
        y = net.op("Add", net.op("MatMul", net.input("x", ["batch", 6]), net.constant(weight)), net.constant(shift))
        return net.model(net.op("MatMul", net.op("Relu", y), reader(net, 8, 3)))
    filters = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    x = net.input("x", ["batch", 3, 8, 8])
    if kind == "scaled by a norm":
        y = net.op("Conv", x, net.constant(np.concatenate([filters, filters])), pads=[1, 1, 1, 1])
        gamma, beta, mean = (rng.uniform(0.5, 1, 4).astype(np.float32) for _ in range(3))
        variance = rng.uniform(0.5, 1, 8).astype(np.float32)
        deviation = np.sqrt(variance + 1e-5)
        scale = np.concatenate([gamma, gamma * SCALES]) * deviation
        given = scale, np.concatenate([beta, beta * SCALES]), np.concatenate([mean, mean]), variance
        y = net.op("BatchNormalization", y, *(net.constant(v.astype(np.float32)) for v in given))
    else:
        both = np.concatenate([filters, filters * SCALES[:, None, None, None]])
        y = net.op("Conv", x, net.constant(both), pads=[1, 1, 1, 1])
    return net.model(net.op("Conv", net.op("Relu", y), reader(net, 8, 5, 3, 3), pads=[1, 1, 1, 1]))


@pytest.mark.parametrize("kind", ["matrix", "convolution", "scaled by a norm"])
def test_copies_fold_exactly(kind: str) -> None:
    model = doubled(kind)
    folded = graphprune.prune(model, ratio=0.5, align=1, compensate="fold")
    assert folded.plan.groups[0].removed == [4, 5, 6, 7]
    feeds = random_feeds(model, {"batch": 3})
    plain = graphprune.prune(model, ratio=0.5, align=1)
    errors = [relative(run(model, feeds)[0], run(r.model.proto, feeds)[0]) for r in (folded, plain)]
    assert errors[0] < 1e-5 < 1e-2 < errors[1]
    assert folded.plan.compensated and folded.proof is not None and folded.proof.worst < 1e-5


def test_what_resembles_nothing_is_left_alone() -> None:
    net = Net()
    y = net.op("Relu", net.op("MatMul", net.input("x", ["batch", 8]), net.constant(np.eye(8, dtype=np.float32))))
    model = net.model(net.linear(y, 8, 3))
    folded, plain = (graphprune.prune(model, ratio=0.5, align=1, compensate=c) for c in ("fold", "none"))
    feeds = random_feeds(model, {"batch": 3})
    assert np.array_equal(run(folded.model.proto, feeds)[0], run(plain.model.proto, feeds)[0])


def test_branches_fold_too() -> None:
    result = graphprune.prune(residual(), ratio=0.3, align=1, compensate="fold")
    assert result.proof is not None and result.plan.compensated
