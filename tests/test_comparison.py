"""How far outputs are from each other."""

import numpy as np
import pytest

from graphprune.comparison import Incomparable, compare, metrics, worse


def test_metrics() -> None:
    a = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, -1.0]], np.float32)
    found = metrics(a, a + np.float32(0.5))
    assert found["max_abs"] == pytest.approx(0.5) and found["mean_abs"] == pytest.approx(0.5)
    assert found["psnr"] == pytest.approx(10 * np.log10(25 / 0.25))
    assert found["top1"] == 1 and metrics(a, -a)["top1"] == 0 and metrics(a, -a)["cosine"] == pytest.approx(-1)
    assert metrics(a, a)["psnr"] == float("inf") and metrics(a, a)["max_rel"] == 0


def test_the_worst_over_several_runs_is_kept() -> None:
    a = np.array([[1.0, 2.0]], np.float32)
    total = compare(["y"], [[a], [a], [a]], [[a], [a + 1], [a]])["y"]
    assert total["max_abs"] == 1 and total["cosine"] < 1 and np.isfinite(total["psnr"])


def test_what_is_not_a_number_is_worst_and_stays_so() -> None:
    total: dict[str, float] = {}
    for value in (1.0, float("nan"), 0.5):
        worse(total, {"max_abs": value, "cosine": value})
    assert np.isnan(total["max_abs"]) and np.isnan(total["cosine"])


def test_other_shapes_cannot_be_compared() -> None:
    with pytest.raises(Incomparable, match=r"'y' has shape \(3,\) in place of \(2,\)"):
        metrics(np.zeros(2), np.zeros(3), "y")
