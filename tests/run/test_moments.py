"""Second moments: of rows that vary little beside their mean, in parts, and those of both parts together."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.passes.fit.least_squares import Split, Sums, solve
from graphprune.run import positive
from graphprune.run.moments import Gathered, Moments


def rows(count: int, seed: int = 0) -> np.ndarray:
    return (1000 + np.random.default_rng(seed).standard_normal((2, count, 6))).astype(np.float32)


def test_a_large_mean_leaves_the_moments_about_it_exact() -> None:
    moments = Moments.empty(2, 6)
    for part in np.split(rows(900), 3, axis=1):
        moments.add(part)
    exact = rows(900).astype(np.float64)
    assert moments.mean == pytest.approx(exact.mean(1), rel=1e-9)
    for group in range(2):
        assert moments.centred[group] / 900 == pytest.approx(np.cov(exact[group].T, bias=True), abs=1e-4)
    assert moments.xx == pytest.approx(exact.transpose(0, 2, 1) @ exact, rel=1e-7)


def test_sums_of_two_parts_are_those_of_all() -> None:
    x, y = rows(900), rows(900, 1)[:, :, :3]
    whole, parts = Sums.empty(2, 6, 3), [Sums.empty(2, 6, 3) for _ in range(2)]
    whole.add(x, y)
    parts[0].add(x[:, :200], y[:, :200])
    parts[1].add(x[:, 200:], y[:, 200:])
    both = parts[0].joined(parts[1])
    weight, bias = np.random.default_rng(2).standard_normal((2, 6, 3)), np.ones((2, 3))
    exact = np.square(x.astype(np.float64) @ weight + bias[:, None] - y).sum()
    spread = np.square(y - y.astype(np.float64).mean(1, keepdims=True)).sum()
    for one in (whole, both, both.joined(Sums.empty(2, 6, 3)), Sums.empty(2, 6, 3).joined(both)):
        assert one.error(weight, bias) == pytest.approx(exact / spread, rel=1e-6)
        assert one.xy == pytest.approx(np.einsum("gni,gno->gio", *(v.astype(np.float64) for v in (x, y))), rel=1e-7)
        assert one.variance.sum() == pytest.approx(spread, rel=1e-4)


def test_rows_wait_for_each_other_and_none_is_lost() -> None:
    taken: list[tuple[np.ndarray, ...]] = []
    gathered = Gathered(lambda *parts: taken.append(parts), 500)
    x, marks = rows(5000), np.arange(5000)
    for start in range(0, 5000, 500):
        gathered.add(x[:, start : start + 500], marks[start : start + 500])
    gathered.finish()
    assert [len(part[1]) for part in taken] == [4500, 500]
    assert np.array_equal(np.concatenate([part[0] for part in taken], 1), x)
    assert np.array_equal(np.concatenate([part[1] for part in taken]), marks)


def test_wide_sums_are_fitted_as_well_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of which all but a few hundredths is one direction, as behind a layer that hardly tells samples apart."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((1, 900, 300)) + 30 * rng.standard_normal((1, 900, 1))).astype(np.float32)
    y = (x @ rng.standard_normal((300, 5)) + rng.standard_normal((1, 900, 5))).astype(np.float32)
    sums = Split.empty(1, 300, 5)
    sums.add(x, y, np.arange(900) % 4 == 3)
    start = np.zeros((1, 300, 5))
    error, weight, _ = solve(sums, start, None)
    monkeypatch.setattr(positive, "LARGE", 100)
    sums.roots.clear()
    single, found, _ = solve(sums, start, None)
    assert single == pytest.approx(error, rel=1e-2) and error < 1e-3
    assert found == pytest.approx(weight, abs=1e-2)


@pytest.mark.parametrize("size", [5, 128, 129, 600])
def test_inverses_and_solutions_by_blocks(size: int) -> None:
    """As exact as LAPACK's, where one direction is ten million times as long as the others."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal((2, size // 2, size)) + 100 * rng.standard_normal((2, size // 2, 1))
    matrix = x.transpose(0, 2, 1) @ x + np.eye(size)
    assert np.abs(positive.inverse(matrix) @ matrix - np.eye(size)).max() < 1e-6
    wanted = rng.standard_normal((2, size, 3))
    assert positive.solve(matrix, wanted) == pytest.approx(np.linalg.solve(matrix, wanted), abs=1e-6)
