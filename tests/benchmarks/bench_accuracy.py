"""What is kept of a score without training: ``python tests/benchmarks/bench_accuracy.py [SAMPLES | large]``.

Real models with labels that cost nothing (see ``tasks.py``), pruned at several ratios by magnitude, alone and with what
is left fitted on unlabelled inputs (64 by default). MACs are those that are left. Needs ``pip install pillow
scikit-learn rapidocr-onnxruntime``.

With ``large``: time and memory of fitting ResNet-50 and BERT-base (random weights) on 64 samples.
"""

from __future__ import annotations

import subprocess
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
import models  # noqa: E402
from graphprune import memory  # noqa: E402
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


def fit_large(name: str) -> None:
    """Fit one large model, in this process, and print what it took."""
    rng = np.random.default_rng(0)
    given = {
        "resnet50-ts": {"pixel_values": rng.standard_normal((64, 3, 224, 224), dtype=np.float32)},
        "bert-base-ts": {
            "input_ids": rng.integers(0, 1000, (64, 128)),
            "attention_mask": np.ones((64, 128), np.int64),
        },
    }[name]
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "in.npz", **given)
        del given
        result = graphprune.prune(models.export(name), ratio=0.3, calibration=Path(folder) / "in.npz", prove=False)
    kept, peak = sum(f.kept for f in result.fits), memory.peak()
    shown = "unknown" if peak is None else f"{peak / 1e9:.2f} GB"
    print(
        f"{name}: {result.seconds['fit']:.0f} s, {kept} of {len(result.fits)} operators fitted, peak {shown}",
        flush=True,
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["large"]:
            for one in ("resnet50-ts", "bert-base-ts"):
                subprocess.run([sys.executable, __file__, "large", one], check=True)
        case ["large", one]:
            fit_large(one)
        case given:
            main(int(given[0]) if given else 64)
