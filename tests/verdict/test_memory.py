"""Memory that a process takes, and memory that a model takes."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphprune.verdict.footprint import footprint
from graphprune.verdict.memory import peak
from models.small import Net, chain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")


def test_the_peak_is_of_this_process() -> None:
    block = np.ones(1 << 25)
    found = peak()
    del block
    assert found is not None and 1 << 28 < found < 1 << 36


def test_a_model_of_more_weights_takes_more(tmp_path: Path) -> None:
    """The figures are of the model alone, whatever this process holds."""
    ballast = np.ones(1 << 26)
    net = Net()
    onnx.save(net.model(net.linear(net.input("x", ["batch", 2048]), 2048, 4096)), tmp_path / "large.onnx")
    onnx.save(chain(), tmp_path / "small.onnx")
    large = footprint(tmp_path / "large.onnx", {"x": np.zeros((1, 2048), np.float32)}, 1, "CPUExecutionProvider")
    small = footprint(tmp_path / "small.onnx", {"x": np.zeros((1, 3, 8, 8), np.float32)}, 1, "CPUExecutionProvider")
    del ballast
    assert large is not None and small is not None
    assert 4 * 2048 * 4096 < large < 512 << 20 and small < large / 2


def test_a_model_that_does_not_run_has_none(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "small.onnx")
    assert footprint(tmp_path / "small.onnx", {"x": np.zeros(3, np.float32)}, 1, "CPUExecutionProvider") is None
