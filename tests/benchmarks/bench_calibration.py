"""What calibration costs, in forward passes: ``python tests/benchmarks/bench_calibration.py [MODEL ...]``.

A forward pass is one of all calibration inputs in ONNX Runtime with all of its optimisations, on the same cores, eight
samples in a run. Each model is measured in a process of its own, the forward pass and ``prune --ratio 0.3`` in the same
one; phases apart. Time is told twice: by the clock, and as time of processors (user and system). On a machine that
others use, only the second says something, and only where threads do not wait for each other: there pin the benchmark
to one core (``taskset -c 0``). Weights are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.progress import Progress  # noqa: E402
from graphprune.verdict import memory  # noqa: E402

MODELS = ("resnet50-ts", "bert-base-ts", "detector-ts")
BATCH = 8
Times = tuple[float, float]
"""By the clock, and of processors."""


def inputs(name: str, samples: int) -> dict[str, np.ndarray]:
    """Made-up inputs of a model."""
    rng = np.random.default_rng(0)
    match name:
        case "resnet50-ts":
            return {"pixel_values": rng.standard_normal((samples, 3, 224, 224), dtype=np.float32)}
        case "bert-base-ts":
            ids = rng.integers(0, 1000, (samples, 128))
            return {"input_ids": ids, "attention_mask": np.ones((samples, 128), np.int64)}
        case "detector-ts":
            return {"x": rng.standard_normal((samples, 3, 640, 640), dtype=np.float32)}
    raise LookupError(f"no inputs are known for {name!r}; there are {', '.join(MODELS)}")


def now() -> Times:
    """The time now."""
    return time.perf_counter(), time.process_time()


def since(then: Times) -> Times:
    """Time gone since then."""
    return time.perf_counter() - then[0], time.process_time() - then[1]


def forward(proto: Any, feeds: dict[str, np.ndarray], samples: int) -> Times:
    """One pass of all inputs, after a run that warms up; threads do not spin while they wait."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {n: v[:BATCH] for n, v in feeds.items()})
    then = now()
    for start in range(0, samples, BATCH):
        session.run(None, {n: v[start : start + BATCH] for n, v in feeds.items()})
    return since(then)


def measure(name: str, samples: int, uniform: bool) -> dict[str, Any]:
    """A forward pass, and every phase of a calibrated job."""
    feeds, proto = inputs(name, samples), models.export(name)
    one = forward(proto, feeds, samples)
    phases: dict[str, Times] = {}
    state: list[Any] = ["", now()]

    def watch(progress: Progress) -> None:
        if progress.phase != state[0]:
            phases[state[0]] = since(state[1])
            state[:] = progress.phase, now()

    then = now()
    graphprune.prune(proto, ratio=0.3, calibration=feeds, uniform=uniform, progress=Progress(watch))
    whole = since(then)
    phases[state[0]] = since(state[1])
    phases.pop("")
    return {"forward": one, "whole": whole, "phases": phases, "peak": memory.peak()}


def main(names: list[str], samples: int, uniform: bool) -> None:
    """A row for each model and phase."""
    table = Table(box=None, pad_edge=False, title=f"{samples} samples")
    table.add_column("")
    for head in ("s", "CPU s", "forward passes", "by CPU"):
        table.add_column(head, justify="right")
    for name in names or MODELS:
        command = [sys.executable, __file__, "--alone", name, "--samples", str(samples)]
        command += ["--uniform"] * uniform
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        one = found["forward"]
        peak = f" ({found['peak'] / 1e9:.1f} GB)" if found["peak"] else ""
        for label, times in [
            (f"{name}, one forward pass", one),
            *((f"    {phase}", times) for phase, times in found["phases"].items()),
            (f"{name}, prune{peak}", found["whole"]),
        ]:
            table.add_row(
                label, *(f"{t:.1f}" for t in times), *(f"{t / o:.1f}" for t, o in zip(times, one, strict=True))
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--uniform", action="store_true", help="groups are not weighed one by one")
    parser.add_argument("--alone", metavar="MODEL", help="measure this one here, and print it as JSON")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(measure(given.alone, given.samples, given.uniform)))
    else:
        main(given.models, given.samples, given.uniform)
