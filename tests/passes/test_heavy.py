"""What is done with heavy models, whose weights stay in their file, comes to what is done with light ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from graphprune.cli import boundary
from graphprune.model import skeleton
from graphprune.run import portions
from models.digits import images

WAYS = {
    "by magnitude": ("prune", "--ratio", "0.3"),
    "fitted": ("prune", "--ratio", "0.3", "--calibration", "in.npz"),
    "trained": ("prune", "--ratio", "0.3", "--calibration", "in.npz", "--distill", "2"),
    "of low rank": ("prune", "--low-rank", "0.3", "--calibration", "in.npz"),
    "by gradients": ("prune", "--ratio", "0.3", "--criterion", "taylor", "--calibration", "in.npz"),
    "sparse": ("sparsify",),
}


@pytest.mark.parametrize("way", WAYS)
def test_heavy_and_light_models_come_to_the_same(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx.load(models.trained("digits-cnn")), "model.onnx")
    np.savez("in.npz", image=images("train")[0][:32])
    command, *options = WAYS[way]
    assert boundary.run([command, "model.onnx", "-o", "light.onnx", *options, "-q"]) == 0
    for module, name, value in (
        (skeleton, "LARGE", 0),
        (skeleton, "LEAST", 64),
        (portions, "HEAVY", -1),
        (portions, "_LIGHT", 64),
        (portions, "_LEAST", 20000),
    ):
        monkeypatch.setattr(module, name, value)
    assert boundary.run([command, "model.onnx", "-o", "heavy.onnx", *options, "-q"]) == 0
    assert Path("heavy.onnx").read_bytes() == Path("light.onnx").read_bytes()
