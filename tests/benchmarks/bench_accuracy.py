"""What is kept of a score without training: ``python tests/benchmarks/bench_accuracy.py [SAMPLES]``.

Real models with labels that cost nothing (see ``tasks.py``), pruned at several ratios by magnitude, alone and with what
is left fitted on unlabelled inputs (64 by default). MACs are those that are left. Needs ``pip install pillow
scikit-learn rapidocr-onnxruntime``.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
from tests.benchmarks.tasks import TASKS, Task, original  # noqa: E402

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def row(task: Task, ratio: float, inputs: Path) -> list[str]:
    """MACs left, score of magnitude alone, score with a fit, and how long it took."""
    plain = graphprune.prune(task.path, ratio=ratio)
    start = time.perf_counter()
    fitted = graphprune.prune(task.path, ratio=ratio, calibration=inputs)
    seconds = time.perf_counter() - start
    scores = [f"{100 * task.score(result.model.proto):.1f}" for result in (plain, fitted)]
    return [f"{ratio:g}", f"{plain.after.macs / plain.before.macs:.2f}", *scores, f"{seconds:.0f}"]


def main(samples: int) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for title in ("model", "ratio", "MACs left", "magnitude", "and fit", "s"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for name, task in TASKS.items():
        table.add_row(name, "0", "1", f"{100 * task.score(original(task)):.1f}", "", "")
        with tempfile.TemporaryDirectory() as folder:
            inputs = Path(folder) / "in.npz"
            np.savez(inputs, **task.inputs(samples))
            for ratio in RATIOS:
                table.add_row("", *row(task, ratio, inputs))
    Console(width=100).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
