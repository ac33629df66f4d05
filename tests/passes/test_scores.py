"""Queries and keys: exact where what went hangs on what stays, pairs where they rotate, nothing where none may pass."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

import graphprune
from graphprune.analysis.scores import Scores, find_scores
from graphprune.model import load
from graphprune.passes.fit import compensation
from graphprune.passes.fit.compensation import Compensated, Reference, compensate
from graphprune.passes.fit.mixing import Family
from graphprune.rewrite.rewrite import rewrite
from models.small import Net
from tests import helpers

WIDE, HEADS, SIZE, LONG = 10, 2, 6, 7


def low_rank(net: Net, heads: int, size: int, rank: int) -> tuple[str, str]:
    """A weight and a bias that make keys of a rank in each head."""
    basis = net.rng.standard_normal((heads, rank, size))
    weight = np.concatenate([net.rng.standard_normal((WIDE, rank)) @ b / 3 for b in basis], axis=1)
    bias = np.concatenate([net.rng.standard_normal(rank) @ b for b in basis])
    return net.constant(weight.astype(np.float32)), net.constant(bias.astype(np.float32))


def apart(net: Net, x: str, heads: int, order: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    return str(net.op("Transpose", net.op("Reshape", x, net.ints(0, 0, heads, -1)), perm=order))


def rotated(net: Net, x: str, positions: int) -> str:
    """Halves of a head turned by the position, as exporters write it out."""
    angles = np.outer(np.arange(positions), 1.0 / np.arange(1, SIZE // 2 + 1))
    cos, sin = (net.constant(np.tile(f(angles), 2).astype(np.float32)) for f in (np.cos, np.sin))
    first = net.op("Slice", x, net.ints(0), net.ints(SIZE // 2), net.ints(3))
    second = net.op("Slice", x, net.ints(SIZE // 2), net.ints(1 << 40), net.ints(3))
    turned = net.op("Concat", net.op("Neg", second), first, axis=-1)
    return str(net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin)))


def attention(kind: str, rank: int = 3, seed: int = 0) -> ModelProto:
    """One attention, whose keys are of low rank in each head."""
    net = Net(seed, opset=23 if kind in ("onnx", "rotary op") else 17)
    many = 2 * HEADS if kind == "grouped" else HEADS
    x = net.input("x", [8 if kind == "rotary op" else "batch", LONG, WIDE])
    q = net.linear(x, WIDE, many * SIZE)
    weight, bias = low_rank(net, HEADS, SIZE, rank)
    k, v = net.op("Add", net.op("MatMul", x, weight), bias), net.linear(x, WIDE, many * 4)
    if kind == "onnx":
        y = net.op("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS)
        return net.model(net.linear(y, many * 4, 5))
    if kind == "microsoft":
        y = net.op("MultiHeadAttention", q, k, v, num_heads=HEADS, domain="com.microsoft")
        return net.model(net.linear(y, many * 4, 5), domains=("com.microsoft",), rank=3)
    q, k, v = (apart(net, one, n) for one, n in ((q, many), (k, HEADS), (v, many)))
    match kind:
        case "grouped":
            k = net.op("Unsqueeze", k, net.ints(2))
            k = net.op("Expand", k, net.ints(1, 1, many // HEADS, 1, 1))
            k = net.op("Reshape", k, net.ints(0, many, LONG, -1))
        case "rotary":
            q, k = (rotated(net, one, LONG) for one in (q, k))
        case "rotary op":
            angles = np.outer(np.arange(LONG), 1.0 / np.arange(1, SIZE // 2 + 1)).astype(np.float32)
            cos, sin = (net.constant(np.repeat(f(angles)[None], 8, 0)) for f in (np.cos, np.sin))
            q, k = (net.op("RotaryEmbedding", one, cos, sin) for one in (q, k))
        case "positions":
            q, k = (net.op("Add", one, net.weight(LONG, SIZE)) for one in (q, k))
        case "bent":
            q, k = (net.op("Relu", one) for one in (q, k))
    scores = net.op(
        "Mul", net.op("MatMul", q, net.op("Transpose", k, perm=(0, 1, 3, 2))), net.constant(np.float32(0.5))
    )
    y = net.op("Transpose", net.op("MatMul", net.op("Softmax", scores, axis=-1), v), perm=(0, 2, 1, 3))
    return net.model(net.linear(net.op("Reshape", y, net.ints(0, 0, many * 4)), many * 4, 5))


def inputs(count: int = 8, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((8, LONG, WIDE), dtype=np.float32)} for _ in range(count)]


class Everything(dict[int, object]):
    """Every vertex there is."""

    def __contains__(self, _: object) -> bool:
        return True


def scores_of(model: ModelProto) -> list[Scores]:
    return [s for s in find_scores(graphprune.analyze(model), Everything()) if s.classes.size == SIZE]


def cut(model: ModelProto, classes: int, fitted: bool = True, seed: int = 0) -> Compensated:
    """The model without the first classes of what its scores sum over, refitted, with or without scores."""
    analysis = graphprune.analyze(model)
    vertex = scores_of(model)[0].summed
    group = next(g for g in analysis.groups if vertex in g.labels)
    done = rewrite(analysis, {group.id: list(range(classes))})
    data = inputs(seed=seed)
    with mock.patch.object(compensation, "lay", compensation.lay if fitted else lambda _: []):
        return compensate("refit", Reference(load(model), analysis, lambda: data), done)


def distance(model: ModelProto, other: ModelProto) -> float:
    feeds = inputs(1, seed=9)[0]
    (expected,), (found,) = (helpers.run(m, feeds) for m in (model, other))
    return helpers.relative(expected, found)


@pytest.mark.parametrize("kind", ["plain", "grouped", "onnx", "microsoft"])
def test_what_hangs_on_what_stays_comes_back(kind: str) -> None:
    """Keys that went are mixtures of those that stay; the queries take over what they did."""
    model = attention(kind)
    found = cut(model, 3)
    (own,) = (f for f in found.fits if f.before > 0.3)
    assert own.kept and own.weight == "w_1" and own.after < 2e-3
    assert [e["weight"] for e in found.entries][:1] == ["w_1"], "the plan tells it"
    assert distance(model, found.model.proto) < 0.02
    assert len(found.model.nodes) == len(model.graph.node), "no node comes in"


def changes(model: ModelProto, classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights that a fit of scores changes, before and after, as ``[inputs, heads, elements]``."""
    values = [
        {t.name: numpy_helper.to_array(t) for t in cut(model, classes, fitted).model.graph.initializer}
        for fitted in (False, True)
    ]
    first = {n: v for n, v in values[0].items() if n in values[1] and v.ndim == 2 and v.shape == values[1][n].shape}
    differ = {n: v for n, v in first.items() if not np.allclose(v, values[1][n]) and v.shape[0] == WIDE}
    return {n: (v.reshape(WIDE, HEADS, -1), values[1][n].reshape(WIDE, HEADS, -1)) for n, v in differ.items()}


