"""The process in which TensorRT parses, builds, runs and times: ``python -m graphprune.verdict.trt_child`` with a job
as JSON on standard input. Everything that it says goes to its log; the answer is the line that starts with
:data:`MARK`.

Loaders, configuration and runner are Polygraphy's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.run import arrays
from graphprune.verdict.memory import limit, peak

MARK = "graphprune-trt:"


def interleave(runs: Sequence[Callable[[], object]], rounds: int, warmup: int) -> list[list[float]]:
    """Seconds of every run in every round; the order within a round turns, so that none is always first."""
    times = []
    for number in range(-warmup, rounds):
        row = [0.0] * len(runs)
        for k in range(len(runs)):
            which = (k + number) % len(runs)
            start = time.perf_counter()
            runs[which]()
            row[which] = time.perf_counter() - start
        if number >= 0:
            times.append(row)
    return times


class _Builder:
    """One backend, the full TensorRT or TensorRT for RTX, and what is asked of it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.rtx = job["backend"] == "tensorrt-rtx"
        if self.rtx:
            os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"  # read when polygraphy is imported
        from polygraphy.backend import trt
        from polygraphy.logger import G_LOGGER

        G_LOGGER.module_severity = G_LOGGER.ULTRA_VERBOSE  # the builder's own account of layers, memory and sparsity
        self.trt = trt
        self.profile = trt.Profile()
        for name, (low, usual, high) in job["profile"].items():
            self.profile.add(name, tuple(low), tuple(usual), tuple(high))
        self.sparse = bool(job["sparse"])
        self.capabilities = [tuple(c) for c in job["capabilities"]]
        self.gpu = bool(job["gpu"])

    def build(self, path: str) -> tuple[Any, dict[str, Any]]:
        """The engine's bytes, and what is known of it."""
        start = time.perf_counter()
        network = self.trt.network_from_onnx_path(path)
        layers = network[1].num_layers
        settings: dict[str, Any] = {"profiles": [self.profile], "sparse_weights": self.sparse}
        if self.rtx:
            from polygraphy.backend.tensorrt_rtx.config import CreateConfigRTX

            # what is built for the GPU at hand may use all of it; elsewhere the targets are named
            targets = None if self.gpu else self.capabilities
            config = CreateConfigRTX(compute_capabilities=targets, **settings)
        else:
            import tensorrt

            config = self.trt.CreateConfig(profiling_verbosity=tensorrt.ProfilingVerbosity.DETAILED, **settings)
        engine = self.trt.engine_bytes_from_network(network, config=config)
        return engine, {
            "layers": layers,
            "engine_bytes": engine.nbytes,
            "seconds": time.perf_counter() - start,
        }

    def load(self, engine: Any) -> Any:
        """The engine on the GPU."""
        return self.trt.engine_from_bytes(engine)

    def inspect(self, engine: Any) -> dict[str, Any]:
        """The engine inspector's account of an engine's layers."""
        if self.rtx:
            import tensorrt_rtx as package
        else:
            import tensorrt as package
        told = engine.create_engine_inspector().get_engine_information(package.LayerInformationFormat.JSON)
        found: dict[str, Any] = json.loads(told)
        return found


def _run(builder: _Builder, engines: list[Any], job: dict[str, Any]) -> list[list[float]]:
    """Run every engine on every set of inputs, keep the outputs, time them on the first set."""
    folder = Path(job["folder"])
    with ExitStack() as stack:
        runners = [stack.enter_context(builder.trt.TrtRunner(engine)) for engine in engines]
        for number in range(job["feeds"]):
            feeds = arrays.read(folder / f"in{number}.npz")
            for which, runner in enumerate(runners):
                outputs = runner.infer(feed_dict=feeds)
                arrays.write(folder / f"out{which}-{number}.npz", {k: np.asarray(v) for k, v in outputs.items()})
        first = arrays.read(folder / "in0.npz")
        runs = [lambda runner=runner: runner.infer(feed_dict=first, check_inputs=False) for runner in runners]
        return interleave(runs, job["rounds"], job["warmup"])


def main() -> None:
    """Do what standard input asks for, and print what came of it."""
    job = json.load(sys.stdin)
    if not job["gpu"]:  # a GPU driver reserves more address space than any limit that would be of use
        limit(job["memory"])
    builder = _Builder(job)
    answer: dict[str, Any] = {"models": []}
    engines = []
    for path in job["paths"]:
        engine, found = builder.build(path)
        if job["gpu"]:
            engines.append(builder.load(engine))
            found["inspected"] = builder.inspect(engines[-1])
        del engine
        answer["models"].append(found)
    if job["gpu"] and job["feeds"]:
        answer["times"] = _run(builder, engines, job)
    answer["peak_bytes"] = peak()
    print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
