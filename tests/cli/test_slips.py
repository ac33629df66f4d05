"""Slips at the command line: nothing is lost by them, and the error says what was meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from models.small import chain
from tests.helpers import command as run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, inputs, and a pruned model with its plan."""
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(), "m.onnx")
    np.savez("inputs.npz", x=np.random.default_rng(0).random((8, 3, 8, 8), np.float32))
    graphprune.prune("m.onnx", "small.onnx", ratio=0.5)
    return tmp_path


def test_json_is_written_over_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option's value may be left out, so that it takes a model that stands behind it."""
    Path("other").write_bytes(Path("m.onnx").read_bytes())
    for place in ("m.onnx", "other", "new.onnx"):
        before = {p: p.read_bytes() for p in folder.iterdir()}
        status, out, err = run(capsys, "inspect", "--json", place, "small.onnx")
        assert (status, out) == (2, "") and f"--json {place}: " in err and "--json FILE.json" in err
        assert {p: p.read_bytes() for p in folder.iterdir()} == before
    Path("old").write_text(' {"old": 1}')
    Path("empty").touch()
    for place in ("old", "empty", "new.json"):
        assert run(capsys, "inspect", "m.onnx", "-q", "--json", place) == (0, "", "")
        assert "old" not in json.loads(Path(place).read_text())


def test_a_page_of_nothing_hides_no_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.toml").write_text(
        'format = "graphprune-recipe/1"\n[job]\ncalibration = "inputs.npz"\n'
        '[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
    )
    Path("bad.onnx").write_bytes(b"\xff\xff")
    plain = run(capsys, "run", "r.toml", "bad.onnx", "--dry-run")
    assert plain[0] == 2 and "bad.onnx" in plain[2]
    assert run(capsys, "run", "r.toml", "bad.onnx", "--dry-run", "--report", "r.html") == plain
    assert not Path("r.html").exists()
