"""No file runs code but a recipe that names a function, and what is named on the command line.

Each payload would make a file ``run`` in the working folder: by ``evil.py``, which lies there and can be imported, or
by a shell. The last test shows that it does where somebody asks for it, so that the others mean something.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from graphprune.cli import boundary
from models.small import Net

_ASKED = "__import__('os').system('touch run')"
_EVIL = "import pathlib\npathlib.Path('run').touch()\ndef function(*given, **more):\n    return None\n"


class _Reduced:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('run').touch()",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text(_EVIL)
    net = Net()
    x = net.op("Relu", net.conv(net.input("x", ["batch", 3, 16, 16]), 3, 16))
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", net.conv(x, 16, 16))))
    onnx.save(net.model(net.linear(x, 16, 4)), "model.onnx")
    np.savez("inputs.npz", x=np.ones((8, 3, 16, 16), np.float32))
    yield
    sys.modules.pop("evil", None)


def _run(*words: str) -> int:
    return boundary.run([*words, "-q"])


def _pickled() -> bytes:
    """A ``.npy`` file of objects."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return file.getvalue() + pickle.dumps(_Reduced())


def _metadata() -> int:
    """A model that says how its inputs are read, as Ultralytics does, and its names in Python."""
    model = onnx.load("model.onnx")
    helper.set_model_props(model, {"names": _ASKED, "imgsz": _ASKED, "stride": _ASKED, "task": "evil:function"})
    model.producer_name, model.graph.node[0].name = "evil:function", f"{{{{{_ASKED}}}}}"
    onnx.save(model, "model.onnx")
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--report", "page.html")


def _domain() -> int:
    """A model whose operators are of a library, or of a module of Python."""
    model = onnx.load("model.onnx")
    model.graph.node[1].domain = "evil:function"
    model.opset_import.append(helper.make_opsetid("evil:function", 1))
    return _saved(model)


def _saved(model: onnx.ModelProto) -> int:
    onnx.save(model, "model.onnx")
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3")


def _plan() -> int:
    """A plan that names a function wherever a text stands."""
    assert _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3") == 0
    plan = json.loads(Path("small.plan.json").read_text())

    def named(data: Any) -> Any:
        if isinstance(data, dict):
            return {k: v if k == "format" else named(v) for k, v in data.items()} | {"use": "evil:function"}
        return (
            [named(v) for v in data] if isinstance(data, list) else "evil:function" if isinstance(data, str) else data
        )

    Path("evil.json").write_text(json.dumps(named(plan)))
    return _run("apply", "evil.json", "model.onnx", "-o", "again.onnx")


def _inputs() -> int:
    with zipfile.ZipFile("inputs.npz", "w") as archive:
        archive.writestr("x.npy", _pickled())
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--calibration", "inputs.npz")


def _array() -> int:
    Path("inputs").mkdir()
    Path("inputs/0.npy").write_bytes(_pickled())
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--calibration", "inputs")


def _yaml() -> int:
    """Settings of PaddleOCR beside the model."""
    Path("inference.yml").write_text('PreProcess: !!python/object/apply:os.system ["touch run"]\n')
    return _run(
        "prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--calibration", "inputs.npz",
        "--preprocess", "inference.yml",
    )  # fmt: skip


def _settings() -> int:
    settings = {"auto_map": {"AutoImageProcessor": "evil.function"}, "image_processor_type": "evil:function"}
    Path("preprocessor_config.json").write_text(json.dumps(settings))
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--calibration", "inputs.npz")


def _steer() -> int:
    Path("steer.toml").write_text('[[steer]]\nuse = "evil:function"\nmatch = "evil:function"\n')
    return _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--steer", "steer.toml")


def _checkpoint() -> int:
    """A folder of a job that goes on, each of whose files is a pickle."""
    words = ("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3", "--calibration", "inputs.npz")
    assert _run(*words, "--resume", "kept") == 0
    files = [path for path in Path("kept").rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(_pickled() if path.suffix == ".npy" else pickle.dumps(_Reduced()))
    return _run(*words, "--force", "--resume", "kept")


def _state_dict() -> int:
    pytest.importorskip("torch")
    assert _run("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3") == 0
    Path("weights.bin").write_bytes(pickle.dumps({"weight": _Reduced()}))
    return _run("state-dict", "small.plan.json", "weights.bin", "-o", "small.safetensors", "--model", "model.onnx")


PAYLOADS: dict[Callable[[], int], set[int]] = {
    _metadata: {0},
    _domain: {0, 2},
    _plan: {2},
    _inputs: {2},
    _array: {2},
    _yaml: {2},
    _settings: {0},
    _steer: {2},
    _checkpoint: {0},
    _state_dict: {2},
}
"""Payloads, and how the command may end: what is no data is an error, and what is text is text."""


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda p: p.__name__.strip("_"))
def test_files_run_nothing(payload: Callable[[], int], capfd: pytest.CaptureFixture[str]) -> None:
    status = payload()
    assert not Path("run").exists()
    assert status in PAYLOADS[payload], capfd.readouterr().err


def test_what_is_asked_for_runs() -> None:
    """The same function, named on the command line, and in a recipe."""
    words = ("prune", "model.onnx", "-o", "small.onnx", "--ratio", "0.3")
    _run(*words, "--calibration", "evil:function")
    assert Path("run").exists()
    Path("run").unlink()
    del sys.modules["evil"]
    Path("recipe.toml").write_text('format = "graphprune-recipe/1"\n[[passes]]\nuse = "evil:function"\n')
    _run("run", "recipe.toml", "model.onnx", "-o", "small.onnx")
    assert Path("run").exists()
    Path("run").unlink()
    pickle.loads(pickle.dumps(_Reduced()))
    assert Path("run").exists()
