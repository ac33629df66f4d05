"""What a pruned model is held against, as Polygraphy's runners make it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.errors import InputError
from graphprune.integrations.originals import masked
from graphprune.rewrite.original import original as find_original
from graphprune.rewrite.plan import load
from models.small import Net, chain
from tests.helpers import command, constants, relative, run


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


def test_another_model_is_not_taken_for_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by its name alone: one beside the plan that was exported anew does not hide the right one here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far").mkdir()
    onnx.save(chain(), "model.onnx")
    graphprune.prune("model.onnx", "far/small.onnx", ratio=0.5, align=1)
    plan = load("far/small.plan.json")
    with pytest.raises(InputError, match=r"^far/small\.onnx: far/.* was made for another file: model\.onnx"):
        find_original(plan, "far/small.onnx")
    shutil.copy("far/small.onnx", "far/model.onnx")
    assert find_original(plan).path == Path("model.onnx")
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file(constants(onnx.load("model.onnx")), "w.safetensors")
    given = "far/small.plan.json", "w.safetensors", "-o", "narrow.safetensors", "--force"
    assert command(capsys, "state-dict", *given)[0] == 0
    Path("model.onnx").unlink()
    status, _, said = command(capsys, "state-dict", *given)
    assert status == 2 and "made for another model.onnx (sha256" in said and "by --model" in said
    Path("far/model.onnx").unlink()
    with pytest.raises(
        InputError, match=r"'model\.onnx', is neither beside it nor here; give it by --graphprune-model"
    ):
        find_original(plan, option="--graphprune-model")


def test_polygraphy_without_a_file_is_told_what_to_give() -> None:
    pytest.importorskip("polygraphy")
    from polygraphy.exception import PolygraphyException

    from graphprune.integrations.polygraphy import _plan_beside

    assert _plan_beside("a/small.onnx") == str(Path("a/small.plan.json"))
    with pytest.raises(PolygraphyException, match="give it by --graphprune-plan"):
        _plan_beside(None)
