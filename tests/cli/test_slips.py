"""Slips at the command line: nothing is lost by them, and the error says what was meant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.cli import helping
from graphprune.verdict.detections import AUTO
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


def test_run_says_how_inputs_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.toml").write_text(
        'format = "graphprune-recipe/1"\n[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
    )
    image = pytest.importorskip("PIL.Image")
    Path("photos").mkdir()
    for k in range(4):
        image.new("RGB", (20, 10), (60 * k, 0, 0)).save(f"photos/{k}.png")
    words = ("run", "r.toml", "m.onnx", "--dry-run", "-q", "--calibration", "photos")
    assert run(capsys, *words, "--preprocess", "fit=letterbox") == (0, "", "")
    status, _, err = run(capsys, *words, "--preprocess", "fti=letterbox")
    assert status == 2 and "did you mean fit?" in err


@pytest.mark.parametrize("words", [("validate", "small.onnx"), ("bench", "m.onnx", "small.onnx")])
def test_a_size_for_no_input_is_refused(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *words, "--input-shape", "y=1x3x8x8")
    assert (status, out) == (2, "") and "--input-shape names 'y', but its inputs are x" in err


def test_gates_are_shares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for gate in ("cosine", "map"):
        status, out, err = run(capsys, "validate", "small.onnx", "--against", "m.onnx", f"--min-{gate}", "95")
        assert (status, out) == (2, "") and f"min-{gate} 95: is a share, of at most 1: 0.95" in err
    assert run(capsys, "prune", "m.onnx", "--ratio", "50%", "-o", "same.onnx", "-q") == (0, "", "")
    assert Path("same.onnx").read_bytes() == Path("small.onnx").read_bytes()


def test_a_verdict_is_about_the_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("prune", "m.onnx", "--ratio", "0.5", "--validate", "-o", "new.onnx", "--json", "new.json")
    status, out, _ = run(capsys, *words)
    assert status == 0 and "\nnew.onnx\nlevel" in out and "\nm.onnx\n" not in out
    assert json.loads(Path("new.json").read_text())["verdict"]["model"] == "new.onnx"


def test_all_that_is_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("prune", "m.onnx", "--ratio", "0.5", "-o", "new.onnx", "--json", "new.json", "--report", "new.html")
    assert "\nwritten: new.onnx, new.plan.json, new.html, new.json\n" in run(capsys, *words)[1]
    status, out, _ = run(capsys, "prune", "m.onnx", "--ratio", "0.5", "--dry-run", "--json", "dry.json")
    assert status == 0 and "\nno model written (--dry-run)\nwritten: dry.json\n" in out
    assert "\nwritten: d.html\n" in run(capsys, "diff", "m.onnx", "small.onnx", "--report", "d.html")[1]
    pytest.importorskip("graphviz")
    assert run(capsys, "graph", "m.onnx", "-o", "m.dot") == (0, "written: m.dot\n", "")
    assert run(capsys, "graph", "m.onnx", "-q", "-o", "m.dot", "--force") == (0, "", "")


SAID = {
    ("prun", "m.onnx"): "no such command 'prun'; did you mean prune",
    ("prune", "m.onnx", "--calibration", "nothing"): "holds no samples: files that end in what says their kind (arrays",
    ("inspect", "small.plan.json"): "small.plan.json: is a plan of graphprune, and no model",
    ("inspect", "r.toml"): "r.toml: is a recipe of graphprune, and no model",
    ("run", "m.onnx", "small.onnx"): "m.onnx: is no recipe, which is text: it comes first",
    ("apply", "m.onnx", "small.onnx"): "m.onnx: is no plan, which is JSON",
}


@pytest.mark.parametrize("words", SAID, ids=" ".join)
def test_what_was_meant_is_said(words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("nothing").mkdir()
    Path("nothing/notes.md").touch()
    Path("r.toml").write_text('format = "graphprune-recipe/1"\n[[passes]]\nuse = "cut"\n')
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "") and SAID[words] in err and err.count("\n") == 1


def test_reasons_that_differ_by_a_name_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("prune", models.trained("digits-cnn"), "--ratio", "0.5", "--keep-last", "5", "--dry-run", "--no-proof")
    shown = [line for line in run(capsys, *words)[1].splitlines() if line.startswith("untouched:")]
    assert len(shown) == 1 and "groups: --keep-last 5: it cuts the layer" in shown[0] and "-v lists all" in shown[0]
    assert run(capsys, *words, "-v")[1].count("untouched:") > 1


def test_help_puts_what_inputs_need_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("validate", "bench"):
        shown = run(capsys, name, "--help")[1]
        assert shown.index("How it is judged:") < shown.index("--inputs") < shown.index("--preprocess")
        assert "By what it is chosen" not in shown
    assert all(len(f"  {line}") <= 80 for line in helping.EXAMPLES.values())
    assert f"FORM: {AUTO} if not given" in " ".join(run(capsys, "validate", "--help")[1].split())
