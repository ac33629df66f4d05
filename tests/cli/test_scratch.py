"""Temporary files are gone at the end, however it comes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import models
from graphprune.cli import scratch
from models.digits import images

numpy = pytest.importorskip("numpy")


def started(folder: Path) -> subprocess.Popen[str]:
    """A job that takes long enough to be ended, once it has put something aside."""
    inputs = folder / "in.npz"
    numpy.savez(inputs, image=images("train")[0][:64])
    command = [sys.executable, "-m", "graphprune", "prune", models.trained("digits-transformer"), "--ratio", "0.3"]
    command += ["--calibration", inputs, "--steps", "4", "-v", "-o", folder / "out.onnx"]
    setting = {**os.environ, "TMPDIR": str(folder / "aside")}
    (folder / "aside").mkdir(exist_ok=True)
    job = subprocess.Popen(list(map(str, command)), env=setting, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list((folder / "aside").glob("*/*")) and time.monotonic() < until and job.poll() is None:
        time.sleep(0.01)
    assert job.poll() is None
    return job


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_it_with_nothing_left(number: int, status: int, said: str, tmp_path: Path) -> None:
    job = started(tmp_path)
    job.send_signal(number)
    _, printed = job.communicate(timeout=60)
    assert job.returncode == status, printed
    assert printed.splitlines()[-1] == f"graphprune: error: {said}"
    assert not list((tmp_path / "aside").glob("*graphprune*"))
    assert {p.name for p in tmp_path.iterdir()} == {"aside", "in.npz"}


def test_what_was_killed_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    job = started(tmp_path)
    job.kill()
    job.wait()
    (left,) = (tmp_path / "aside").iterdir()
    assert list(left.iterdir())
    (tmp_path / "aside" / f"{left.name}-of-another").mkdir()
    (tmp_path / "aside" / "graphprune-thesis").mkdir()
    setting = {**os.environ, "TMPDIR": str(tmp_path / "aside")}
    subprocess.run([sys.executable, "-m", "graphprune", "ops"], env=setting, check=True, stdout=subprocess.DEVNULL)
    found = {p.name for p in (tmp_path / "aside").glob("*graphprune*")}
    assert found == {f"{left.name}-of-another", "graphprune-thesis"}


def test_where_nothing_can_be_locked_it_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(scratch.fcntl, "flock", refuses)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch.scratch():
        (held,) = tmp_path.iterdir()
        with scratch.scratch():
            assert Path(tempfile.gettempdir()).parent == held
        assert held.exists() and tempfile.gettempdir() == str(held)
    assert not list(tmp_path.iterdir()) and tempfile.gettempdir() == str(tmp_path)