@pytest.mark.parametrize("kind", ["rotary", "rotary op"])
def test_pairs_that_rotate_stay_pairs(kind: str) -> None:
    """Every pair is turned and scaled, and so what rotates it by any position does as before."""
    model = attention(kind, rank=6)
    assert all(s.bound.all() and len(np.unique(s.classes)) == SIZE // 2 for s in scores_of(model))
    (before, after) = changes(model, 1)["w_1"]
    for head in range(HEADS):
        mixture = np.linalg.lstsq(before[:, head], after[:, head], rcond=None)[0]
        half = len(mixture) // 2
        a, b = np.diag(mixture[:half, :half]), np.diag(mixture[:half, half:])
        wanted = np.block([[np.diag(a), np.diag(b)], [-np.diag(b), np.diag(a)]])
        assert np.abs(mixture - wanted).max() < 1e-3 and np.abs(b).max() > 1e-3


@pytest.mark.parametrize("kind", ["positions", "bent"])
def test_nothing_is_mixed_where_nodes_between_do_not_pass_it(kind: str) -> None:
    model = attention(kind)
    assert not changes(model, 2)


def test_who_reads_queries_beside_the_score_forbids_to_mix_them() -> None:
    net = Net()
    x = net.input("x", ["batch", LONG, WIDE])
    q, k = (apart(net, net.linear(x, WIDE, HEADS * SIZE), HEADS) for _ in range(2))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=(0, 1, 3, 2)))
    beside = net.op("ReduceSum", net.op("Abs", q), net.ints(3), keepdims=0)
    found = scores_of(net.model(net.op("Softmax", scores, axis=-1), beside))
    assert [s.mixed for s in found] == [1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 99))
def test_a_family_is_closed(classes: list[int], seed: int) -> None:
    """Mixtures of a family, one after the other, are one of it; and a projection changes none of it."""
    numbers = np.array(classes)
    family = Family.of(numbers, np.zeros(len(numbers), bool))
    if family is None:
        assert np.bincount(numbers).max() > 2
        return
    rng = np.random.default_rng(seed)
    first, second = (family.drawn(2, len(numbers), rng) for _ in range(2))
    assert np.allclose(family.project(first @ second), first @ second)
