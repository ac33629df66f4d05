"""Recipes: what commands build, what files say, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.analysis import analyze
from graphprune.errors import InputError, UserCodeError
from graphprune.passes import recipe as recipes
from graphprune.passes import schemas, toml
from graphprune.passes.recipe import Recipe
from graphprune.passes.starting import starting
from graphprune.passes.state import Job
from graphprune.schema import schema
from models.small import Net
from tests.helpers import command

HEAD = 'format = "graphprune-recipe/1"\n'
CUT = '[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'
FAMILIES = (
    "bert-ts11", "mobilenet-v2-ts10", "resnext-ts9", "gru-tagger-ts13", "llama-dynamo18", "moe-ts12", "unet-ts10",
    "yolo-int8-ort18", "sklearn-regressor-skl15", "recommender-ts11", "keras-cnn-tf13", "conv3d-ts9",
)  # fmt: skip
if os.environ.get("GRAPHPRUNE_ALL_FAMILIES"):
    FAMILIES = tuple({name.rpartition("-")[0]: name for name in models.zoo()}.values())


def plain(wide: int = 64) -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, wide))
    x = net.op("Relu", net.linear(x, wide, 64))
    return net.model(net.linear(x, 64, 16), rank=3)


def written(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(HEAD + text)
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["prune", "--ratio", "0.5"],
        ["prune", "--ratio", "0.5", "--calibration", "in.npz", "--criterion", "activation", "--uniform", "--seed", "3"],
        ["prune", "--ratio", "0.5", "--steps", "3"],
        ["prune", "--ratio", "0.5", "--uniform-widths"],
        ["prune", "--blocks", "1", "--ratio", "0.25", "--align", "4", "--validate"],
        ["prune", "--ratio", "0.25", "--pattern", "2:4", "--permute"],
        ["sparsify"],
        ["sparsify", "--pattern", "1x4", "--amount", "0.5", "--no-proof"],
        [
            "sparsify",
            "--pattern",
            "unstructured",
            "--amount",
            "0.8",
            "--steps",
            "2",
            "--rewind",
            "--calibration",
            "in.npz",
        ],
    ],
)
def test_a_saved_recipe_does_the_same(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "m.onnx")
    np.savez("in.npz", x=np.random.default_rng(0).standard_normal((64, 8, 64)).astype(np.float32))
    Path("there").mkdir()
    job, *more = options
    status, _, error = command(capsys, job, "m.onnx", "-o", "a.onnx", "--save-recipe", "there/r.toml", *more)
    assert status == 0, error
    status, _, error = command(capsys, "run", "there/r.toml", "m.onnx", "-o", "b.onnx")
    assert status == 0, error
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert Path("a.plan.json").read_text() == Path("b.plan.json").read_text()
    read = toml.load("there/r.toml")
    assert toml.dump(read, "there/r.toml") == Path("there/r.toml").read_text()
    valid(Path("there/r.toml"))
    if "in.npz" in options:
        assert 'calibration = "../in.npz"' in Path("there/r.toml").read_text()


def valid(path: Path) -> None:
    import tomlkit

    jsonschema.validate(tomlkit.parse(path.read_text()).unwrap(), schema("recipe"))


def test_the_schema_is_that_of_the_passes() -> None:
    assert schema("recipe") == schemas.recipe_schema()


SAMPLES: dict[Any, Any] = {str: "a", bool: True, int: 3, float: 0.25}


def _sample(hint: Any) -> Any:
    if hint == Mapping[str, float]:
        return {"x/*": 0.25}
    if "Mapping[str, int]" in str(hint):
        return {"x": 3}
    if hint == str | Sequence[int]:
        return [3]
    for kind, value in SAMPLES.items():
        if hint == kind or (kind in getattr(hint, "__args__", ()) and "Sequence" not in str(hint)):
            return value
    return {"x": [[1], [2], [3]]} if "Mapping" in str(hint) else ["a"]


@pytest.mark.parametrize("name", sorted(recipes.PASSES))
def test_every_option_is_read_and_written(name: str, tmp_path: Path) -> None:
    kind = recipes.find_pass(name)
    hints = get_type_hints(kind)
    options = {f.name: _sample(hints[f.name]) for f in dataclasses.fields(kind) if f.init}
    one = recipes.build(name, options)
    assert {f.name: getattr(one, f.name) for f in dataclasses.fields(one)} == options
    path = tmp_path / "r.toml"
    path.write_text(toml.dump(Recipe((one,), Job()), path))
    valid(path)
    read = toml.load(path)
    assert toml.dump(read, path) == path.read_text()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[[passes]]\nuse = 'selct'\n", 3, "there is no pass 'selct'; did you mean 'select'?"),
        (
            "[[passes]]\nuse = 'select'\nratoi = 0.3\n",
            4,
            "ratoi is no option of this pass; did you mean ratio?",
        ),
        (CUT + "[[passes]]\nuse = 'sparsify'\nzzz = 1\n", 9, "sparsify: zzz is no option of this pass; it has pattern"),
        ("[[passes]]\nuse = 'select'\nratio = 'much'\n", 4, "select: ratio is 'much' (str), and must be a number"),
        ("[[passes]]\nuse = 'cut'\n[[passes]]\nratio = 1\n", 4, "'use' is a required property"),
        ("passses = []\n", 2, "passses"),
        ("[job]\nsede = 1\n[[passes]]\nuse = 'cut'\n", 3, "sede"),
        ("[job]\nseed = -1\n[[passes]]\nuse = 'cut'\n", 3, "job, seed: -1 is less than the minimum"),
        ("passes = [\n", 2, "not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as wrong:
        toml.load(path)
    assert str(wrong.value).startswith(f"{path}:{line}: "), wrong.value
    assert words in str(wrong.value) and "\n" not in str(wrong.value)


def test_requirements_are_asked_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("graphprune.passes.state.analyze", never)
    for text, words in (
        ("[[passes]]\nuse = 'fit'\nmethod = 'refit'\n", "--calibration"),
        ("[[passes]]\nuse = 'permute'\n", "pass 'permute': no pass 'sparsify' is ahead"),
        ("[[passes]]\nuse = 'sparsify'\npattern = '1x4'\n", "wants --amount"),
        (CUT + CUT, "pass 'select': the 'select' of a later round must have a ratio above 0.5"),
        (CUT + "[[passes]]\nuse = 'cut'\n", "pass 'cut': nothing is chosen between it and the next 'cut'"),
        ("[[passes]]\nuse = 'select'\nratio = 0.5\n", "pass 'select': "),
        ("[[passes]]\nuse = 'no_such_module:step'\n", "no_such_module"),
        ("[[passes]]\nuse = 'sparsify'\n" + CUT, "pass 'sparsify': 'cut' is ahead"),
        ("[[passes]]\nuse = 'sparsify'\n[[passes]]\nuse = 'sparsify'\n", "pass 'sparsify': the 'sparsify' ahead must"),
        ("[[passes]]\nuse = 'permute'\n[[passes]]\nuse = 'sparsify'\n", "pass 'permute': no pass 'cut' is ahead"),
    ):
        with pytest.raises(InputError) as wrong:
            graphprune.run_recipe(written(tmp_path, text), plain())
        assert str(wrong.value).startswith(f"{tmp_path / 'r.toml'}:{6 if 'nothing is chosen' in words else 3}: "), (
            wrong.value
        )
        assert words in str(wrong.value), wrong.value


STEPS = """
import numpy as np
from onnx import ModelProto, numpy_helper
import onnx_graphsurgeon as gs
import onnx_ir as ir

