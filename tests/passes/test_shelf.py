"""Recipes that come with the package, and what heads are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphprune
import models
from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model import node_name
from graphprune.passes import toml
from graphprune.passes.choose import regions
from graphprune.passes.choose.steering import Steering
from graphprune.passes.judge import Validate
from graphprune.passes.shelf import shelf
from graphprune.passes.shelf.filling import filled
from models.shapes import drawn
from tests.helpers import command

DETECTOR = models.TRAINED / "shapes-detector.onnx"


def test_the_recipe_for_detectors(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", images=drawn("train", 4)[0])
    recipe = filled(toml.load("yolo"), str(tmp_path / "in.npz"), ["macs=0.8"])
    assert {"fit", "distill"} < {one.name for one in recipe.passes}
    assert [one.inputs for one in recipe.passes if isinstance(one, Validate)] == [str(tmp_path / "in.npz")]
    quick = tuple(one for one in recipe.passes if one.name not in ("fit", "distill", "validate"))
    result = graphprune.run_recipe(replace(recipe, passes=quick, job=replace(recipe.job, prove=False)), DETECTOR)
    assert result.after.macs <= 0.8 * result.before.macs
    before, after = (
        {node.name: tuple(model.array(node.input[1]).shape) for node in model.nodes if node.op_type == "Conv"}
        for model in (result.analysis.model, result.model)
    )
    heads = [name for name in before if name.startswith(("/boxes", "/scores"))]
    assert len(heads) == 18
    assert all(before[name][0] == after[name][0] for name in heads), "heads keep their widths"
    assert any(before[name][1] > after[name][1] for name in heads), "what they read became narrower"


def test_heads_are_told_by_structure() -> None:
    analysis = analyze(models.export("yolo-ts12"))
    why = regions.within_heads(analysis, True)
    kept = {group.id for group in analysis.groups if why(group)}
    assert len(kept) == 4 and all(id.startswith(("/boxes", "/scores")) for id in kept)
    inside, last = regions._heads(analysis)
    assert last == 4 and all(node_name(analysis.model, n).startswith(("/boxes", "/scores")) for n in inside)
    with pytest.raises(InputError, match="here all leads to one; leave it out, or say --keep-last"):
        graphprune.prune(models.trained("digits-cnn"), ratio=0.3, steering=Steering(keep_heads=True))


def test_recipes_of_the_package_go_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(capsys, "run", "--list")[1].startswith("yolo: Detectors ")
    assert command(capsys, "init", "--from", "yolo", "-o", "r.toml")[0] == 0
    assert Path("r.toml").read_text() == shelf.text("yolo")
    assert toml.load("r.toml") == toml.load("yolo")
    status, _, error = command(capsys, "run", "yolov", str(DETECTOR))
    assert status == 2 and "yolov: no such file; recipes of the package are yolo" in error
    status, _, error = command(capsys, "init", "--from", "other")
    assert status == 2 and "there are yolo" in error
    assert command(capsys, "init")[0] == 2
    status, _, error = command(capsys, "run", "yolo", str(DETECTOR))
    assert status == 2 and "--calibration" in error
    Path("yolo").write_text('format = "graphprune-recipe/1"\n[[passes]]\nuse = "smaller"\n')
    assert len(toml.load("yolo").passes) == 1, "a file that is there comes first"
    with pytest.raises(InputError, match="no pass 'meet'"):
        filled(toml.load("yolo"), None, ["macs=0.5"])
