"""The surgeon's errors are those of least squares, whatever the order and the shape of classes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from graphprune.analysis import Analysis, Group, analyze, contractions
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.spans import Span
from graphprune.passes.choose import surgeon
from models.small import Net, attention
from tests.helpers import run


def span(rows: int) -> Span:
    """Rows that are the elements of vertex 7."""
    return Span((rows,), ((7, 0, 1),))


def made(rng: np.random.Generator, labels: np.ndarray, outputs: int = 5, groups: int = 1) -> tuple[Contraction, Group]:
    """A product with a weight on correlated data, and the group of its rows."""
    rows = len(labels)
    mixing = rng.standard_normal((groups, rows, rows))
    gram = np.einsum("gij,gkj->gik", mixing, mixing)
    matrix = rng.standard_normal((groups, rows, outputs))
    size = int(labels.max()) + 1
    group = Group("g", "channel", size, {7: labels}, np.zeros(size, bool), [], [], np.ones(size), np.ones(size))
    return Contraction(0, span(rows), np.zeros((groups, rows)), gram, matrix, True), group


def residual(contraction: Contraction, kept: np.ndarray) -> float:
    """The share of variance that least squares cannot reach from the rows that stay."""
    lost = whole = 0.0
    for plain, gram, matrix in zip(contraction.gram, surgeon.damped(contraction.gram), contraction.matrix, strict=True):
        inside = np.linalg.solve(gram[np.ix_(kept, kept)], gram[kept] @ matrix)
        delta = matrix.copy()
        delta[kept] -= inside
        lost += np.einsum("io,ij,jo->", delta, gram, delta)
        whole += np.einsum("io,ij,jo->", matrix, plain, matrix)
    return lost / whole


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    "labels",
    [np.arange(12), np.arange(12).repeat(3), np.tile(np.arange(6), 2), np.array([0, 0, 1, 2, 2, 2, 3, -1, -1])],
    ids=["one row each", "kernel", "two places", "as it comes"],
)
def test_errors_are_those_of_least_squares(labels: np.ndarray, groups: int) -> None:
    contraction, group = made(np.random.default_rng(0), labels, groups=groups)
    scores = surgeon.score(group, [contraction])
    order = np.argsort(scores)
    for count in range(1, group.size):
        kept = np.flatnonzero(~np.isin(labels, order[:count]))
        assert scores[order[count - 1]] == pytest.approx(residual(contraction, kept), rel=1e-6)


def test_the_first_to_go_is_the_best_of_all() -> None:
    for seed in range(5):
        contraction, group = made(np.random.default_rng(seed), np.arange(8).repeat(2))
        alone = [residual(contraction, np.flatnonzero(contraction.labels(group) != c)) for c in range(8)]
        assert surgeon.score(group, [contraction]).argmin() == int(np.argmin(alone))


def test_what_others_can_say_as_well_goes_first() -> None:
    """A class that repeats another has the largest weights of all, and costs nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6))
    x[:, 4] = 2 * x[:, 1]
    matrix = np.ones((1, 6, 3))
    matrix[:, 4] = 50
    group = Group("g", "channel", 6, {7: np.arange(6)}, np.zeros(6, bool), [], [], np.ones(6), np.ones(6))
    scores = surgeon.score(group, [Contraction(0, span(6), np.zeros((1, 6)), (x.T @ x)[None], matrix, True)])
    assert scores.argmin() in (1, 4) and scores.min() < 1e-3 * np.sort(scores)[1]


def test_all_readers_count() -> None:
    """What one reader does not need another may."""
    rng = np.random.default_rng(0)
    (first, group), (second, _) = (made(rng, np.arange(6)) for _ in range(2))
    first.matrix[:, 2], second.matrix[:, 3] = 0, 0
    for reader in (first, second):
        reader.gram[:] = np.eye(6)
    assert surgeon.score(group, [first]).argmin() == 2 and surgeon.score(group, [second]).argmin() == 3
    both = surgeon.score(group, [first, second])
    assert sorted(both)[-1] == pytest.approx(2, rel=1e-2) and both.min() > 0.05