def proto(model: ModelProto, by: float = 2.0) -> None:
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(by), weight.name))

def graph(graph: gs.Graph) -> gs.Graph:
    for node in graph.nodes:
        node.name = "renamed_" + node.name
    return graph

def whole(model: ir.Model) -> ir.Model:
    for node in model.graph:
        node.doc_string = "seen"
    return model

def failing(model):
    raise ValueError("no good")

def nothing(model):
    return 3
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_steps_in_three_forms(steps: Path) -> None:
    text = CUT + "".join(f"[[passes]]\nuse = 'own_steps:{name}'\n" for name in ("proto", "graph", "whole"))
    model = plain()
    model.doc_string = "kept"
    result = graphprune.run_recipe(written(steps, text + "[[passes]]\nuse = 'sparsify'\n"), model)
    assert result.sparse is not None and result.sparse.thinned
    made = result.proto
    assert made.doc_string == "kept"
    assert all(node.name.startswith("renamed_") and node.doc_string == "seen" for node in made.graph.node)
    dense = graphprune.run_recipe(written(steps, CUT), model).proto
    old, new = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (dense, made))
    assert set(old) == set(new)
    for name, value in new.items():
        np.testing.assert_array_equal(value[value != 0], 2 * old[name][value != 0])


def test_a_step_that_fails_is_told_as_the_users(steps: Path) -> None:
    with pytest.raises(UserCodeError, match=r"own_steps:failing: raised ValueError: no good, at .*own_steps\.py:"):
        graphprune.run_recipe(written(steps, "[[passes]]\nuse = 'own_steps:failing'\n"), plain())
    with pytest.raises(InputError, match="own_steps:nothing gave a int, which is no model"):
        graphprune.run_recipe(written(steps, "[[passes]]\nuse = 'own_steps:nothing'\n"), plain())


