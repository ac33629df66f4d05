"""Masks by what inputs are like, beside slow ones written by hand; and the fit of what stays."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.analysis.patterns import OfEvery, Pattern, Unstructured, Vectors
from graphprune.passes.choose.surgeon import damped
from graphprune.passes.fit.least_squares import Split, masked
from graphprune.passes.sparse import masks
from graphprune.passes.sparse.masks import METHODS, Thinner, factor

PATTERN = OfEvery(2, 4)


def case(groups: int = 1, sums: int = 24, outputs: int = 5, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, rows, sums)) @ (rng.standard_normal((groups, sums, sums)) + np.eye(sums))
    x *= np.exp(rng.standard_normal((groups, 1, sums)))
    return x, rng.standard_normal((groups, sums, outputs))


def by_hand(weight: np.ndarray, gram: np.ndarray, pattern: OfEvery) -> np.ndarray:
    """SparseGPT for one output at a time, without batches: Algorithm 1 of the paper with blocks of the pattern."""
    upper = factor(gram[None])[0]
    found = weight.copy()
    for column in found.T:
        for start in range(0, len(column), pattern.m):
            block = range(start, min(start + pattern.m, len(column)))
            cost = {i: (column[i] / upper[i, i]) ** 2 for i in block}
            stay = sorted(block, key=lambda i: (-cost[i], i))[: pattern.n]
            for i in block:
                if i not in stay:
                    column[i:] -= column[i] / upper[i, i] * upper[i, i:]
                    column[i] = 0
    return found


@pytest.mark.parametrize("pattern", [PATTERN, OfEvery(1, 4), OfEvery(4, 8)])
@pytest.mark.parametrize("lazy", [8, 128])
def test_sparsegpt_is_that_of_the_paper(pattern: OfEvery, lazy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_LAZY", lazy)
    x, weight = case()
    gram = x.transpose(0, 2, 1) @ x
    stay, found = Thinner("sparsegpt", pattern).choose(weight, gram)
    np.testing.assert_allclose(found[0], by_hand(weight[0], gram[0], pattern), rtol=1e-6, atol=1e-9)
    assert ((found != 0) == stay).all() and pattern.follows(found, 1)


def test_rows_of_kernel_positions_are_blocks_of_their_own() -> None:
    x, weight = case(sums=8 * 9)
    gram = x.transpose(0, 2, 1) @ x
    for method in METHODS:
        stay, found = Thinner(method, PATTERN, 9).choose(weight, gram)
        assert PATTERN.follows(found.reshape(1, 8, 9, 5), 1) and stay.mean() == 0.5


@pytest.mark.parametrize("pattern", [Vectors(4, 0.5), Unstructured(0.5)])
@pytest.mark.parametrize("lazy", [8, 128])
def test_blocks_that_compete(pattern: Pattern, lazy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_LAZY", lazy)
    x, weight = case(sums=8 * 9)
    gram = x.transpose(0, 2, 1) @ x
    lost = {}
    for method in METHODS:
        stay, found = Thinner(method, pattern, 9).choose(weight, gram)
        assert pattern.follows(found.reshape(1, 8, 9, 5), 1) and stay.mean() == 0.5
        lost[method] = np.square(x[0] @ (found - weight)[0]).sum()
    assert lost["sparsegpt"] < lost["wanda"] < lost["magnitude"]


def test_groups_are_worked_on_apart() -> None:
    x, weight = case(groups=3)
    gram = x.transpose(0, 2, 1) @ x
    for method in METHODS:
        _, whole = Thinner(method, PATTERN).choose(weight, gram)
        for g in range(3):
            np.testing.assert_allclose(whole[g], Thinner(method, PATTERN).choose(weight[[g]], gram[[g]])[1][0])


def test_wanda_weighs_by_the_norm_of_inputs() -> None:
    weight = np.array([3.0, 2, 1, 0.5])[None, :, None]
    gram = np.diag([0.01, 0.01, 1, 100])[None]
    stay = Thinner("wanda", PATTERN).choose(weight, gram)[0]
    assert stay[0, :, 0].tolist() == [False, False, True, True]
    assert Thinner("magnitude", PATTERN).choose(weight, gram)[0][0, :, 0].tolist() == [True, True, False, False]


def test_each_method_loses_less_than_the_one_before() -> None:
    lost = dict.fromkeys(METHODS, 0.0)
    for seed in range(5):
        x, weight = case(sums=64, outputs=32, rows=500, seed=seed)
        for method in METHODS:
            found = Thinner(method, PATTERN).choose(weight, x.transpose(0, 2, 1) @ x)[1]
            lost[method] += float(((x @ (weight - found)) ** 2).sum() / ((x @ weight) ** 2).sum())
    assert lost["sparsegpt"] < lost["wanda"] < lost["magnitude"]


def test_the_factor_is_that_of_the_inverse() -> None:
    gram = case()[0].transpose(0, 2, 1) @ case()[0]
    upper = factor(gram)[0]
    assert np.allclose(upper, np.triu(upper))
    np.testing.assert_allclose(upper.T @ upper, np.linalg.inv(damped(gram, masks.DAMPING))[0], rtol=1e-6, atol=1e-12)


def test_what_stays_is_fitted_as_by_a_solver_for_each_output() -> None:
    x, weight = case(sums=16, rows=400)
    y = x @ weight + 3.0
    sums = Split.empty(1, 16, 5)
    sums.add(x.astype(np.float32), y.astype(np.float32), np.arange(400) % 4 == 3)
    stay, start = Thinner("magnitude", PATTERN).choose(weight, sums.fitting.rows.centred)
    error, found, bias = masked(sums, start, None, stay)
    assert ((found != 0) <= stay).all() and error < sums.held.error(start, bias)
    fitting = np.arange(400) % 4 != 3
    rows, wanted = x[0, fitting], y[0, fitting]
    for o in range(5):
        own = np.flatnonzero(stay[0, :, o])
        design = np.column_stack([rows[:, own], np.ones(len(rows))])
        best = np.linalg.lstsq(design, wanted[:, o], rcond=None)[0]
        made = rows @ found[0, :, o] + bias[0, o]
        least = ((design @ best - wanted[:, o]) ** 2).sum()
        assert ((made - wanted[:, o]) ** 2).sum() < 1.02 * least


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_size_of_inputs_is_no_matter(size: float) -> None:
    x, weight = case(sums=16, rows=400)
    weight[0, :, 3] = 0  # an output that is nothing, and so is solved at once
    x = x * size
    sums = Split.empty(1, 16, 5)
    sums.add(x.astype(np.float32), (x @ weight).astype(np.float32), np.arange(400) % 4 == 3)
    stay, start = Thinner("sparsegpt", PATTERN).choose(weight, sums.fitting.rows.centred)
    error, found, _ = masked(sums, start, None, stay)
    plain = sums.held.error(weight * Thinner("magnitude", PATTERN).choose(weight, stay)[0], np.zeros((1, 5)))
    assert np.isfinite(found).all() and error < 0.7 * plain and (found[0, :, 3] == 0).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_inputs_that_overflow_leave_the_weight_as_it_was() -> None:
    x, weight = case(sums=16, rows=400)
    sums = Split.empty(1, 16, 5)
    sums.add(x.astype(np.float32), (x @ weight).astype(np.float32), np.arange(400) % 4 == 3)
    sums.fitting.rows.about[0, 0, 0] = np.inf
    stay, start = Thinner("sparsegpt", PATTERN).choose(weight, sums.fitting.rows.xx)
    assert PATTERN.follows(start, 1)
    assert (masked(sums, start, np.zeros((1, 5)), stay)[1] == start).all()


def test_moments_that_are_few_or_nothing_but_rounding() -> None:
    """SparseGPT goes on with more damping where moments have no factor, and by magnitude where they say nothing."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((1, 64, 16))
    x = rng.standard_normal((3, 64)) * 10.0 ** rng.uniform(-6, 6, 64)
    stay, made = masks.Thinner("sparsegpt", OfEvery(2, 4)).choose(weight, (x.T @ x)[None])
    assert np.isfinite(made).all() and (stay.reshape(1, 16, 4, 16).sum(2) == 2).all()
    noise = rng.standard_normal((64, 64)) * 1e-7
    stay, made = masks.Thinner("sparsegpt", OfEvery(2, 4)).choose(weight, (noise + noise.T)[None])
    plain, _ = masks.Thinner("magnitude", OfEvery(2, 4)).choose(weight, (x.T @ x)[None])
    assert (stay == plain).all() and (made == weight * plain).all()
