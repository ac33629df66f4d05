"""Colours are for terminals that want them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from models.small import residual
from tests.helpers import drained


@pytest.mark.parametrize(("asked", "escapes"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_escapes_on_a_terminal(asked: dict[str, str], escapes: bool, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    onnx.save(residual(), tmp_path / "m.onnx")
    master, slave = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    words = [sys.executable, "-m", "graphprune", "inspect", "m.onnx", "--all"]
    subprocess.run(words, cwd=tmp_path, stdout=slave, stderr=slave, env=env | {"TERM": "xterm"} | asked, check=True)
    os.close(slave)
    shown = drained(master)
    assert b"prunable groups" in shown and (b"\x1b" in shown) is escapes


def test_none_in_a_pipe(tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    words = [sys.executable, "-m", "graphprune", "inspect", "m.onnx", "--all"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
    assert b"prunable groups" in done.stdout and b"\x1b" not in done.stdout + done.stderr
