"""Peak memory and time over the size of a model: ``python tests/benchmarks/bench_large.py [GB ...]``.

Each model is generated (``models.make_large``), worked on, and deleted; sizes that disk or memory are too short for are
left out. Every step runs in a process of its own, and peak memory is ``ru_maxrss`` of that, which counts the pages of
files that are mapped, too. ``load + save`` is ``onnx.load`` and ``onnx.save`` with external data, the base of times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from models import make_large

SIZES = (1.0, 2.0, 4.0, 8.0)
BASE = "load + save"
LOAD = (
    "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, "
    "location=sys.argv[2].rpartition('/')[2] + '.data')"
)
SLIM = "import onnxslim, sys; onnxslim.slim(sys.argv[1], sys.argv[2], save_as_external_data=True)"
PROGRAM = (sys.executable, "-m", "graphprune")
STEPS: dict[str, tuple[str, ...]] = {
    BASE: (sys.executable, "-c", LOAD, "IN", "OUT"),
    "onnxslim": (sys.executable, "-c", SLIM, "IN", "OUT"),
    "inspect": (*PROGRAM, "inspect", "IN"),
    "prune, no proof": (*PROGRAM, "prune", "IN", "--ratio", "0.3", "--no-proof", "-o", "OUT"),
    "prune": (*PROGRAM, "prune", "IN", "--ratio", "0.3", "-o", "OUT"),
    "sparsify 2:4": (*PROGRAM, "sparsify", "IN", "-o", "OUT"),
}
HELD = {BASE, "onnxslim"}
"""Steps that hold the model in memory, more than once."""


def measured(command: Sequence[str]) -> tuple[float, float, bool]:
    """Seconds and peak memory in bytes of a process, and whether it did what it was asked to."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit, process.returncode == 0


def free_memory() -> int:
    """Bytes of memory that are available."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def rows(size: float, folder: Path) -> None:
    """Print what each step takes at one size."""
    path, base = make_large.write(folder / "large.onnx", int(size * 1e9)), 0.0
    held = path.stat().st_size + path.with_name(path.name + ".data").stat().st_size
    for name, words in STEPS.items():
        if name in HELD and free_memory() < 2.5 * held:
            print(f"| {size:g} GB | {name} | memory is short | | |")
            continue
        command = [{"IN": str(path), "OUT": str(folder / "out.onnx")}.get(word, word) for word in words]
        seconds, peak, done = measured(command)
        base = seconds if name == BASE else base
        ratio = f"{seconds / base:.2f}" if base else ""
        told = f"{peak / 1e9:.2f} GB | {peak / held:.2f}" if done else "fails | "
        print(f"| {size:g} GB | {name} | {told} | {seconds:.0f} s | {ratio} |", flush=True)
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
