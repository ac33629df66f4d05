"""Models that crash, never end or fill the memory: one line, exit status 2, nothing left, from Python and beside it.

ONNX Runtime 1.23 reads a null pointer where ``Max`` has an input without a name behind its first.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import graphprune
from graphprune.errors import InputError, KilledError
from graphprune.model import Model, apart, limits, load
from graphprune.model.apart import asking, worker
from graphprune.relation import Values
from graphprune.run import owed
from graphprune.run.runtime import run, session

PROC = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked at in /proc")
X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])
_WHOLE = helper.make_tensor_value_info("i", TensorProto.INT64, [])
_GOES_ON = helper.make_tensor_value_info("goes", TensorProto.BOOL, [])
_STILL = helper.make_tensor_value_info("still", TensorProto.BOOL, [])


def _model(nodes: list[NodeProto], **constants: object) -> ModelProto:
    """Two products, which could be pruned, beside what is hostile and makes ``h``."""
    weights: dict[str, object] = {"v": np.ones((8, 16), np.float32), "w": np.ones((16, 4), np.float32), **constants}
    product = [helper.make_node("MatMul", ["x", "v"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    outputs = [ValueInfoProto(name="y"), ValueInfoProto(name="h")]
    graph = helper.make_graph([*product, *nodes], "hostile", [X], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _many() -> list[NodeProto]:
    """2^45, from the values of the input: as many as are at least as large as themselves, and more."""
    return [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Size", ["places"], ["size"]),
        helper.make_node("Mul", ["size", "large"], ["many"]),
    ]


def long_range() -> ModelProto:
    """A Range whose length only the run tells."""
    nodes = [*_many(), helper.make_node("Range", ["zero", "many", "one"], ["h"])]
    return _model(nodes, large=np.int64(1 << 40), zero=np.int64(0), one=np.int64(1))


def _loop(body: list[NodeProto], first: str, kind: int, scanned: bool, **constants: object) -> ModelProto:
    inputs = [_WHOLE, _GOES_ON, helper.make_tensor_value_info("s", kind, None)]
    outputs = [_STILL, ValueInfoProto(name="t"), *([ValueInfoProto(name="u")] if scanned else [])]
    for value in outputs[1:]:
        value.type.tensor_type.elem_type = kind
    nodes = [helper.make_node("Or", ["goes", "goes"], ["still"]), *body]
    inner = helper.make_graph(nodes, "body", inputs, outputs)
    made = ["last", "h"] if scanned else ["h"]
    asked = [helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0), helper.make_node("Greater", ["m", "low"], ["go"])]
    loop = helper.make_node("Loop", ["", "go", first], made, body=inner)
    return _model([*asked, loop], low=np.float32(-1e9), **constants)


def endless() -> ModelProto:
    """A Loop whose condition, which only the run tells, stays true."""
    body = [helper.make_node("Add", ["s", "one"], ["t"])]
    return _loop(body, "zero", TensorProto.INT64, False, zero=np.int64(0), one=np.int64(1))


def growing() -> ModelProto:
    """The same with a scan output, of which there is ever more."""
    body = [helper.make_node("Add", ["s", "one"], ["t"]), helper.make_node("Expand", ["t", "shape"], ["u"])]
    constants = {"zero": np.int64(0), "one": np.int64(1), "shape": np.array([1 << 20])}
    return _loop(body, "zero", TensorProto.INT64, True, **constants)


def doubling() -> ModelProto:
    """A Loop that makes what it carries twice as long each time."""
    body = [helper.make_node("Concat", ["s", "s"], ["t"], axis=0)]
    return _loop(body, "start", TensorProto.FLOAT, False, start=np.ones(1024, np.float32))


def crashing() -> ModelProto:
    """A model at which ONNX Runtime 1.23 crashes."""
    return _model([helper.make_node("Max", ["a", "", ""], ["h"])])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (long_range, "more memory than"),
        (growing, "more memory than"),
        (doubling, "more memory than"),
        (crashing, "ONNX Runtime was ended by SIGSEGV when it ran the model at x=2x8"),
    ],
)
def test_from_python(make: Callable[[], ModelProto], told: str) -> None:
    with limits.memory(400 << 20), pytest.raises(KilledError) as caught:
        graphprune.prune(make(), ratio=0.5)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def _gone(pid: int) -> bool:
    """Whether a process ends within a while."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def _worker_of(pid: int) -> int:
    """The process that runs models for another, once it is there."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for child in children.read_text().split():
            if "apart/worker.py" in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        time.sleep(0.02)
    raise AssertionError("no worker was started")


def test_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    onnx.save(endless(), tmp_path / "m.onnx")
    command = ["prune", "m.onnx", "--ratio", "0.5", "--run-time", "1", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "graphprune", *command], cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "t")},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "graphprune: error: m.onnx: one run at x=2x8 took more than 1 s; --run-time allows more\n"
    assert not {p.name for p in tmp_path.rglob("*")} - {"m.onnx", "t", ".ses"}  # the last is ONNX Runtime's own


@PROC
def test_it_goes_with_the_program(tmp_path: Path) -> None:
    onnx.save(endless(), tmp_path / "m.onnx")
    command = [sys.executable, "-m", "graphprune", "prune", str(tmp_path / "m.onnx"), "--ratio", "0.5"]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = _worker_of(program.pid)
    time.sleep(0.5)
    program.kill()
    program.wait()
    assert _gone(worker)


@PROC
def test_a_kill_is_told_and_the_next_run_works() -> None:
    apart.start()
    killer = threading.Timer(0.5, lambda: os.kill(_worker_of(os.getpid()), signal.SIGKILL))
    feeds = {"x": np.zeros((2, 8), np.float32)}
    apart.ask(_job(_model([helper.make_node("Identity", ["a"], ["h"])]), feeds))  # it is there
    killer.start()
    assert apart.ask(_job(endless(), feeds)).killed == "SIGKILL"
    again = apart.ask(_job(_model([helper.make_node("Identity", ["a"], ["h"])]), feeds))
    assert again.made is not None and [m and m.shape for m in again.made] == [(2, 4), (2, 16)]


def _job(model: ModelProto, feeds: dict[str, Values]) -> apart.Job:
    return apart.Job(model.SerializeToString(), feeds, None, True, 30, 1 << 28)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3).T,
        np.float16(3).reshape(()),
        np.zeros((0, 4), np.float32),
        np.array([["a", "ü"], ["", "\x00 b"]], object),
        np.array([True, False]),
    ],
)
def test_messages_carry_arrays(value: Values) -> None:
    file = io.BytesIO()
    worker.send(file, {"k": [1, "é"]}, [value, value], b"blob")
    file.seek(0)
    head, arrays, blob = worker.receive(file)
    assert (head["k"], blob) == ([1, "é"], b"blob")
    for found in arrays:
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
    with pytest.raises(EOFError):
        worker.receive(file)


def test_a_model_runs_there_once_and_only_where_it_runs_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    owed.settle()  # what other tests have left
    asked = []
    ask = asking.ask
    monkeypatch.setattr(apart, "ask", lambda job: asked.append(job) or ask(job))
    model = load(_model([helper.make_node("Relu", ["y"], ["h"])]))
    graphprune.analyze(model)
    assert not asked
    graphprune.prune(model, ratio=0.5)
    assert len(asked) == 1
    graphprune.prune(model, ratio=0.25)
    assert len(asked) == 1


def test_runs_here_are_stopped_too() -> None:
    late = pytest.raises(InputError, match=r"took more than 0\.5 s; --run-time")
    with session(Model(endless())) as active, limits.run_time(0.05), late:
        run(active, {"x": np.zeros((2, 8), np.float32)})


@PROC
def test_runs_here_leave_memory_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_machine", lambda: 800 << 20)
    much = pytest.raises(InputError, match=r"more memory than the 400 MiB")
    with session(Model(doubling())) as active, limits.memory(1 << 20), much:
        run(active, {"x": np.zeros((2, 8), np.float32)})
    import resource

    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


def test_where_no_process_can_be_started_models_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    apart.stop()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(asking, "_possible", True)
    found = apart.ask(_job(_model([helper.make_node("Identity", ["a"], ["h"])]), {"x": np.ones((2, 8), np.float32)}))
    assert found.made is not None and found.made[0] is not None
    np.testing.assert_array_equal(found.made[0].value, np.full((2, 4), 128))
