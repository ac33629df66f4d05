"""``graphprune prune MODEL`` alone: something good comes of it, and what it says to try next works."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from graphprune.cli import moderate
from models.digits import accuracy
from models.small import chain
from tests.helpers import command as run


def suggested(out: str) -> list[list[str]]:
    """The commands of an answer, without the name of the program."""
    return [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  graphprune ")]


def test_what_it_says_to_try_next_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(), "my model.onnx")
    np.savez("inputs.npz", x=np.random.default_rng(0).random((8, 3, 8, 8), np.float32))
    status, out, _ = run(capsys, "prune", "my model.onnx", "--input-shape", "x=2x3x8x8")
    assert status == 0 and "There were no inputs" in out and "x: samples x 3 x 8 x 8" in out
    commands = suggested(out)
    assert [words[0] for words in commands] == ["prune", "validate", "bench", "explain", "report", "inspect"]
    for words in commands:
        status, out, err = run(capsys, *words, *["--rounds", "2"] * (words[0] == "bench"))
        assert status == 0, err
        if words[0] == "prune":  # with inputs it knows more
            assert f"target {moderate.WITH_INPUTS}: met" in out
            assert suggested(out)[0][:4] == ["prune", "my model.onnx", "--calibration", "inputs.npz"]
    status, out, _ = run(capsys, "prune", "my model.onnx", "--ratio", "0.5", "--force")
    assert status == 0 and not suggested(out)  # who knows what to ask for needs no lesson


def test_what_it_says_to_try_next_is_about_these_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = chain()
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("n", None, "", "wide"), strict=True):
        if name is not None:
            dim.Clear()
            dim.dim_param = name
    onnx.save(model, "m.onnx")
    np.savez("inputs.npz", x=np.random.default_rng(0).random((8, 3, 8, 8), np.float32))
    assert "(x: samples x 3 x any x wide)" in run(capsys, "prune", "m.onnx")[1]  # no sizes that only stood in
    Path("m.pruned.plan.html").touch()
    status, out, err = run(capsys, "prune", "m.onnx", "--calibration", "inputs.npz", "--force")
    assert status == 0, err
    commands = {words[0]: words for words in suggested(out)}
    assert commands["validate"][-2:] == ["--inputs", "inputs.npz"]
    status, _, err = run(capsys, *commands["report"])
    assert status == 0, err


def test_little_goes_that_a_model_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.load(models.trained("digits-cnn")), "m.onnx")
    assert run(capsys, "prune", "m.onnx", "-q", "--no-proof") == (0, "", "")
    assert accuracy(onnx.load("m.pruned.onnx")) > accuracy(onnx.load("m.onnx")) - 0.01  # by magnitude it is 0.12 less


def test_where_less_can_go_less_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody asked for is no failure."""
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(), "m.onnx")
    monkeypatch.setattr(moderate, "WITHOUT", "params=3")
    status, out, err = run(capsys, "prune", "m.onnx")
    assert status == 0 and "target params=3: not met" in out and "written: m.pruned.onnx" in out
    status, _, err = run(capsys, "prune", "m.onnx", "--target", "params=3", "--nearest", "--force")
    assert status == 1 and "what comes nearest was written" in err
