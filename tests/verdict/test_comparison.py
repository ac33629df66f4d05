"""How far outputs are from each other."""

import numpy as np
import pytest

from graphprune.verdict.comparison import Incomparable, compare, far, metrics, worse


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


@pytest.mark.parametrize(
    ("shape", "samples", "scores"),
    [
        ((2, 10), 2, True),
        ((300, 4), 1, False),  # boxes
        ((1, 84, 8400), 1, False),  # a detector's map
        ((2, 1), 2, False),
        ((10,), 1, False),
    ],
)
def test_only_class_scores_have_a_winner(shape: tuple[int, ...], samples: int, scores: bool) -> None:
    value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert ("top1" in metrics(value, value, "y", samples)) == scores
    assert "top1" not in metrics(value.astype(np.int64), value.astype(np.int64), "y", samples)


def test_a_list_that_once_is_as_long_as_the_batch_has_no_winner() -> None:
    runs = [[np.ones((n, 4), np.float32)] for n in (3, 1, 3)]
    for counts in ([1, 1, 1], [3, 3, 3]):
        assert "top1" not in compare(["boxes"], runs, runs, counts)["boxes"]


def test_what_is_far_is_said() -> None:
    assert far({"y": {"cosine": 0.95}}) == ""
    found = far({"x": {"cosine": 0.95}, "y": {"cosine": 0.59}, "z": {"cosine": float("nan")}})
    assert "output 'z' is far" in found and "and so is 1 more" in found and "--min-cosine" in found
