"""What a pruned model is held against, as Polygraphy's runners make it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.errors import InputError
from graphprune.integrations.originals import find_original, masked
from graphprune.rewrite.plan import load
from models.small import Net, chain
from tests.helpers import relative, run


def _constants() -> onnx.ModelProto:
    """A chain in which some channels do not depend on the input: their weights are zero, and a bias makes them one."""
    net = Net()
    x = net.input("x", ["batch", 3, 8, 8])
    weight, bias = np.ones((8, 3, 3, 3), np.float32) * 9, np.zeros(8, np.float32)
    weight[:4], bias[:4] = 0, 1
    y = net.op("Conv", x, net.constant(weight), net.constant(bias), pads=[0] * 4, kernel_shape=[3, 3])
    z = net.op("Conv", net.op("Relu", y), net.weight(4, 8, 3, 3), pads=[0] * 4, kernel_shape=[3, 3])
    return net.model(z)


@pytest.mark.parametrize("make", [chain, _constants])
def test_masked_original_gives_what_the_pruned_model_gives(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    """Also where what was removed is constant and went into biases: that stays in the original."""
    original = make()
    onnx.save(original, tmp_path / "model.onnx")
    result = graphprune.prune(tmp_path / "model.onnx", tmp_path / "small.onnx", ratio=0.5, align=1)
    assert bool(result.plan.folded) == (make is _constants)
    plan = load(tmp_path / "small.plan.json")
    made = onnx.load_from_string(masked(plan, find_original(plan)))
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    (expected,), (found,), (before,) = run(made, x), run(result.proto, x), run(original, x)
    assert relative(expected, found) < 1e-5
    assert make is _constants or relative(before, found) > 1e-2


def test_what_cannot_be_masked_is_told(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "model.onnx")
    inputs = {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    graphprune.prune(tmp_path / "model.onnx", tmp_path / "small.onnx", ratio=0.5, align=1, calibration=inputs)
    plan = load(tmp_path / "small.plan.json")
    with pytest.raises(InputError, match=r"small\.plan\.json: .*weights were fitted.*--graphprune-original"):
        masked(plan, find_original(plan))


def test_another_model_is_not_taken_for_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(), "model.onnx")
    graphprune.prune("model.onnx", "small.onnx", ratio=0.5, align=1)
    plan = load("small.plan.json")
    with pytest.raises(InputError, match=r"^small\.onnx: small\.plan\.json was made for another file: model\.onnx"):
        find_original(plan, "small.onnx")
    Path("model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx, is not beside it; give it by --graphprune-model"):
        find_original(plan)
