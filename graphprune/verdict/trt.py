"""Whether TensorRT takes a model, what it makes of it, and on a GPU how it runs.

TensorRT for RTX compiles ahead of time for given compute capabilities on a machine without a GPU; the full TensorRT
builds for the GPU that is there. Parser and builder are native code that may crash, hang or fill the memory, so they
work in a child process with limits (``graphprune.verdict.trt_child``): whatever happens to it is a result.
"""

from __future__ import annotations

import ctypes
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphprune.errors import BackendError
from graphprune.relation import Shape, Values
from graphprune.run import arrays
from graphprune.run.runtime import Feeds
from graphprune.verdict import kernels
from graphprune.verdict.kernels import Kernel
from graphprune.verdict.trt_child import MARK

CAPABILITIES = ((8, 6), (8, 9))
"""Compute capabilities that are built for where none are named: the RTX cards of the 30 and 40 series."""

Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""For each input its smallest, usual and largest shape."""


@dataclass
class Build:
    """What came of a build.

    Attributes:
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        built: whether there is an engine.
        message: what went wrong, in one line.
        node: the node that the parser names, where it names one.
        layers: layers of the parsed network.
        engine_bytes: size of the engine.
        weights_bytes, activation_bytes: what the engine holds of each, as the builder tells.
        seconds: time taken by parser and builder.
        peak_bytes: largest resident size of the child process, over all models that it built.
        kernels: compiled layers.
        sparsity: names of layers that the builder called ``eligible`` for sparse tactics and ``picked`` one for.
        outputs: on a GPU, the engine's outputs for each set of inputs.
    """

    backend: str
    built: bool
    message: str = ""
    node: str | None = None
    layers: int | None = None
    engine_bytes: int | None = None
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    kernels: list[Kernel] = field(default_factory=list)
    sparsity: dict[str, list[str]] = field(default_factory=dict)
    outputs: list[dict[str, Values]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data: kernels are counted, outputs left out."""
        left_out = ("kernels", "sparsity", "outputs")
        data = {k: v for k, v in vars(self).items() if v is not None and k not in left_out}
        if self.kernels:
            data["kernels"] = kernels.by_type(self.kernels)
        if self.sparsity:
            data["sparsity"] = self.sparsity
        return data


@dataclass
class Job:
    """What a child is to do with one or more models.

    Attributes:
        profile: shapes that the engines must take.
        capabilities: what TensorRT for RTX compiles for where there is no GPU.
        sparse: whether 2:4 weights may get sparse tactics.
        timeout: seconds after which the child is stopped.
        memory: bytes of data that the child may hold, where it compiles without a GPU.
        feeds: sets of inputs to run on, where there is a GPU.
        rounds, warmup: of timing on the first set, where there is a GPU.
    """

    profile: Profile
    capabilities: Sequence[tuple[int, int]] = CAPABILITIES
    sparse: bool = True
    timeout: float = 600
    memory: int = 12 << 30
    feeds: Sequence[Feeds] = ()
    rounds: int = 0
    warmup: int = 0


