"""Whether what is asked for comes: ``python tests/benchmarks/bench_targets.py [WHAT] [MODEL ...]``.

WHAT is

- ``costs`` (the default): targets of macs, params and bytes at 0.7 and 0.5 on all exports and packaged models,
  without inputs and without the proof: what is left beside what was asked for;
- ``speed``: ``--target speedup=1.5`` on a detector at 640 x 640, ResNet-50, PP-OCRv4 det and ViT-B/16, measured again
  by a benchmark of its own, beside the share of the MACs that is left; minutes on a quiet machine;
- ``blocks``: macs targets with and without whole blocks on models with a score, 64 inputs.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.errors import GraphpruneError  # noqa: E402
from tests.benchmarks.tasks import TASKS  # noqa: E402

TARGETS = ("macs=0.7", "macs=0.5", "params=0.7", "params=0.5", "bytes=0.7", "bytes=0.5")
SIZES = {
    "detector-ts": {"x": (1, 3, 640, 640)},
    "resnet50-ts": {"x": (1, 3, 224, 224)},
    "ppocr-v4-det": {"x": (1, 3, 640, 640)},
    "vit-b16-ts": {"x": (1, 3, 224, 224)},
}
SPEEDUP = 1.5
BLOCKS = {"digits transformer": (0.5, 0.4, 0.3, 0.25), "digits CNN": (0.5, 0.25), "PP-OCR cls": (0.5, 0.33)}


def path(name: str, folder: str) -> Path:
    """The file of a model; an export is written with its weights."""
    if name in models.PACKAGED:
        return models.packaged(name)
    onnx.save(models.export(name), Path(folder) / f"{name}.onnx")
    return Path(folder) / f"{name}.onnx"


def costs(names: list[str]) -> None:
    """What is left of each model for each target."""
    table = Table(box=None, pad_edge=False)
    for column in ("", *TARGETS, "s"):
        table.add_column(column, justify="right" if column else "left")
    for name in names or [*models.exported(), *models.PACKAGED]:
        start, cells = time.perf_counter(), []
        with tempfile.TemporaryDirectory() as folder:
            own, out = path(name, folder), Path(folder) / "out.onnx"
            for target in TARGETS:
                try:
                    result = graphprune.prune(own, out, target=target, prove=False)
                    kind = target.partition("=")[0]
                    shares = {
                        "macs": result.after.macs / max(result.before.macs, 1),
                        "params": result.after.parameters / result.before.parameters,
                        "bytes": result.after.bytes / result.before.bytes,
                    }
                    cells.append(f"{shares[kind]:.3f}")
                except GraphpruneError as error:
                    cells.append("cannot" if "cannot be met" in str(error) else type(error).__name__)
        table.add_row(name, *cells, f"{time.perf_counter() - start:.0f}")
        print(name, *cells, file=sys.stderr, flush=True)
    Console(width=120).print(table)


def speed(names: list[str]) -> None:
    """How fast models are that were to be so many times as fast."""
    for name in names or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            own, out = path(name, folder), Path(folder) / "out.onnx"
            shapes = {graphprune.analyze(own).model.inputs[0].name: next(iter(SIZES[name].values()))}
            start = time.perf_counter()
            result = graphprune.prune(own, out, target=f"speedup={SPEEDUP}", input_shapes=shapes, prove=False)
            seconds = time.perf_counter() - start
            again = graphprune.bench(own, out, input_shapes=shapes, rounds=60).ratios[0]
            assert result.met is not None
            print(
                f"{name}: {again.speedup:.3f} times as fast ({again.low:.2f} to {again.high:.2f}), MACs "
                f"{result.after.macs / result.before.macs:.3f}, {len(result.met.tries)} tries, {seconds:.0f} s",
                flush=True,
            )


def blocks(names: list[str]) -> None:
    """Scores with widths alone, and with whole blocks beside."""
    for name in names or BLOCKS:
        task, found = TASKS[name], []
        inputs = task.inputs(64)
        for share in BLOCKS[name]:
            cells = []
            for whole in (False, True):
                meet = graphprune.Meet([f"macs={share}"], blocks=whole)
                result = graphprune.prune(task.path, target=meet, calibration=inputs, input_shapes=task.shapes)
                cells.append(task.shown(task.score(result.model.proto)))
            found.append(f"{share}: {' -> '.join(cells)} ({len(result.plan.blocks)} blocks)")
        print(f"{name}: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "costs"
    {"costs": costs, "speed": speed, "blocks": blocks}[what](sys.argv[2:])
