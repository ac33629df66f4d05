"""Timing of the tasks in a folder, on the device where a model is to run: ``python time_layers.py FOLDER``.

This file needs Python, numpy and onnxruntime, and nothing else: ``graphprune profile MODEL --tasks FOLDER`` puts a copy
of it beside the tasks. Run it again, and it goes on with what has no result yet; ``--shard 1/4`` does every fourth
task, so that processes or devices of one kind can share the work.

On the processor a layer's time is that of its kernels, as ONNX Runtime's own profiler has it. What the runtime puts
around a layer that stands alone, to change the layout of tensors, is not counted: within the whole model neighbours
agree on a layout. On other devices kernels run while the host goes on, so there the layer runs many times between two
synchronisations, with inputs and outputs on the device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

AROUND = ("ReorderInput", "ReorderOutput", "Transpose", "Cast", "MemcpyToHost", "MemcpyFromHost")
"""Kernels that count only where the layer itself has an operator of this type."""
ENTRY = "entry"
"""What the names of nodes begin with that stand in front of a layer and are not part of it."""
CPU = "CPUExecutionProvider"
RUNS, LEAST_RUNS, WARMUP = 200, 5, 2
SECONDS = {"layer": 0.03, "whole": 0.3}
"""How long a task is repeated at a time."""
WHOLES = 4
"""How often in each round the whole model is timed, spread over it: everything else is held against it."""

Told = Callable[[int, int], object]
"""Told how many of how many are done."""
Settings = dict[str, Any]
"""``provider``, ``threads``, ``runtime`` (name and version) and ``device``: results with others do not mix."""


def untold(done: int, total: int) -> None:
    """Nobody wants to know."""


def settings(provider: str, threads: int) -> Settings:
    """How things are timed here."""
    return {"provider": provider, "threads": threads, "runtime": f"onnxruntime {ort.__version__}",
            "device": device(provider)}  # fmt: skip


def device(provider: str) -> str:
    """The device in words."""
    if provider != CPU:
        try:
            asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            pass
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def run_all(
    folder: Path,
    how: Settings,
    shard: tuple[int, int] = (1, 1),
    told: Told = untold,
) -> int:
    """Time all tasks of a folder that have no result yet; each result is written whole.

    Args:
        folder: of the tasks.
        how: the settings.
        shard: ``(i, n)``: every n-th task, from the i-th on.
        told: is told how many results of how many there are.

    Returns:
        How many tasks failed.
    """
    job = json.loads((folder / "tasks.json").read_text())
    (folder / "results").mkdir(exist_ok=True)
    mine = schedule(job)[shard[0] - 1 :: shard[1]]
    failed = set()
    for done, (task, number) in enumerate(mine, 1):
        path = result_path(folder, task, number)
        result = _finished(path, how)
        if result is None:
            result = _timed(folder, task, how, number)
            _write(path, {**result, "settings": how})
        if "error" in result:
            failed.add(task["name"])
        told(done, len(mine))
    return len(failed)


def schedule(job: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Every timing of every task, in order, each with its number among those of the task.

    Rounds go over all tasks in turn, so that what disturbs the device for a while does not fall on one task alone.
    """
    (whole,) = (task for task in job["tasks"] if task["inputs"] is None)
    layers = [task for task in job["tasks"] if task["inputs"] is not None]
    found = []
    for number in range(job["rounds"]):
        for part in range(WHOLES):
            found.append((whole, number * WHOLES + part))
            found += [(t, number) for t in layers[part * len(layers) // WHOLES : (part + 1) * len(layers) // WHOLES]]
    return found


def result_path(folder: Path, task: dict[str, Any], number: int) -> Path:
    """Where a result goes."""
    return folder / "results" / f"{task['name']}.{number}.json"


def _finished(path: Path, how: Settings) -> dict[str, Any] | None:
    """A result with the same settings."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("settings") == how else None


def _write(path: Path, data: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.part")  # always the same, so that what was killed leaves nothing for long
    try:
        beside.write_text(json.dumps(data))
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _timed(folder: Path, task: dict[str, Any], how: Settings, number: int) -> dict[str, Any]:
    try:
        return {"seconds": _seconds(folder, task, how, number)}
    except OSError:  # says nothing of the layer: a full disk
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}


def _seconds(folder: Path, task: dict[str, Any], how: Settings, number: int) -> float:
    whole = task["inputs"] is None  # timed as its users see it, on inputs of its own
    feeds = dict(np.load(folder / f"{task['name']}.npz")) if whole else _feeds(task["inputs"], number)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = how["threads"]
    profiled = how["provider"] == CPU and not whole
    with tempfile.TemporaryDirectory() as scratch:
        options.enable_profiling = profiled
        options.profile_file_prefix = str(Path(scratch) / "profile")
        path = str(folder / f"{task['name']}.onnx")
        session = ort.InferenceSession(path, options, providers=_providers(how["provider"]))
        if how["provider"] != CPU:
            return _on_device(session, feeds, SECONDS["whole" if whole else "layer"])
        times = _repeat(lambda: session.run(None, feeds), SECONDS["whole" if whole else "layer"])
        if whole:
            return undisturbed(times)
        return undisturbed(kernels(Path(session.end_profiling()), task["operators"])[WARMUP:])


def _providers(provider: str) -> list[str]:
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"ONNX Runtime has no {provider} here; there are {', '.join(ort.get_available_providers())}")
    return [provider] if provider == CPU else [provider, CPU]


def _feeds(inputs: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Inputs of a layer: standard normal, true, or 0, which is an index into any table."""
    rng, feeds = np.random.default_rng(seed), {}
    for given in inputs:
        dtype, shape = np.dtype(given["type"]), given["shape"]
        if dtype.kind == "f":
            feeds[given["name"]] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        else:
            feeds[given["name"]] = np.full(shape, dtype.kind == "b", dtype)
    return feeds


def _repeat(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each run, warm-up left out."""
    for _ in range(WARMUP):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST_RUNS or (time.perf_counter() < end and len(times) < RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _on_device(session: Any, feeds: dict[str, Any], seconds: float) -> float:
    """Seconds of one run among many that are not waited for."""
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", 0)
    free = ort.RunOptions()
    free.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def batch(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count - 1):
            session.run_with_iobinding(binding, free)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return (time.perf_counter() - start) / count

    batch(WARMUP)
    count = int(min(max(seconds / LEAST_RUNS / max(batch(2), 1e-6), 2), RUNS))
    return undisturbed([batch(count) for _ in range(LEAST_RUNS)])


def kernels(profile: Path, operators: Sequence[str]) -> list[float]:
    """Seconds that the counted kernels of each run took, from a profile of ONNX Runtime.

    Args:
        profile: the JSON that it wrote.
        operators: types of the layer's own nodes.
    """
    events = json.loads(profile.read_text())
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    times = np.zeros(len(runs))
    around = {name for name in AROUND if name not in operators}
    starts = np.array([start for start, _ in runs])
    for event in events:
        name = event["name"] if event.get("cat") == "Node" else ""
        own = name.endswith("_kernel_time") and not name.startswith(ENTRY)
        if own and event["args"].get("op_name") not in around:
            times[np.searchsorted(starts, event["ts"], "right") - 1] += event["dur"] * 1e-6
    return [float(t) for t in times]


def undisturbed(times: Sequence[float]) -> float:
    """The mean of the faster half: what else runs on the device only adds; finer than the profiler's microseconds."""
    return float(np.sort(np.asarray(times, float))[: (len(times) + 1) // 2].mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit status is 1 where a task failed, which the table then leaves out."""
    parser = argparse.ArgumentParser(description="Time the tasks of a folder; go on where an earlier run ended.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, help="within one operator; as tasks.json says if not given")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="every N-th task, from the I-th on")
    given = parser.parse_args(arguments)
    job = json.loads((given.folder / "tasks.json").read_text())
    number, _, count = given.shard.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        parser.error(f"--shard {given.shard} is not like 1/4")
    how = settings(job["provider"], job["threads"] if given.threads is None else given.threads)

    def told(done: int, total: int) -> None:
        if done == total or done % 50 == 0:
            print(f"{done} of {total} results", file=sys.stderr, flush=True)

    _providers(how["provider"])
    return 1 if run_all(given.folder, how, (int(number), int(count)), told) else 0


if __name__ == "__main__":
    sys.exit(main())
