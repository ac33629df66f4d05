"""The memory that one model takes in ONNX Runtime, measured in a process that does nothing else.

``python -m graphprune.verdict.footprint MODEL INPUTS.npz THREADS PROVIDER`` prints the largest resident size of the
process, in bytes, beyond what it had when the model was not yet loaded.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from graphprune.relation import Values
from graphprune.run import arrays
from graphprune.verdict.memory import peak


def footprint(model: Path, feeds: Mapping[str, Values], threads: int, provider: str) -> int | None:
    """Peak bytes of loading a model and running it once; None where the system does not tell, or the run fails."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        arrays.write(inputs, feeds)
        command = [
            sys.executable,
            "-m",
            "graphprune.verdict.footprint",
            str(model),
            str(inputs),
            str(threads),
            provider,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    return int(lines[-1]) if done.returncode == 0 and lines and lines[-1].isdigit() else None


def main(model: str, inputs: str, threads: str, provider: str) -> None:
    """Load, run once, and print."""
    feeds = arrays.read(Path(inputs))
    before = peak()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(threads)
    ort.InferenceSession(model, options, providers=[provider]).run(None, feeds)
    after = peak()
    print("unknown" if before is None or after is None else after - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
