"""How inputs are read, as it is said on the command line, in recipes and in Python, and where it is told again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import graphprune
from graphprune.errors import InputError
from graphprune.passes import toml
from graphprune.passes.recipe import Recipe, build
from graphprune.passes.state import Job
from graphprune.rewrite.plan import load as load_plan
from graphprune.run.reading import asked, kinds
from graphprune.verdict.checks import Checks
from models.small import Net
from tests.helpers import command
from tests.run.reading.helpers import picture

pytest.importorskip("PIL.Image")


def conv() -> ModelProto:
    """A small net for images whose exporter says how they are read."""
    build = Net()
    y = build.op("Relu", build.conv(build.input("x", ["batch", 3, 8, 8]), 3, 16))
    model = build.model(build.conv(y, 16, 4))
    for key, value in {"imgsz": "[8, 8]", "stride": "8", "task": "detect"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(8):
        picture(tmp_path / "in" / f"{number}.png", 8 + number, 12)
    onnx.save(conv(), "m.onnx")
    return tmp_path


TOLD = "images: letterbox to 8 x 8, RGB, / 255 (from the metadata of the model)"
BY_HAND = "images: resized to 8 x 8, BGR, / 255 (from --preprocess and the metadata of the model)"


def test_what_was_done_is_said_and_stands_in_result_and_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["prune", "m.onnx", "-o", "o.onnx", "--ratio", "0.5", "--calibration", "in"]
    status, out, _ = command(capsys, *how)
    assert status == 0 and f"note: {TOLD}" in " ".join(out.split())
    plan = json.loads(Path("o.plan.json").read_text())
    assert plan["calibration"]["told"] == TOLD and plan["calibration"]["from"] == "in"
    assert load_plan("o.plan.json").calibration == plan["calibration"]
    assert plan["calibration"]["pad"] == [114.0] and str(place) not in json.dumps(plan["calibration"])
    status, out, _ = command(
        capsys, *how, "--preprocess", "fit=stretch", "--preprocess", "channels=bgr", "--json", "--force"
    )
    assert status == 0 and json.loads(out)["calibration"]["told"] == BY_HAND
    assert json.loads(out)["calibration"]["channels"] == "bgr"


COMMANDS = {
    "sparsify": ("sparsify", "m.onnx", "--also", "*", "--calibration", "in"),
    "distill": ("distill", "m.onnx", "--teacher", "m.onnx", "--steps", "1", "--calibration", "in"),
    "sensitivity": ("sensitivity", "m.onnx", "--levels", "0.5", "--calibration", "in"),
    "sweep": ("sweep", "m.onnx", "--ratios", "0.5", "--calibration", "in"),
    "validate": ("validate", "m.onnx", "--inputs", "in"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_every_command_takes_it(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = "--preprocess", "fit=stretch", "--preprocess", "channels=bgr"
    status, _, err = command(capsys, *COMMANDS[case], "--preprocess", "fitt=stretch", "-q")
    assert status == 2 and err.count("\n") == 1 and "fitt: is no setting for images; did you mean fit?" in err
    status, out, err = command(capsys, *COMMANDS[case], *how)
    assert status == 0, err
    assert BY_HAND in " ".join(out.split())


def test_a_recipe_holds_it_and_its_paths_lead_from_the_recipe(place: Path) -> None:
    source = {"from": str(place / "in"), "fit": "letterbox", "config": str(place / "c.json")}
    recipe = Recipe((build("validate", {"inputs": source}),), Job(calibration=source))
    (place / "a").mkdir()
    (place / "a" / "r.toml").write_text(toml.dump(recipe, place / "a" / "r.toml"))
    assert 'from = "../in"' in (place / "a" / "r.toml").read_text()
    again = toml.load(place / "a" / "r.toml")
    assert again.job.calibration == {
        "from": f"{place}/a/../in", "fit": "letterbox", "config": f"{place}/a/../c.json"
    }  # fmt: skip
    assert again.passes[0].inputs == again.job.calibration  # type: ignore[attr-defined]
    told = toml.told(again)
    assert told["job"]["calibration"] == {"from": "in", "fit": "letterbox", "config": "c.json"}


def test_a_recipe_is_run_with_it(place: Path) -> None:
    Path("r.toml").write_text(
        'format = "graphprune-recipe/1"\n[job.calibration]\nfrom = "in"\nfit = "stretch"\nchannels = "bgr"\n'
        '[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
        '[[passes]]\nuse = "validate"\ninputs = {from = "in", size = 8}\n'
    )
    result = graphprune.run_recipe("r.toml", "m.onnx")
    assert result.plan.calibration is not None and result.plan.calibration["told"] == BY_HAND
    assert result.verdict is not None and "images: letterbox to 8 x 8, RGB" in result.verdict.levels[1].message


def test_python_takes_the_same_table(place: Path) -> None:
    source = {"from": "in", "fit": "stretch", "channels": "bgr"}
    checks = Checks(inputs=source)
    result = graphprune.prune(conv(), ratio=0.5, calibration=source, checks=checks)
    assert result.notes[0] == BY_HAND
    assert result.verdict is not None and result.verdict.levels[1].message == BY_HAND
    assert any(fit.kept for fit in result.fits)
    assert graphprune.bench(conv(), inputs=source, rounds=2, footprints=False).shapes == {"x": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["fit=letterbox", "pad-x=a=b"], {"fit": "letterbox", "pad_x": "a=b"}),
        (["c.json", "size=4"], {"config": "c.json", "size": "4"}),
    ],
)
def test_words_of_a_command_line(texts: list[str], found: dict[str, Any]) -> None:
    assert asked.named(texts) == found


def test_what_says_nothing_of_how_to_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("a.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    for how, words in (
        (["--inputs", "in", "--preprocess", "letterbox"], "letterbox: not like KEY=VALUE"),
        (["--preprocess", "fit=keep"], "give some by --inputs"),
        (
            ["--inputs", "a.npz", "--preprocess", "fit=keep"],
            "fit: is about images, sounds and texts, and a.npz holds none",
        ),
        (["--inputs", "here:some", "--tokenizer", "t.json"], "tokenizer: is about images, sounds and texts"),
        (["--inputs", "nowhere", "--preprocess", "fit=keep"], "nowhere: no such file or folder"),
    ):
        status, _, err = command(capsys, "validate", "m.onnx", "-q", *how)
        assert status == 2 and words in err and err.count("\n") == 1


def test_kinds(place: Path) -> None:
    (place / "in" / "README.txt").write_text("notes")
    assert kinds.held(place / "in")[0] == kinds.IMAGES
    (place / "up" / "cats").mkdir(parents=True)
    picture(place / "up" / "cats" / "b.png", 4, 4)
    picture(place / "up" / "cats" / ".b.png", 4, 4)
    assert kinds.held(place / "up") == (kinds.IMAGES, [place / "up" / "cats" / "b.png"])
    (place / "in" / "a.wav").touch()
    np.save(place / "in" / "a.npy", np.zeros(3))
    with pytest.raises(
        InputError, match=r"in: holds several kinds of inputs \(8 files of images, 1 file of arrays, 1 file"
    ):
        kinds.held(place / "in")
    (place / "none").mkdir()
    with pytest.raises(InputError, match="none: holds no samples"):
        kinds.held(place / "none")