@cache
def gpu() -> bool:
    """Whether the CUDA driver finds a device."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def backend() -> str:
    """The package that builds here: the full TensorRT where a GPU is at hand, else TensorRT for RTX.

    Raises:
        BackendError: neither is installed, or only the one that needs a GPU, and there is none.
    """
    if find_spec("tensorrt") and gpu():
        return "tensorrt"
    if find_spec("tensorrt_rtx"):
        return "tensorrt-rtx"
    there = "TensorRT needs a GPU, and there is none" if find_spec("tensorrt") else "TensorRT is not installed"
    raise BackendError(f"{there}; 'pip install graphprune[trt]' brings TensorRT for RTX, which builds without one")


def build(path: Path, job: Job) -> Build:
    """Parse and build a model; where there is a GPU, also run it on the job's inputs.

    Raises:
        BackendError: TensorRT is not installed.
    """
    return build_all([path], job)[0][0]


def build_all(paths: Sequence[Path], job: Job) -> tuple[list[Build], list[list[float]]]:
    """Build models in one process, and time them beside each other where there is a GPU.

    Args:
        paths: the models.
        job: what to do with them.

    Returns:
        A build for each model (where one fails, they all do: the message is that of the first), and the seconds of
        every model in every round, shape ``[rounds, models]``.

    Raises:
        BackendError: TensorRT is not installed.
    """
    chosen = backend()
    with tempfile.TemporaryDirectory() as folder:
        for number, feeds in enumerate(job.feeds):
            arrays.write(Path(folder) / f"in{number}.npz", feeds)
        order = {
            "paths": [str(p.resolve()) for p in paths],
            "profile": {n: [list(s) for s in shapes] for n, shapes in job.profile.items()},
            "capabilities": [list(c) for c in job.capabilities],
            "sparse": job.sparse,
            "backend": chosen,
            "memory": job.memory,
            "gpu": gpu(),
            "folder": folder,
            "feeds": len(job.feeds),
            "rounds": job.rounds,
            "warmup": job.warmup,
        }
        log, status = _child(order, job.timeout)
        answer = next((line for line in reversed(log.splitlines()) if line.startswith(MARK)), None)
        if answer is None:
            failed = Build(chosen, False, _failure(log, status, job.timeout), _node(log))
            return [failed] * len(paths), []
        found = json.loads(answer.removeprefix(MARK))
        builds = [_read(chosen, entry, found["peak_bytes"]) for entry in found["models"]]
        if len(paths) == 1:  # a log of several models would have to be cut apart
            _from_log(builds[0], log)
        if gpu():
            for which, one in enumerate(builds):
                one.outputs = [arrays.read(Path(folder) / f"out{which}-{n}.npz") for n in range(len(job.feeds))]
        return builds, found.get("times", [])


def _child(order: dict[str, Any], timeout: float) -> tuple[str, int | None]:
    """The child's log and exit status, None where it was stopped."""
    command = [sys.executable, "-m", "graphprune.verdict.trt_child"]
    try:
        done = subprocess.run(
            command, input=json.dumps(order), capture_output=True, text=True, timeout=timeout, check=False,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", None
    return done.stdout + done.stderr, done.returncode


def _failure(log: str, status: int | None, timeout: float) -> str:
    if status is None:
        return f"the builder was stopped after {timeout:g} s"
    complaint = _complaint(log)
    if status < 0:
        return f"the builder crashed ({signal.Signals(-status).name}); {complaint}".rstrip("; ")
    return complaint or f"the builder ended with status {status}"


def _read(backend: str, entry: dict[str, Any], peak: int | None) -> Build:
    inspected = entry.pop("inspected", None)
    found = Build(backend, True, peak_bytes=peak, **entry)
    if inspected is not None:
        found.kernels = kernels.from_inspector(inspected)
    return found


def _from_log(build: Build, log: str) -> None:
    build.kernels = build.kernels or kernels.from_log(log)
    told = kernels.memory(log)
    build.weights_bytes, build.activation_bytes = told.get("weights_bytes"), told.get("activation_bytes")
    build.sparsity = kernels.sparsity(log)
    picked = [k.name for k in build.kernels if k.sparse]
    if picked:
        build.sparsity.setdefault("picked", picked)


def _complaint(log: str) -> str:
    """The first error line of a log: the builder's own, else what Python says of it."""
    for pattern in (r"\[E\]|\[!\]", r"\w*Error\b"):
        found = [line.strip() for line in log.splitlines() if re.search(pattern, line)]
        if found:
            return re.sub(r"\x1b\[[0-9;]*m", "", found[0])[:400]
    return ""


def _node(log: str) -> str | None:
    """The node that the parser complains about, or that it was reading when it fell."""
    errors = "\n".join(re.findall(r"^.*(?:\[E\]|\[!\]).*$", log, re.MULTILINE))
    found = re.search(r"(?:node \d+ with name|[Nn]ode name|node_name|node): ?\"?([^\s\",\]]+)", errors)
    if found is None and not errors:
        reading = re.findall(r"Parsing node: (\S+)", log)
        return reading[-1] if reading else None
    return found[1] if found else None
