"""What long jobs keep may be damaged, the disk full: they begin again, or stop as a whole with what was kept intact."""

from __future__ import annotations

import errno
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.errors import InputError
from graphprune.model import paths
from graphprune.passes.distill import checkpoint
from graphprune.passes.kept import Kept
from graphprune.passes.study.tasks import Place
from graphprune.progress import Progress
from graphprune.run.shelf import Shelf
from models.small import residual
from tests.passes.test_distill import StoppedError, after, distilled, plain, worse

TEACHER = plain()
STUDENT = worse(TEACHER)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may become larger: what a full disk does, of which the limit of a user is one kind."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole() -> bytes:
    return trained(None)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a training that was interrupted."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    with pytest.raises(StoppedError):
        distilled(STUDENT, TEACHER, checkpoint=tmp_path / "kept", progress=after(10))
    return tmp_path / "kept"


def trained(kept: Path | None, progress: Progress | None = None, told: str = "") -> bytes:
    result = distilled(STUDENT, TEACHER, checkpoint=kept, progress=progress)
    assert any("was damaged: the training began again" in note for note in result.notes) == bool(told)
    proto = result.proto
    del proto.metadata_props[:]  # which name the checkpoint
    return proto.SerializeToString(deterministic=True)


@pytest.mark.parametrize("damage", ["cut", "turned", "zeros", "zeros from here on", "nothing"])
def test_a_damaged_checkpoint_begins_again(damage: str, kept: Path, whole: bytes) -> None:
    held = kept.read_bytes()
    at = random.Random(damage).randrange(100, len(held))
    parts = {
        "cut": held[:at],
        "turned": held[:200] + bytes(b ^ 1 for b in held[200:]),
        "zeros": bytes(len(held)),
        "zeros from here on": held[:at] + bytes(len(held) - at),
        "nothing": b"",
    }
    kept.write_bytes(parts[damage])
    assert trained(kept, told="damaged") == whole, f"at {at} of {len(held)}"
    assert not list(kept.parent.iterdir())


def test_a_checkpoint_of_another_version_is_not_written_over(kept: Path) -> None:
    held = kept.read_bytes().replace(b"graphprune-checkpoint-1", b"graphprune-checkpoint-2")
    kept.write_bytes(held)
    with pytest.raises(InputError, match="is no checkpoint of a training; remove it"):
        trained(kept)
    assert kept.read_bytes() == held


def test_a_training_that_has_no_room_stops_with_its_checkpoint(kept: Path, whole: bytes) -> None:
    before = kept.read_bytes()
    with room(1000), pytest.raises(InputError, match=r"kept: the training cannot be kept \(File too large\)"):
        trained(kept)
    assert kept.read_bytes() == before and [*kept.parent.iterdir()] == [kept]
    assert trained(kept) == whole and not kept.exists()


def test_a_training_is_kept_until_its_result_is_written(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> tuple[int, Path]:
        raise InputError(f"{path}: cannot be written (No space left on device)")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left"):
        patch.setattr(paths, "waiting", full)
        distilled(STUDENT, TEACHER, tmp_path / "o.onnx", checkpoint=kept)
    assert kept.exists()
    distilled(STUDENT, TEACHER, tmp_path / "o.onnx", checkpoint=kept)
    assert {p.name for p in tmp_path.iterdir()} == {"o.onnx", "o.plan.json"}


def test_no_damage_of_an_entry_is_an_error(tmp_path: Path) -> None:
    """Neither of an entry of ``--resume``, nor of a result of ``--folder``."""
    entries, place, task = Kept(tmp_path, "job"), Place(tmp_path, "study"), {"task": "some"}
    entries.write({"a": np.arange(9), "b": np.eye(3)}, "part")
    place.write(task, {"score": 0.5})
    drawn = random.Random(0)
    for path in list(tmp_path.iterdir()):
        held = path.read_bytes()
        other = [b"", b"\0" * len(held), b"[" * 10000, b"\xff" * 99, b"PK\x03\x04" + held, b"null", b"[]"]
        other += [held[: drawn.randrange(len(held))] for _ in range(20)]
        for body in (b"", b"PK\x03\x04", b"\x93NUMPY", b"other"):
            other.append(sha256(body).digest() + body)  # whole, and not what was written
        for data in other:
            path.write_bytes(data)
            assert entries.read("part") is None or path.suffix != ".part", data[:99]
            assert place.read(task) is None or path.suffix != ".json", data[:99]
        path.write_bytes(held)
    found = entries.read("part")
    assert found is not None and place.read(task) == {"score": 0.5}


def test_a_job_that_has_no_room_stops_with_its_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).random((32, 3, 8, 8), np.float32))
    onnx.save(residual(), tmp_path / "m.onnx")
    given = {"ratio": 0.4, "align": 1, "calibration": tmp_path / "in.npz"}

    def made(name: str, resume: Path | None) -> bytes:
        graphprune.prune(tmp_path / "m.onnx", tmp_path / name, resume=resume, **given)
        return (tmp_path / name).read_bytes()

    wanted = made("o.onnx", None)
    before = {p.name for p in tmp_path.iterdir()}
    made("o.onnx", tmp_path / "all")
    sizes = [p.stat().st_size for p in (tmp_path / "all").iterdir()]
    with room(max(sizes) - 1), pytest.raises(InputError, match=r"kept: cannot be written \(File too large\)"):
        made("p.onnx", tmp_path / "kept")
    assert {p.name for p in tmp_path.iterdir()} == before | {"all", "kept"}
    parts = {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}
    assert 0 < len(parts) < len(sizes) and all(name.endswith(".part") for name in parts)
    assert made("p.onnx", tmp_path / "kept") == wanted
    assert parts.items() < {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}.items()


def test_what_is_put_aside_and_has_no_room_says_why(tmp_path: Path) -> None:
    with room(1000), pytest.raises(OSError) as raised:
        Shelf(tmp_path, memory=0).put(0, {"a": np.zeros(9999)})
    assert raised.value.errno == errno.EFBIG


WORKER = """
import os, sys, time
from graphprune.passes.study import tasks
if os.fork():
    time.sleep(60)
tasks._alone(lambda task: print("at work", flush=True) or time.sleep(60), {}, tasks.Asker(os.getppid(), "/tmp"))
"""


def test_a_worker_ends_with_whoever_asked_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.read()  # which ends when nobody holds it open any more
