"""Trained models from packages, and full-size exports of both exporters, pruned by 30 %."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.cli import report
from tests import helpers, rotation

PACKAGED: dict[str, dict[str, int]] = {
    "ppocr-v4-det": {"p2o.DynamicDimension.0": 2, "p2o.DynamicDimension.1": 96, "p2o.DynamicDimension.2": 160},
    "ppocr-v4-rec": {"p2o.DynamicDimension.0": 2, "p2o.DynamicDimension.1": 200, "?": 48},
    "ppocr-v4-cls": {},
    "ppocr-v5-det": {"d0": 1, "d1": 96, "d2": 160},
    "ppocr-v5-rec": {"d0": 2, "d1": 200},
    "ppocr-v5-cls": {"d0": 2},
    "magika": {"unk__214": 1},
}
EXPORTS = rotation.some([n for n in models.exported() if n.startswith(models.FULL_SIZE)], 3)
"""An ordinary run tries one of three, of both exporters."""


def prune(model: Any, name: str) -> graphprune.Result:
    result = graphprune.prune(model, ratio=0.3)
    assert result.proof is not None and result.proof.worst <= 1e-4
    total, owned = result.before.parameters, report.ownership(result.analysis)
    removed = total - result.after.parameters
    # where a vocabulary holds most weights, the share counts of the others
    others = owned["exact"]
    assert removed >= 0.2 * total or removed >= 0.25 * others, name
    assert result.after.macs < result.before.macs
    return result


def agree(original: onnx.ModelProto, result: graphprune.Result, feeds: dict[str, np.ndarray]) -> None:
    """The pruned model runs at other sizes than the witness, and does what the mask made by hand does."""
    witness = result.analysis.witness
    assert any(feeds[n].shape not in (s, witness.second.inputs[n]) for n, s in witness.inputs.items())
    masked = helpers.before_softmax(helpers.mask_by_hand(original, result.plan.to_json()))
    pruned = helpers.before_softmax(result.model.proto)
    for expected, found in zip(helpers.run(masked, feeds), helpers.run(pruned, feeds), strict=True):
        if float(np.abs(expected).max()) > 1e-3:  # a saturated sigmoid is nothing but rounding
            assert helpers.relative(expected, found) < 1e-4
        else:
            assert float(np.abs(expected - found).max()) < 1e-6


@pytest.mark.parametrize("name", PACKAGED)
def test_trained_models(name: str) -> None:
    path = models.packaged(name)
    result = prune(path, name)
    original = onnx.load(path)
    sizes = PACKAGED[name]
    if name == "ppocr-v4-cls":  # its free dims have no names
        feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 48, 192), dtype=np.float32)}
    else:
        feeds = helpers.random_feeds(original, sizes, top=256)
    agree(original, result, feeds)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str) -> None:
    original = models.export(name)
    result = prune(original, name)
    feeds = helpers.random_feeds(original, {"batch": 1, "sequence": 9})
    if "attention_mask" in feeds:
        feeds["attention_mask"][:] = 1
    agree(original, result, feeds)


@pytest.mark.parametrize("name", ["resnet50-light", "densenet121-light", "shufflenet-light"])
def test_models_whose_weights_are_fills(name: str) -> None:
    path = models.packaged(name)
    result = graphprune.prune(path, ratio=0.3)
    assert result.proof is not None and result.proof.worst <= 1e-4
    original = onnx.load(path)
    feeds = helpers.random_feeds(original, {})
    shapes = [[v.shape for v in helpers.run(m, feeds)] for m in (original, result.model.proto)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["ppocr-v5-rec", "magika"])
def test_nothing_removed_is_bit_for_bit_the_original(name: str, tmp_path: Path) -> None:
    path = models.packaged(name)
    graphprune.prune(path, tmp_path / "same.onnx", ratio=0)
    before, after = onnx.load(path), onnx.load(tmp_path / "same.onnx")
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
    feeds = helpers.random_feeds(before, {"d0": 1, "d1": 100, "unk__214": 2}, top=256)
    for a, b in zip(helpers.run(before, feeds), helpers.run(str(tmp_path / "same.onnx"), feeds), strict=True):
        assert (a == b).all()


def test_weights_that_no_exact_group_owns_are_accounted_for() -> None:
    """GPT-2: a third of the weights is the vocabulary, whose width is the statistical hidden size."""
    data = report.inspection(graphprune.analyze(models.export("gpt2-small-dynamo")))
    assert sum(data["owned"].values()) == data["parameters"]
    assert data["owned"]["statistical"] > 38e6
    hidden = next(g for g in data["groups"] if g["statistical"])
    assert hidden["statistics"][0]["chain"]
    vocabulary = next(g for g in data["fixed"] if g["size"] == 50257)
    assert "output" in vocabulary["reasons"][0]["reason"]
