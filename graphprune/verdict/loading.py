"""How long ONNX Runtime takes to load a model, and in what memory, measured in a process that does nothing else.

``python -m graphprune.verdict.loading MODEL`` prints the seconds of the fastest of several loads, and the largest
resident size of the process at the first of them, in bytes, beyond what it had before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from graphprune.verdict.memory import peak

_TIMES, _SECONDS = 5, 2.0
"""How often a model is loaded at most, and after how long no more."""


@dataclass(frozen=True)
class Loading:
    """What loading a model took.

    Attributes:
        seconds: of making a session of the file.
        peak_bytes: memory at its highest; None where the system does not tell.
    """

    seconds: float
    peak_bytes: int | None


def loading(model: Path) -> Loading | None:
    """Load a model in a process of its own; None where that fails."""
    command = [sys.executable, "-m", "graphprune.verdict.loading", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.split():
        return None
    seconds, size = done.stdout.split()[-2:]
    return Loading(float(seconds), int(size) if size.isdigit() else None)


def main(model: str) -> None:
    """Load, and print."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    before, after, times = peak(), None, list[float]()
    while not times or (len(times) < _TIMES and sum(times) < _SECONDS):
        start = time.perf_counter()
        active = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        times.append(time.perf_counter() - start)
        after = after or peak()
        del active
    print(min(times), "unknown" if before is None or after is None else after - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
