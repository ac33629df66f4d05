"""Whether TensorRT takes a model: it is parsed and built in a process of its own, by Polygraphy.

TensorRT for RTX compiles ahead of time for given compute capabilities on a machine without a GPU; the full TensorRT
builds for the GPU that is there. Parser and builder are native code that may crash, hang or fill the memory, so they
run in a child process with limits: whatever happens to it is a result. ``python -m graphprune.trt`` is that child.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphprune.errors import BackendError
from graphprune.relation import Shape

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
        seconds: time taken by parser and builder.
        peak_bytes: largest resident size of the child process.
    """

    backend: str
    built: bool
    message: str = ""
    node: str | None = None
    layers: int | None = None
    engine_bytes: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def backend() -> str:
    """The package that builds here: the full TensorRT where a GPU is at hand, else TensorRT for RTX.

    Raises:
        BackendError: neither is installed.
    """
    if find_spec("tensorrt") and Path("/dev/nvidiactl").exists():
        return "tensorrt"
    if find_spec("tensorrt_rtx"):
        return "tensorrt-rtx"
    raise BackendError("TensorRT is not installed; 'pip install graphprune[trt]' brings TensorRT for RTX")


def build(
    path: Path,
    profile: Profile,
    capabilities: Sequence[tuple[int, int]] = CAPABILITIES,
    *,
    timeout: float = 600,
    memory: int = 12 << 30,
) -> Build:
    """Parse and build a model.

    Args:
        path: the model.
        profile: shapes that the engine must take.
        capabilities: what TensorRT for RTX compiles for where there is no GPU.
        timeout: seconds after which the child is stopped.
        memory: bytes of data that the child may hold.

    Raises:
        BackendError: TensorRT is not installed.
    """
    chosen = backend()
    job = {
        "path": str(path.resolve()),
        "profile": {n: [list(s) for s in shapes] for n, shapes in profile.items()},
        "capabilities": [list(c) for c in capabilities],
        "backend": chosen,
        "memory": memory,
    }
    command = [sys.executable, "-m", "graphprune.trt"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return Build(chosen, False, f"the builder was stopped after {timeout:g} s")
    answers = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if answers:
        return Build(chosen, **json.loads(answers[-1].removeprefix(_MARK)))
    log = done.stdout + done.stderr
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Build(chosen, False, f"the builder crashed ({name}); {_complaint(log)}".rstrip("; "), _node(log))
    return Build(chosen, False, _complaint(log) or f"the builder ended with status {done.returncode}", _node(log))


_MARK = "graphprune-trt:"


def _complaint(log: str) -> str:
    """The first error line of a log."""
    found = [line.strip() for line in log.splitlines() if re.search(r"\[E\]|\[!\]|Error", line)]
    return re.sub(r"\x1b\[[0-9;]*m", "", found[0])[:400] if found else ""


def _node(log: str) -> str | None:
    """The node that the parser complains about."""
    found = re.search(r"(?:node \d+ with name|[Nn]ode name|node_name|node): ?\"?([^\s\",\]]+)", log)
    return found[1] if found else None


def _child() -> None:
    """Build what standard input asks for, and print what came of it."""
    import resource

    job = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
    rtx = job["backend"] == "tensorrt-rtx"
    if rtx:
        os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    from polygraphy.backend import trt
    from polygraphy.backend.trt import Profile as Shapes

    shapes = Shapes()
    for name, (low, usual, high) in job["profile"].items():
        shapes.add(name, tuple(low), tuple(usual), tuple(high))
    start = time.perf_counter()
    network = trt.network_from_onnx_path(job["path"])
    layers = network[1].num_layers
    if rtx:
        from polygraphy.backend.tensorrt_rtx.config import CreateConfigRTX

        capabilities = [tuple(c) for c in job["capabilities"]]
        config = CreateConfigRTX(profiles=[shapes], compute_capabilities=capabilities)
    else:
        config = trt.CreateConfig(profiles=[shapes])
    engine = trt.engine_bytes_from_network(network, config=config)
    answer = {
        "built": True,
        "layers": layers,
        "engine_bytes": engine.nbytes,
        "seconds": time.perf_counter() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(_MARK + json.dumps(answer))


if __name__ == "__main__":
    _child()
