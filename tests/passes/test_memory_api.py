"""The functions of the package on models and inputs in memory: nothing is printed, and no file is written."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
from models.small import Net
from tests.helpers import check

RECIPE = 'format = "graphprune-recipe/1"\n[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n'


def perceptron() -> ModelProto:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, 64))
    x = net.op("Relu", net.linear(x, 64, 64))
    return net.model(net.linear(x, 64, 16), rank=3)


def weights(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


FORMS: dict[str, Callable[[ModelProto], Any]] = {
    "bytes": ModelProto.SerializeToString,
    "proto": lambda model: model,
    "ir": ir.from_proto,
    "graphsurgeon": gs.import_onnx,
}


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """An empty folder, that stays empty; and nothing is printed."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model(form: str, silent: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    given, expected = FORMS[form](perceptron()), graphprune.prune(perceptron(), ratio=0.5)
    recipe = tmp_path_factory.mktemp("recipes") / "r.toml"
    recipe.write_text(RECIPE)
    assert [g.size for g in graphprune.analyze(given).groups] == [64, 64]
    for result in (graphprune.prune(given, ratio=0.5), graphprune.run_recipe(recipe, given)):
        made = weights(result.proto)
        assert len(made) == len(weights(expected.proto))
        assert all(np.array_equal(value, made[name]) for name, value in weights(expected.proto).items())
        check(result.proto)
    assert graphprune.sparsify(given).sparse is not None
    assert graphprune.validate(expected.proto, given).passed
    assert result.output is None


def test_a_result_in_every_form(silent: Path) -> None:
    result = graphprune.prune(perceptron(), ratio=0.5)
    assert isinstance(result.proto, ModelProto) and isinstance(result.ir(), ir.Model)
    assert isinstance(result.graphsurgeon(), gs.Graph)
    sizes = {name: value.shape for name, value in weights(result.proto).items()}
    assert {n: tuple(v.shape) for n, v in result.ir().graph.initializers.items()} == sizes
    tensors = result.graphsurgeon().tensors().values()
    assert {t.name: tuple(t.shape) for t in tensors if isinstance(t, gs.Constant)} == sizes
    result.proto.graph.node[0].name = "mine"
    assert result.proto.graph.node[0].name != "mine"


def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((8, 8, 64)).astype(np.float32)} for _ in range(8)]


def torn() -> Iterator[dict[str, np.ndarray]]:
    yield samples()[0]
    raise ValueError("torn")


def test_every_form_of_calibration(silent: Path) -> None:
    every = {"x": np.concatenate([one["x"] for one in samples()])}
    made = [
        weights(graphprune.prune(perceptron(), ratio=0.5, calibration=source).proto)
        for source in (every, samples(), iter(samples()), (one for one in samples()), samples)
    ]
    for other in made[1:]:
        assert all(np.array_equal(value, other[name]) for name, value in made[0].items())
    with pytest.raises(graphprune.errors.UserCodeError, match="calibration: raised ValueError: torn"):
        graphprune.prune(perceptron(), ratio=0.5, calibration=torn())
    by_magnitude = weights(graphprune.prune(perceptron(), ratio=0.5).proto)
    assert any(value.shape != by_magnitude[n].shape or (value != by_magnitude[n]).any() for n, value in made[0].items())


def test_passes_log_what_they_did(silent: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "graphprune"):
        graphprune.prune(perceptron(), ratio=0.5)
    assert {record.name for record in caplog.records} == {"graphprune"}
    said = [record.getMessage() for record in caplog.records]
    assert any("select: 2 groups" in line for line in said)
    assert any("cut: " in line and line.endswith("the model changed") for line in said)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "graphprune"):
        graphprune.prune(perceptron(), ratio=0.5)
    assert any("ratio=0.5" in record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG)


def test_a_written_model_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = perceptron()
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, path)
    inputs = tmp_path / "private.npz"
    np.savez(inputs, x=np.concatenate([one["x"] for one in samples()]))
    graphprune.prune(path, tmp_path / "s.onnx", ratio=0.5, calibration=inputs)
    said = {prop.key: prop.value for prop in onnx.load(tmp_path / "s.onnx").metadata_props}
    assert said.pop("author") == "somebody"
    plan = (tmp_path / "s.plan.json").read_bytes()
    recipe = json.loads(said.pop("graphprune.recipe"))
    assert said == {
        "graphprune.version": graphprune.__version__,
        "graphprune.original.sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "graphprune.plan.sha256": hashlib.sha256(plan).hexdigest(),
    }
    assert recipe["job"] == {"calibration": "private.npz"}
    assert [one["use"] for one in recipe["passes"]] == [
        "centre",
        "rotate",
        "select",
        "cut",
        "fold-constants",
        "fit",
        "smaller",
    ]
    graphprune.prune(tmp_path / "s.onnx", tmp_path / "t.onnx", ratio=0.5)
    keys = [prop.key for prop in onnx.load(tmp_path / "t.onnx").metadata_props]
    assert len(keys) == len(set(keys)) == 5
