"""Peak memory and time over the size of a model: ``python tests/benchmarks/bench_large.py [GB ...]``.

Each model is generated (``models.make_large``), worked on, and deleted; sizes that disk or memory are too short for
are left out. Every step runs in a process of its own. Peak memory is ``ru_maxrss`` of that, or of a child of it that
had more; it counts the pages of files that are mapped, too. ``load + save`` is ``onnx.load`` and ``onnx.save``, with
external data: the base of times. What holds models in memory may write to what is free but for a spare, and has some
time; where it did not do its work, its end is told.

This process stays small, and generates in another one: a child begins with the peak of who starts it.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZES = (1.0, 2.0, 4.0, 8.0)
BASE = "load + save"
LOAD = (
    "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, "
    "location=sys.argv[2].rpartition('/')[2] + '.data')"
)
SLIM = "import onnxslim, sys; onnxslim.slim(sys.argv[1], sys.argv[2], save_as_external_data=True)"
OPTIMISED = (
    "import onnxruntime as o, sys; s = o.SessionOptions(); s.optimized_model_filepath = sys.argv[2]; "
    "s.graph_optimization_level = o.GraphOptimizationLevel.ORT_ENABLE_BASIC; "
    "s.add_session_config_entry('session.optimized_model_external_initializers_file_name', 'out.onnx.data'); "
    "o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])"
)
PYTHON, PROGRAM = (sys.executable, "-c"), (sys.executable, "-m", "graphprune")
STEPS: dict[str, tuple[str, ...]] = {
    BASE: (*PYTHON, LOAD, "IN", "OUT"),
    "inspect": (*PROGRAM, "inspect", "IN"),
    "prune, no proof": (*PROGRAM, "prune", "IN", "--ratio", "0.3", "--no-proof", "-o", "OUT"),
    "prune": (*PROGRAM, "prune", "IN", "--ratio", "0.3", "-o", "OUT"),
    "sparsify 2:4": (*PROGRAM, "sparsify", "IN", "-o", "OUT"),
    "ONNX Runtime, basic": (*PYTHON, OPTIMISED, "IN", "OUT"),
    "onnxslim": (*PYTHON, SLIM, "IN", "OUT"),
}
HELD = {BASE, "onnxslim", "ONNX Runtime, basic"}
"""Steps that hold the model in memory."""
SPARE, LONGEST = 4e9, 600.0
"""Bytes of memory that these leave free, and seconds that they may take."""
_LATE = 124


@dataclass(frozen=True)
class Taken:
    """What a process took: seconds, peak memory in bytes, and its end."""

    seconds: float
    peak: float
    status: int
    said: str

    def end(self) -> str:
        """Why it did not do what it was asked to."""
        if self.status == _LATE:
            return "out of time"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        words = self.said.strip().splitlines() or [f"exit status {self.status}"]
        short = any(word in self.said for word in ("MemoryError", "bad_alloc", "Failed to allocate", "bad allocation"))
        return "out of memory" if short else words[-1][:90].replace("|", "/")


def measured(command: Sequence[str], most: float | None = None, longest: float | None = None) -> Taken:
    """Run a process.

    Args:
        command: with its arguments.
        most: bytes that it may write to; None for no limit.
        longest: seconds after which it is ended; None for no limit.
    """
    start, late = time.perf_counter(), threading.Event()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told)
        if most is not None:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (int(most), int(most)))
        timer = threading.Timer(longest or threading.TIMEOUT_MAX, lambda: (late.set(), process.kill()))
        timer.daemon = True
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = _LATE if late.is_set() else os.waitstatus_to_exitcode(status)
        told.seek(0)
        said = told.read().decode(errors="replace")
    unit = 1 if sys.platform == "darwin" else 1024
    return Taken(time.perf_counter() - start, usage.ru_maxrss * unit, process.returncode, said)


def free_memory() -> int:
    """Bytes of memory that are available."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def rows(size: float, folder: Path) -> None:
    """Print what each step takes at one size."""
    path, base = folder / "large.onnx", 0.0
    subprocess.run([sys.executable, "-m", "models.make_large", path, str(size)], check=True)
    held = path.stat().st_size + path.with_name(path.name + ".data").stat().st_size
    for name, words in STEPS.items():
        room = free_memory() - SPARE
        if name == BASE and room < 1.1 * held:
            print(f"| {held / 1e9:.1f} GB | {name} | memory is short | | | |", flush=True)
            continue
        command = [{"IN": str(path), "OUT": str(folder / "out.onnx")}.get(word, word) for word in words]
        taken = measured(command, room, LONGEST) if name in HELD else measured(command)
        base = taken.seconds if name == BASE else base
        ratio = f"{taken.seconds / base:.2f}" if base and not taken.status else ""
        peak = f"{taken.peak / 1e9:.2f} GB" if not taken.status else f"{taken.end()} at {taken.peak / 1e9:.1f} GB"
        row = (f"{held / 1e9:.1f} GB", name, peak, f"{taken.peak / held:.2f}", f"{taken.seconds:.0f} s", ratio)
        print(f"| {' | '.join(row)} |", flush=True)
        for left in folder.glob("out*"):
            left.unlink()


def main() -> None:
    """Print a table."""
    print("| weights | step | peak memory | beside the model | time | beside load + save |\n|---|---|---|---|---|---|")
    for size in [float(word) for word in sys.argv[1:]] or SIZES:
        if shutil.disk_usage(tempfile.gettempdir()).free < 2.5e9 * size:
            print(f"| {size:g} GB | disk is short | | | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows(size, Path(folder))


if __name__ == "__main__":
    main()
