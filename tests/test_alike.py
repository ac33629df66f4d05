"""The same input, options and seed give the same bytes: threads, cores, hashes, places and words change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphprune.run import threads
from models.small import Net
from tests.run_alike import JOBS

ROOT = Path(__file__).parents[1]
WIDE = 320
"""OpenBLAS rounds otherwise with more than one thread: factors from 128 on, eigenvectors from 256."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PLACES = {
    "one": (1, {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "COLUMNS": "80", **dict.fromkeys(THREADS, "1")}),
    "der zweite ü": (
        64,
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "COLUMNS": "40", "PYTHONUTF8": "1",
         "NO_COLOR": "1", **dict.fromkeys(THREADS, "6")},
    ),
}  # fmt: skip
"""By the name of the folder that a process works in: how many cores it has at most, and its environment."""


def sensitive() -> onnx.ModelProto:
    """Attention and a feed-forward part, in operators that ONNX Runtime rounds by its number of threads."""
    net = Net(3)
    x = net.input("x", ["batch", 33, 40])
    stream = net.linear(x, 40, 40)
    y = net.linear(net.op("LayerNormalization", stream, net.weight(40), net.weight(40)), 40, 160)
    y = net.linear(net.op("Mul", y, net.op("Tanh", net.op("Softplus", y))), 160, 40)
    stream = net.op("Add", stream, y)
    y = net.op("LayerNormalization", stream, net.weight(40), net.weight(40))
    q, k, v = (net.linear(y, 40, 24) for _ in range(3))
    seen = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    stream = net.op("Add", stream, net.linear(net.op("MatMul", seen, v), 24, 40))
    y = net.op("LayerNormalization", stream, net.weight(40), net.weight(40))
    return net.model(net.linear(net.op("ReduceMean", y, axes=[1], keepdims=0), 40, 5))


def wide() -> onnx.ModelProto:
    """Products of so many features that BLAS rounds by its threads; seen on few samples, so that a last bit grows."""
    net = Net(5)
    y = net.input("x", ["batch", WIDE])
    for _ in range(2):
        y = net.op("Relu", net.linear(y, WIDE, WIDE))
    return net.model(net.linear(y, WIDE, 5))


def still(data: Any, folder: str) -> Any:
    """What JSON says, without times and without where it lies."""
    if isinstance(data, dict):
        return {k: still(v, folder) for k, v in data.items() if k != "seconds"}
    if isinstance(data, list):
        return [still(v, folder) for v in data]
    return data.replace(folder, "") if isinstance(data, str) else data


def made(folder: Path) -> dict[str, object]:
    """What all files hold, by job and name; of JSON of results what is left without times and places."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.name == "p.json":
            found[name] = still(json.loads(path.read_text()), str(folder))
        else:
            found[name] = path.read_bytes()
    return found


def test_the_same_bytes_whatever_else_differs(tmp_path: Path) -> None:
    rng, results = np.random.default_rng(0), []
    given = {
        name: (model, rng.standard_normal(shape).astype(np.float32))
        for name, model, shape in (("sensitive", sensitive(), (16, 33, 40)), ("wide", wide(), (48, WIDE)))
    }
    for place, (cores, environment) in PLACES.items():
        folder = tmp_path / place
        folder.mkdir()
        for name, (model, samples) in given.items():
            onnx.save(model, folder / f"{name}.onnx")
            np.savez(folder / f"{name}.npz", x=samples)
        subprocess.run(
            [sys.executable, "-m", "tests.run_alike", "out", str(cores)],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, check=True,
        )  # fmt: skip
        results.append(made(folder / "out"))
    one, other = results
    assert one.pop("threads.json") == other.pop("threads.json") == json.dumps([threads.SESSION]).encode()
    assert {Path(name).parts[0] for name in one} == set(JOBS) and len(one) >= 4 * len(JOBS)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