def test_wide_sums_are_ranked_alike_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single precision is damped ten times as much, and loses nothing else."""
    contraction, group = made(np.random.default_rng(0), np.arange(20).repeat(3))
    with monkeypatch.context() as patch:
        patch.setattr(surgeon, "RIDGE", 10 * surgeon.RIDGE)
        scores = surgeon.score(group, [contraction])
    monkeypatch.setattr(surgeon, "LARGE", 10)
    assert surgeon.score(group, [contraction]) == pytest.approx(scores, rel=1e-3)


def test_of_what_cannot_go_only_the_order_is_told() -> None:
    contraction, group = made(np.random.default_rng(0), np.arange(20))
    scores, part = surgeon.score(group, [contraction]), surgeon.score(group, [contraction], most=0.5)
    order = np.argsort(scores)
    assert part[order[:10]] == pytest.approx(scores[order[:10]], rel=1e-9)
    assert part[order[10:]].min() > part[order[9]] and np.isfinite(part).all()


def test_pinned_classes_never_go() -> None:
    contraction, group = made(np.random.default_rng(0), np.arange(6))
    group.pinned[[0, 3]] = True
    scores = surgeon.score(group, [contraction])
    assert np.isinf(scores[[0, 3]]).all() and np.isfinite(np.delete(scores, [0, 3])).all()


def test_products_of_activations_lose_what_goes() -> None:
    """Queries and keys: the error of a set of dims is that of the products without them."""
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 9, 6)), rng.standard_normal((2, 7, 6))
    gram = np.einsum("bmi,bmj->bij", q, q) * np.einsum("bni,bnj->bij", k, k)
    group = Group("g", "head_dim", 6, {7: np.arange(6)}, np.zeros(6, bool), [], [], np.ones(6), np.ones(6))
    contraction = Contraction(0, span(6), np.zeros((1, 6)), gram.sum(0)[None], np.ones((1, 6, 1)), False)
    scores = surgeon.score(group, [contraction])
    order, whole = np.argsort(scores), np.square(q @ k.transpose(0, 2, 1)).sum()
    lost = [np.square(q[..., order[:n]] @ k[..., order[:n]].transpose(0, 2, 1)).sum() / whole for n in range(1, 7)]
    assert all(a < b for a, b in pairwise(lost)), "else scores, which never fall, could not be equal"
    assert scores[order] == pytest.approx(lost, rel=1e-6) and lost[-1] == pytest.approx(1)


def observed(model: ModelProto, shape: tuple[int, ...]) -> tuple[Analysis, list[Contraction]]:
    analysis = analyze(model)
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal(shape, dtype=np.float32)} for _ in range(3)]
    return analysis, contractions.observe(analysis, analysis.groups, lambda: data)


def test_every_reader_of_a_group_is_observed() -> None:
    analysis, found = observed(attention(), (2, 5, 24))
    kinds = sorted((g.kind, [c.adjustable for c in found if c.summed.touches(g.labels)]) for g in analysis.groups)
    output, product = [True], [False]  # the output projection sums over heads and values, a product over query/key dims
    assert kinds == [("head", output), ("head_dim", product), ("head_dim", output)]


def test_moments_are_those_of_the_data_about_its_mean() -> None:
    net = Net()
    y = net.op("Relu", net.linear(net.input("x", ["batch", 6]), 6, 8))
    z = net.op("MatMul", y, net.weight(8, 3))
    _, (found,) = observed(net.model(z), (40, 6))
    model = net.model(z, y)
    rng = np.random.default_rng(0)
    rows = np.concatenate([run(model, {"x": rng.standard_normal((40, 6), dtype=np.float32)})[1] for _ in range(3)])
    assert found.gram[0] / len(rows) == pytest.approx(np.cov(rows.T, bias=True), abs=1e-4)
    assert found.mean[0] == pytest.approx(rows.mean(0), abs=1e-5)


def test_on_a_model_copies_go_and_nothing_is_lost(tmp_path: Path) -> None:
    """Half of the channels are copies of the others with larger weights: none of what differs needs to go."""
    rng, net = np.random.default_rng(0), Net()
    half = rng.standard_normal((6, 8)).astype(np.float32)
    x = net.op(
        "Relu", net.op("MatMul", net.input("x", ["batch", 6]), net.constant(np.concatenate([half, 3 * half], 1)))
    )
    model = net.model(net.linear(x, 16, 4))
    np.savez(tmp_path / "in.npz", x=rng.standard_normal((64, 6), dtype=np.float32))
    calibrated = {"calibration": tmp_path / "in.npz", "ratio": 0.5, "align": 1}
    best = graphprune.prune(model, **calibrated)
    other = graphprune.prune(model, criterion="random", seed=3, **calibrated)
    assert best.fits[-1].after < 1e-4 < other.fits[-1].after
