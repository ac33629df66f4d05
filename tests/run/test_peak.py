"""Peak memory of a whole run: a process of its own prunes a model with external data and proves it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import make_large

STARTER = (
    "import os, subprocess, sys\n"
    "process = subprocess.Popen(sys.argv[1:])\n"
    "_, status, used = os.wait4(process.pid, 0)\n"
    "print(used.ru_maxrss)\n"
    "sys.exit(os.waitstatus_to_exitcode(status))"
)
"""A small process between this one and what is measured: a child begins with the peak of who starts it."""


def peak(*words: str) -> int:
    """Bytes that a Python process, or one that it started, had at once."""
    command = [sys.executable, "-c", STARTER, sys.executable, *words]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(said) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not say how much memory a process had")
def test_a_proven_run_holds_less_than_the_weights_of_its_model(tmp_path: Path) -> None:
    model = make_large.write(tmp_path / "large.onnx", 200_000_000, width=512)
    weights = model.with_name("large.onnx.data").stat().st_size
    bare = peak("-c", "import numpy, onnx, onnxruntime, graphprune.cli.prune")
    out = str(tmp_path / "out.onnx")
    whole = peak("-m", "graphprune", "prune", str(model), "--ratio", "0.3", "-q", "-o", out)
    assert whole - bare < 0.6 * weights  # 1.2 of them where both models run whole
