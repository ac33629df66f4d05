"""``graphprune distill``, and ``--distill`` of others, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.small import Net
from tests.helpers import command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and inputs."""
    monkeypatch.chdir(tmp_path)
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 32))
    x = net.op("Relu", net.linear(x, 32, 32))
    model = net.model(net.linear(x, 32, 4), rank=2)
    onnx.save(model, "m.onnx")
    x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    label = f"label:{model.graph.output[0].name}"
    np.savez("in.npz", x=x)
    np.savez("labelled.npz", x=x, **{label: x[:, :4].argmax(1)})
    return tmp_path


OPTIONS = ("--calibration", "in.npz", "--steps", "24", "--rate", "0.01")


def test_a_student_is_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "-q")[0] == 0
    status, out, error = command(
        capsys, "distill", "s.onnx", "--teacher", "m.onnx", "-o", "d.onnx", "--plan", "s.plan.json", *OPTIONS
    )
    assert status == 0 and "error" not in error
    assert "distilled: 3 weights, 24 steps in " in out and "at rate 0.01; held-out loss " in out
    assert "compared: 4 by squares" in out and "written: d.onnx" in out and "nothing was changed" not in out
    assert json.loads(Path("d.plan.json").read_text())["distilled"]["steps"] == 24
    status, out, _ = command(
        capsys, "distill", "s.onnx", "--teacher", "m.onnx", "--calibration", "labelled.npz", *OPTIONS[2:], "-v"
    )
    assert status == 0 and "step 24: held-out loss" in out and "by cross entropy" in out
    assert "written: s.distilled.onnx" in out


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = command(
        capsys,
        "prune",
        "m.onnx",
        "-o",
        "s.onnx",
        "--ratio",
        "0.5",
        "--calibration",
        "in.npz",
        "--distill",
        "30",
        "--json",
    )
    data = json.loads(out)["distilled"]
    assert status == 0 and "error" not in error and data["steps"] == 30 and len(data["weights"]) == 3
    assert {"kept", "best", "rate", "before", "after", "looks", "seconds", "losses", "skipped", "untrained"} <= set(
        data
    )
    assert data["looks"][0] == [0, data["before"]] and data["looks"][-1][0] == 30


def test_a_saved_recipe_does_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--ratio", "0.5", "--steps", "2", "--calibration", "in.npz", "--distill", "--save-recipe", "r.toml")
    assert command(capsys, "prune", "m.onnx", "-o", "s.onnx", *asked, "-q")[0] == 0
    assert command(capsys, "run", "r.toml", "m.onnx", "-o", "t.onnx", "-q")[0] == 0
    assert Path("r.toml").read_text().count('use = "distill"') == 2
    assert onnx.load("s.onnx").graph == onnx.load("t.onnx").graph
    (folder / "sub").mkdir()
    asked = ("--teacher", "m.onnx", "--checkpoint", "kept", *OPTIONS, "--save-recipe", "sub/r.toml")
    assert command(capsys, "distill", "s.onnx", *asked, "-o", "d.onnx", "-q")[0] == 0
    text = Path("sub/r.toml").read_text()
    assert 'teacher = "../m.onnx"' in text and 'checkpoint = "../kept"' in text
    assert command(capsys, "run", "sub/r.toml", "s.onnx", "-o", "e.onnx", "-q")[0] == 0
    assert onnx.load("d.onnx").graph == onnx.load("e.onnx").graph


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("distill", "m.onnx", "--calibration", "in.npz"), "--teacher"),
        (("distill", "m.onnx", "--teacher", "m.onnx"), "--calibration"),
        (("distill", "m.onnx", "--teacher", "n.onnx", *OPTIONS), "n.onnx: no such file"),
        (("distill", "m.onnx", "--teacher", "m.onnx", *OPTIONS, "--time", "5m"), "give steps or time, not both"),
        (("distill", "m.onnx", "--teacher", "m.onnx", *OPTIONS, "--loss", "l.onnx"), "l.onnx: no such file"),
        (("distill", "m.onnx", "--teacher", "m.onnx", *OPTIONS, "--checkpoint", "in.npz"), "in.npz: is no checkpoint"),
        (
            ("distill", "m.onnx", "--teacher", "m.onnx", *OPTIONS, "--checkpoint", "no/kept"),
            "its folder does not exist",
        ),
        (("prune", "m.onnx", "--ratio", "0.5", "--distill", "10"), "give them by --calibration"),
        (("sparsify", "m.onnx", "--distill", "x", "--calibration", "in.npz"), "--distill x: give steps as 300, or a"),
    ],
)
def test_what_is_wrong_is_told(
    arguments: tuple[str, ...], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, error = command(capsys, *arguments)
    assert status == 2 and not out and words in error, error
    assert not list(folder.glob("*.plan.json"))
