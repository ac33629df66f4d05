"""Generated calibration inputs: smooth where there is space or time, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

import graphprune
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.run import synthetic
from models.small import Net, chain, residual


def rough(x: np.ndarray, axis: int) -> float:
    """How much neighbours differ, beside how much anything does."""
    return float(np.abs(np.diff(x, axis=axis)).mean() / np.abs(x - x.mean()).mean())


def test_images_are_smooth_and_differ() -> None:
    model = load(residual())
    (first, second, *_) = synthetic.inputs(model, {"x": (4, 3, 32, 48)})
    x = first["x"]
    assert x.shape == (4, 3, 32, 48) and x.dtype == np.float32
    assert rough(x, 2) < 0.4 and rough(x, 3) < 0.4, "white noise would give 1.4"
    assert not np.allclose(x[0], x[1]) and not np.allclose(x, second["x"])
    assert 0.1 < x.std() < 2 and len(list(synthetic.inputs(model, {"x": (4, 3, 32, 48)}))) == 16


def test_the_seed_decides() -> None:
    model = load(residual())
    one, same, other = (next(synthetic.inputs(model, {"x": (2, 3, 16, 16)}, s))["x"] for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_features_and_indices_are_as_ever() -> None:
    net = Net()
    net.input("x", ["batch", 6])
    ids = net.input("ids", ["batch", 9], 7)
    y = net.op("Gather", net.weight(11, 6), ids)
    feeds = next(synthetic.inputs(load(net.model(net.linear(y, 6, 2))), {"x": (64, 6), "ids": (64, 9)}))
    assert feeds["ids"].dtype == np.int64 and feeds["ids"].min() >= 0 and feeds["ids"].max() == 10
    assert abs(feeds["x"].mean()) < 0.2 and 0.8 < feeds["x"].std() < 1.2


def test_generated_inputs_prune_and_fit() -> None:
    result = graphprune.prune(residual(), ratio=0.3, align=1, calibration="generated")
    assert result.plan.compensated and result.proof is not None and result.proof.worst < 1e-5
    again = graphprune.prune(residual(), ratio=0.3, align=1, calibration="generated")
    assert result.plan.selection == again.plan.selection


@pytest.mark.parametrize("name", ["refit", "repair"])
def test_what_needs_inputs_says_so(name: str) -> None:
    with pytest.raises(InputError, match="give inputs by --calibration"):
        graphprune.prune(chain(), ratio=0.3, compensate=name)
    with pytest.raises(InputError, match="none of this name"):
        graphprune.prune(chain(), ratio=0.3, compensate="all")
