"""Sensitivity: what each set of groups alone can lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
from graphprune.analysis import analyze
from graphprune.analysis.contractions import observe
from graphprune.errors import InputError
from graphprune.passes.choose.trial import without
from graphprune.passes.metric import metric
from graphprune.passes.study import drawing
from graphprune.passes.study.curves import Curve, Point, Sensitivity, from_json
from graphprune.run.samples import held_out
from graphprune.schema import schema
from models.small import Net, residual
from tests.helpers import command, constants, json_of

X = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
IMAGES = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)


def perceptron() -> ModelProto:
    net = Net(0)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 24))
    return net.model(net.linear(y, 24, 5), rank=2)


def stream() -> ModelProto:
    """A residual stream, and a layer that reads it and writes it."""
    net = Net(0)
    y = net.linear(net.input("x", ["batch", 8]), 8, 16)
    y = net.op("Add", y, net.op("Relu", net.linear(y, 16, 16)))
    return net.model(net.linear(y, 16, 5), rank=2)


def test_scores_are_those_of_the_refitted_model_on_what_is_held_out() -> None:
    found = graphprune.sensitivity(perceptron(), calibration={"x": X}, levels=[0.5, 0.25])
    jsonschema.validate(found.to_json(), schema("sensitivity"))
    assert found.original == 1 and found.levels == (0.25, 0.5) and len(found.curves) == 1
    curve, held = found.curves[0], held_out(np.arange(64))
    first, bias, second, last = (
        constants(perceptron())[t.name].astype(np.float64) for t in perceptron().graph.initializer
    )
    hidden = np.maximum(X @ first + bias, 0)
    wanted = hidden @ second + last
    for point in curve.points:
        assert point.removed == int(24 * point.level) and point.share == point.level
        left = np.setdiff1d(np.arange(24), curve.order[: point.removed])
        rows = np.column_stack([hidden[:, left], np.ones(64)])
        weights = np.linalg.lstsq(rows[~held], wanted[~held], rcond=None)[0]
        far = np.linalg.norm(rows[held] @ weights - wanted[held]) / np.linalg.norm(wanted[held])
        assert point.score == pytest.approx(1 - far, abs=0.01) and point.drop == pytest.approx(far, abs=0.01)
        assert point.macs_saved == point.removed * (8 + 5) * found.macs // (24 * (8 + 5))
        assert point.parameters_saved == point.removed * (8 + 1 + 5)
    assert curve.order[:6] == graphprune.sensitivity(perceptron(), calibration={"x": X}, levels=[0.25]).curves[0].order


def test_what_reads_and_writes_a_stream_is_refitted_too() -> None:
    analysis = analyze(stream())
    group = next(g for g in analysis.groups if g.size == 16)
    batches = lambda: ({"x": X[k : k + 8]} for k in range(0, 64, 8))  # noqa: E731
    made = without(analysis, {group.id: [0, 3, 5]}, observe(analysis, analysis.groups, batches))
    plain = without(analysis, {group.id: [0, 3, 5]}, [])
    shapes = {name: value.shape for name, value in constants(plain.proto).items()}
    assert {name: value.shape for name, value in constants(made.proto).items() if name in shapes} == shapes
    inner = next(name for name, shape in shapes.items() if shape == (13, 13))
    assert not np.allclose(constants(made.proto)[inner], constants(plain.proto)[inner])
    judge = metric("distance", analysis.model, batches)
    assert judge(made) > judge(plain)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str | Path]:
    np.savez(tmp_path / "in.npz", x=IMAGES)
    onnx.save(residual(), tmp_path / "m.onnx")
    return ["sensitivity", tmp_path / "m.onnx", "--calibration", tmp_path / "in.npz", "--levels", "0.25,0.5", "-q"]


def test_shards_and_interrupted_runs_come_to_the_same_bytes(
    inputs: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(name: str, *options: str | Path) -> bytes:
        return json_of(capsys, tmp_path / name, *inputs, *options)

    whole = made("whole.json", "-o", tmp_path / "whole.svg")
    half = json.loads(made("half.json", "--folder", tmp_path / "a", "--shard", "1/2"))
    jsonschema.validate(half, schema("sensitivity"))
    assert 0 < half["missing"] < 6
    assert made("again.json", "--folder", tmp_path / "a") == whole, "it goes on where half of it was done"
    made("one.json", "--folder", tmp_path / "b", "--shard", "2/2")
    assert made("two.json", "--folder", tmp_path / "b", "--shard", "1/2") == whole
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "b").iterdir()}
    merged = made("merged.json", "--folder", tmp_path / "b", "-o", tmp_path / "merged.svg")
    assert merged == whole and (tmp_path / "merged.svg").read_bytes() == (tmp_path / "whole.svg").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "b").iterdir()} == before
    assert made("jobs.json", "--jobs", "2") == whole
    assert made("other.json", "--folder", tmp_path / "b", "--seed", "1") != whole


def test_functions_of_ones_own_judge() -> None:
    def small(model: ModelProto) -> int:
        return -sum(numpy_helper.to_array(t).size for t in model.graph.initializer)

    found = graphprune.sensitivity(residual(), calibration={"x": IMAGES}, metric=small, levels=[0.5])
    assert found.metric == "small" and found.original == small(residual())
    assert [c.points[0].drop for c in found.curves] == [-c.points[0].parameters_saved for c in found.curves]


def test_it_is_printed_and_told(inputs: list[str | Path], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, *inputs[:-1], "--include", "*", "--sort", "model")
    assert status == 0
    rows = [line.split() for line in out.splitlines() if "channel" in line]
    assert len(rows) == 3 and all(set(row[3]) <= set("·▁▂▃▄▅▆▇█") and len(row[3]) == 2 for row in rows)
    for options, told in (
        (["--levels", "0.5,1"], "1 is out of range"),
        (["--levels", "half"], "0.1,0.25,0.5"),
        (["--metric", "f1"], "distance, top1, cosine"),
        (["--shard", "1/2"], "--folder"),
        (["-o", "drawing.png"], "a drawing is .svg"),
        (["--exclude", "*"], "no group to look at"),
    ):
        status, _, err = command(capsys, *inputs, *options)
        assert status == 2 and told in err and err.count("\n") == 1
    status, _, err = command(capsys, *inputs[:2])
    assert status == 2 and "--calibration generated" in err
    with pytest.raises(InputError, match="at least 4"):
        graphprune.sensitivity(perceptron(), calibration={"x": X[:3]})


def curves(**changes: Any) -> Sensitivity:
    one = Curve(("a<b>:1", "c:1"), "channel", 8, 8, (0, 1), (Point(0.25, 2, 0.25, 0.9, 0.1, 10, 4),))
    two = Curve(("d:1",), "channel", 8, 8, (0, 1), (Point(0.25, 2, 0.25, 0.8, 0.2, 40, 4),))
    broken = Curve(("e:1",), "channel", 8, 8, (0, 1), (Point(0.25, 2, 0.25, None, None, 10, 4),))
    given = {"curves": (two, one, broken), "original": 1.0, **changes}
    return Sensitivity(
        "m.onnx", "", "distance", criterion="obs", seed=0, levels=(0.25,), macs=100, parameters=40, **given
    )


def test_what_costs_most_for_what_it_saves_comes_first() -> None:
    found = curves()
    assert [c.groups[0] for c in found.sorted("drop")] == ["e:1", "a<b>:1", "d:1"]
    assert [c.groups[0] for c in found.sorted("model")] == ["d:1", "a<b>:1", "e:1"]
    assert [found.heat(c.points[0]) for c in found.curves] == [8, 6, 8]
    assert [entry["price"] for entry in found.to_json()["sets"]] == [0.5, 1.0, None]


def test_drawings_stand_alone() -> None:
    captions = drawing.captions(curves(missing=2, notes=("a < b",)), "drop")
    drawn = ElementTree.fromstring(drawing.svg(curves(), "drop").encode())
    texts = [node.text for node in drawn.iter() if node.tag.endswith("text")]
    assert {"a<b>:1 (+1)", "0.1", "0.2", "broken"} <= set(texts) and texts.index("a<b>:1 (+1)") < texts.index("d:1")
    text = drawing.svg(curves(), "model")
    assert "<script" not in text and "href" not in text and "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "2 models are still" in captions[1] and captions[2] == "a < b"


def test_it_is_read_back() -> None:
    found = curves(missing=2, notes=("a < b",), untouched=(("z:1", "no"),))
    jsonschema.validate(found.to_json(), schema("sensitivity"))
    assert from_json(json.loads(json.dumps(found.to_json()))) == found
