"""The plan alone is enough to check a result: onnx, numpy and ONNX Runtime, and nothing of graphprune but the files."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import models
from tests import helpers

CASES = {
    "ppocr-v4-rec": {"p2o.DynamicDimension.0": 2, "p2o.DynamicDimension.1": 160, "?": 48},
    "ppocr-v5-cls": {"d0": 3},
    "magika": {"unk__214": 2},
    "squeezenet-light": {},
}


@pytest.mark.parametrize("name", CASES)
def test_zeroing_each_slice_of_the_plan_gives_the_pruned_model(name: str, tmp_path: Path) -> None:
    path = models.packaged(name)
    command = [sys.executable, "-m", "graphprune", "prune", str(path), "-o", "out.onnx", "--ratio", "0.2", "-q"]
    subprocess.run(command, cwd=tmp_path, check=True)
    plan = json.loads((tmp_path / "out.plan.json").read_text())
    original = onnx.load(path)
    assert plan["slices"]
    # a softmax with sharp logits amplifies rounding; both files have the tensor before it
    masked = helpers.before_softmax(helpers.mask_by_hand(original, plan))
    feeds = helpers.random_feeds(original, CASES[name], top=256)
    found = helpers.run(helpers.before_softmax(onnx.load(tmp_path / "out.onnx")), feeds)
    for expected, output in zip(helpers.run(masked, feeds), found, strict=True):
        assert helpers.relative(expected, output) < 1e-4


def test_the_check_can_fail(tmp_path: Path) -> None:
    """A plan that names too few slices is found out."""
    path = models.packaged("ppocr-v5-cls")
    command = [sys.executable, "-m", "graphprune", "prune", str(path), "-o", "out.onnx", "--ratio", "0.2", "-q"]
    subprocess.run(command, cwd=tmp_path, check=True)
    plan = json.loads((tmp_path / "out.plan.json").read_text())
    original = onnx.load(path)
    plan["slices"] = plan["slices"][: len(plan["slices"]) // 2]
    feeds = helpers.random_feeds(original, CASES["ppocr-v5-cls"])
    (expected,), (found,) = (
        helpers.run(m, feeds) for m in (helpers.mask_by_hand(original, plan), str(tmp_path / "out.onnx"))
    )
    assert helpers.relative(expected, found) > 1e-3