def test_one_recipe_over_three_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "a.onnx")
    Path("b.onnx").write_bytes(b"no model")
    onnx.save(plain(128), "c.onnx")
    written(tmp_path, CUT + "[models.'c*'.input_shapes]\nx = [5, 8, 64]\n[models.'c*']\nseed = 4\n")
    status, out, _ = command(capsys, "run", "r.toml", "a.onnx", "b.onnx", "c.onnx", "-o", "made", "--json")
    data = json.loads(out)
    assert status == 2 == data["status"] and [one["status"] for one in data["models"]] == [0, 2, 0]
    assert "b.onnx" in data["models"][1]["error"]
    assert sorted(p.name for p in Path("made").glob("*.onnx")) == ["a.onnx", "c.onnx"]
    witness = [json.loads(Path(f"made/{n}.plan.json").read_text())["model"]["witness"]["x"] for n in "ac"]
    assert witness[0] != witness[1] == [5, 8, 64]
    status, out, error = command(capsys, "run", "r.toml", "a.onnx", "b.onnx", "c.onnx", "-o", "made")
    assert status == 2 and "made/a.onnx: is there already; --force" in error
    status, out, error = command(capsys, "run", "r.toml", "a.onnx", "b.onnx", "c.onnx", "-o", "made", "--force")
    assert status == 2 and [line.split(":")[0] for line in out.splitlines()] == ["a.onnx", "c.onnx", "written"]
    assert [line for line in error.splitlines() if "b.onnx" in line][-1].startswith("graphprune: error: ")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_init_writes_runs_as_it_is(name: str, tmp_path: Path) -> None:
    onnx.save(models.export(name), tmp_path / "m.onnx")
    path = tmp_path / "r.toml"
    path.write_text(starting(analyze(tmp_path / "m.onnx")))
    valid(path)
    result = graphprune.run_recipe(path, tmp_path / "m.onnx", tmp_path / "s.onnx")
    assert result.verdict is not None and result.verdict.passed
    assert (result.sparse is not None and result.sparse.thinned) or result.after.parameters < result.before.parameters


def test_groups_that_were_chosen_stay_chosen(tmp_path: Path) -> None:
    """A second choice takes what is left; nothing that goes is said to be untouched."""
    group = analyze(plain()).groups[0].id
    one = f"[[passes]]\nuse = 'select'\nratio = 0.5\nalign = 1\ninclude = [{group!r}]\n"
    two = "[[passes]]\nuse = 'select'\nratio = 0.25\nalign = 1\n[[passes]]\nuse = 'cut'\n"
    result = graphprune.run_recipe(written(tmp_path, one + two), plain())
    shares = {entry.id: len(entry.removed) / entry.size for entry in result.plan.groups}
    assert shares.pop(group) == 0.5 and shares and set(shares.values()) == {0.25}
    assert not {one.group for one in result.untouched} & {group, *shares}


AUTO = """[[passes]]
use = "select"
ratio = 0.5
criterion = "auto"
[[passes]]
use = "permute"
[[passes]]
use = "cut"
[[passes]]
use = "sparsify"
method = "auto"
"""


@pytest.mark.parametrize("calibrated", [True, False])
def test_auto_is_what_the_command_line_chooses(calibrated: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((16, 8, 64)).astype(np.float32))
    job = f"[job]\ncalibration = {str(tmp_path / 'in.npz')!r}\n" if calibrated else ""
    named = {"criterion": "obs" if calibrated else "magnitude", "method": "sparsegpt" if calibrated else "magnitude"}
    made = []
    for one in ({"criterion": "auto", "method": "auto"}, named):
        text = AUTO
        for option, value in one.items():
            text = text.replace(f'{option} = "auto"', f"{option} = {value!r}")
        path = written(tmp_path, job + text)
        valid(path)
        made.append(graphprune.run_recipe(path, plain()))
    assert made[0].proto.graph == made[1].proto.graph and made[0].plan.groups == made[1].plan.groups
    assert {entry["method"] for entry in made[0].plan.sparsity} == {named["method"]}
