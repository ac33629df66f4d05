"""Where results go that nobody named, and what is there already."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.passes.study.sweep import sweep
from models.small import residual
from tests.helpers import command as run

CALIBRATION = ("--calibration", "in.npz")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in a folder of its own, beside it inputs, a pruned model, its plan and a recipe."""
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    onnx.save(residual(), "own/m.onnx")
    np.savez("in.npz", x=np.random.default_rng(0).random((8, 3, 8, 8), np.float32))
    graphprune.prune("own/m.onnx", "small.onnx", ratio=0.5)
    Path("r.toml").write_text(
        'format = "graphprune-recipe/1"\n[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
    )
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


NAMED = {
    "prune": (("prune", "own/m.onnx", "--ratio", "0.5"), "own/m.pruned"),
    "sparsify": (("sparsify", "own/m.onnx", "--also", "*"), "own/m.sparse"),
    "apply": (("apply", "small.plan.json", "own/m.onnx"), "own/m.pruned"),
    "run": (("run", "r.toml", "own/m.onnx"), "own/m.pruned"),
    "distill": (
        ("distill", "small.onnx", "--teacher", "own/m.onnx", *CALIBRATION, "--steps", "1", "--rate", "0.001"),
        "small.distilled",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_result_lies_beside_its_model_and_stays_there(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, place = NAMED[name]
    before = contents(folder)
    assert run(capsys, *words, "--dry-run", "-q") == (0, "", "") and contents(folder) == before
    status, out, _ = run(capsys, *words)
    assert status == 0 and f"written: {place}.onnx" in out
    assert contents(folder).keys() - before == {f"{place}.onnx", f"{place}.plan.json"}
    Path(f"{place}.plan.json").write_text("mine")
    Path(f"{place}.onnx").unlink()
    before = contents(folder)
    status, out, err = run(capsys, *words)  # a plan alone is reason enough
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"{place}.plan.json: is there already; --force writes the plan over it" in err
    assert contents(folder) == before
    assert run(capsys, *words, "--force", "-q") == (0, "", "") and Path(f"{place}.onnx").exists()


TAKEN = {
    "output": ("prune", "own/m.onnx", "--ratio", "0.5", "-o", "taken"),
    "plan": ("prune", "own/m.onnx", "--ratio", "0.5", "--plan", "taken"),
    "recipe": ("prune", "own/m.onnx", "--ratio", "0.5", "--save-recipe", "taken"),
    "packed": ("sparsify", "own/m.onnx", "--also", "*", "--packed", "taken.safetensors"),
    "init": ("init", "own/m.onnx", "-o", "taken"),
    "table": ("profile", "own/m.onnx", "--levels", "1", "--rounds", "1", "-o", "taken"),
    "drawing": ("sensitivity", "own/m.onnx", *CALIBRATION, "-o", "taken.svg"),
    "front": ("sweep", "own/m.onnx", *CALIBRATION, "--ratios", "0.5", "-o", "taken.svg"),
    "state dict": ("state-dict", "small.plan.json", "in.npz", "--model", "own/m.onnx", "-o", "taken"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_nothing_that_is_there_is_written_over(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = next(word for word in TAKEN[name] if word.startswith("taken"))
    Path(place).write_text("mine")
    before = contents(folder)
    status, out, err = run(capsys, *TAKEN[name])
    assert (status, out) == (2, "") and err.startswith(f"graphprune: error: {place}: is there already; --force")
    assert err.count("\n") == 1 and contents(folder) == before


def test_what_goes_on_may_be_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is written over as by a shell, and a study that shares a folder draws again what it has found."""
    for _ in range(2):
        assert run(capsys, "inspect", "own/m.onnx", "-q", "--json", "i.json") == (0, "", "")
        words = ("sweep", "own/m.onnx", *CALIBRATION, "--ratios", "0.25", "--folder", "kept", "-o", "s.svg", "-q")
        assert run(capsys, *words) == (0, "", "")
    sweep("own/m.onnx", "s.svg", ratios=[0.25], calibration="in.npz", folder="kept")  # from Python all may


def test_what_comes_through_a_pipe_has_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.onnx")
    status, _, err = run(capsys, "prune", "pipe.onnx", "--ratio", "0.5")
    assert status == 2 and "pipe.onnx has no folder for the result: say where it goes by -o" in err
