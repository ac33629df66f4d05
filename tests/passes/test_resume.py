"""Jobs that are interrupted go on from what they had finished, and end where they would have ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.errors import InputError
from graphprune.passes import budget
from graphprune.passes.choose import criteria, sensitivity
from graphprune.passes.fit import paired
from graphprune.passes.kept import Kept
from graphprune.passes.sparse.sparse import Request
from graphprune.passes.sparse.targets import Scope
from models.small import residual

SIZES = (32, 3, 8, 8)
SPARSE = Request("unstructured", amount=0.5, scope=Scope(also=["*"]))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal(SIZES, dtype=np.float32))
    onnx.save(residual(), tmp_path / "m.onnx")
    return tmp_path / "in.npz"


def made(inputs: Path, resume: Path | None, **options: Any) -> bytes:
    given = {"ratio": 0.4, "align": 1, "calibration": inputs, "resume": resume, **options}
    graphprune.prune(inputs.parent / "m.onnx", inputs.parent / "out.onnx", **given)
    return (inputs.parent / "out.onnx").read_bytes()


def test_what_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((16, 1, 8, 8), dtype=np.float32)
    model = models.trained("digits-transformer")
    np.savez(tmp_path / "in.npz", **{onnx.load(model).graph.input[0].name: images})
    command = [sys.executable, "-m", "graphprune", "prune", str(model), "--ratio", "0.3", "--uniform", "--no-proof"]
    command += ["--calibration", str(tmp_path / "in.npz"), "-o", str(tmp_path / "a.onnx"), "--force", "-q"]
    job = subprocess.Popen([*command, "--resume", str(tmp_path / "kept")])
    until = time.monotonic() + 120
    while len(list((tmp_path / "kept").glob("*.part"))) < 3 and time.monotonic() < until and job.poll() is None:
        time.sleep(0.01)
    assert job.poll() is None, "it was over before it was killed"
    job.kill()
    job.wait()
    before = {p.name for p in (tmp_path / "kept").glob("*.part")}
    assert len(before) >= 3 and not (tmp_path / "a.onnx").exists()
    subprocess.run([*command, "--resume", str(tmp_path / "kept")], check=True)
    resumed = (tmp_path / "a.onnx").read_bytes()
    subprocess.run(command, check=True)
    assert resumed == (tmp_path / "a.onnx").read_bytes()
    assert before < {p.name for p in (tmp_path / "kept").glob("*.part")}


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"time": "1h"}, {"sparsity": SPARSE}])
def test_finished_parts_are_not_done_again(
    options: dict[str, Any], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(inputs, tmp_path / "kept", **options)
    count = len(list((tmp_path / "kept").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(criteria, "rank", None)
        patch.setattr(sensitivity, "weigh", None)
        patch.setattr(paired.Pair, "sums", None)
        patch.setattr(budget, "measure", None)
        assert made(inputs, tmp_path / "kept", **options) == first
    if "time" not in options:
        assert made(inputs, None, **options) == first
    made(inputs, tmp_path / "kept", seed=1, **options)
    assert len(list((tmp_path / "kept").iterdir())) == 2 * count, "another seed is another job"


def test_rounds_that_are_killed_go_on_in_the_midst(inputs: Path, tmp_path: Path) -> None:
    first = made(inputs, tmp_path / "kept", steps=2)
    entries = sorted((tmp_path / "kept").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for stop in (len(entries) // 4, 3 * len(entries) // 4):  # in the first round's fit, and in the second's
        for entry in entries[stop:]:
            entry.unlink()
        assert made(inputs, tmp_path / "kept", steps=2) == first
    assert sorted((tmp_path / "kept").iterdir()) == sorted(entries)


def test_another_input_or_weight_is_another_job(inputs: Path, tmp_path: Path) -> None:
    made(inputs, tmp_path / "kept")
    count = len(list((tmp_path / "kept").iterdir()))
    changed = np.load(inputs)["x"]
    changed[-1, -1, -1, -1] += 1
    np.savez(inputs, x=changed)
    made(inputs, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2 * count


@pytest.mark.parametrize("damage", ["cut", "turned", "empty"])
def test_damaged_entries_are_made_again(damage: str, inputs: Path, tmp_path: Path) -> None:
    first = made(inputs, tmp_path / "kept")
    for entry in (tmp_path / "kept").iterdir():
        held = bytearray(entry.read_bytes())
        held[len(held) // 2] ^= 1
        entry.write_bytes({"cut": bytes(held[: len(held) // 2]), "turned": bytes(held), "empty": b""}[damage])
    assert made(inputs, tmp_path / "kept") == first
    kept = {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}
    assert made(inputs, tmp_path / "kept") == first
    assert kept == {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}, "they were good again"


def test_entries_come_back_as_they_were(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new" / "folder", "job").on("fit", 0.5)
    arrays = {"a/b": np.eye(3, dtype=np.float16), "words": np.asarray(["x", "yy"]), "file": np.arange(2)}
    assert kept.read("wave", 1) is None
    kept.write(arrays, "wave", 1)
    found = kept.read("wave", 1)
    assert found is not None and all(np.array_equal(found[n], v) for n, v in arrays.items())
    assert kept.read("wave", 2) is None and Kept(tmp_path / "new" / "folder", "other").read("wave", 1) is None


def test_a_folder_that_cannot_be_written_is_told(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"--resume .*taken: cannot be written"):
        made(inputs, tmp_path / "taken")
