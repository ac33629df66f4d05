"""What rounding widths is worth in ONNX Runtime: ``python tests/benchmarks/bench_align.py [RATIO]``.

Models that real sizes can be given to, pruned by a ratio at several alignments and by the default, timed beside the
original in one run (one thread). The last columns say why: how many convolutions ONNX Runtime keeps in its blocked
layout, how many fall out of it, and how many reorderings between the two layouts that makes.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.model import Model, load  # noqa: E402
from graphprune.model.files import save  # noqa: E402

MODELS = {
    "resnet50-ts": {"pixel_values": (1, 3, 224, 224)},
    "ppocr-v4-det": {"x": (1, 3, 640, 640)},
    "ppocr-v4-rec": {"x": (1, 3, 48, 320)},
    "magika": {"bytes": (8, 2048)},
    "vit-b16-ts": {"pixel_values": (1, 3, 224, 224)},
}
ALIGNMENTS = (1, 2, 4, 8, 16, None)


def optimised(model: Model) -> Counter[str]:
    """Operators of the graph that ONNX Runtime executes, by kind of layout."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        save(model, Path(folder) / "model.onnx")
        ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    found: Counter[str] = Counter()
    for node in nodes:
        if node.op_type in ("Conv", "FusedConv"):
            found["blocked" if node.domain == "com.microsoft.nchwc" else "plain"] += 1
        found["reorders"] += node.op_type.startswith("Reorder")
    return found


def main(ratio: float) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for title in (
        "model",
        "align",
        "parameters",
        "MACs",
        "ms",
        "times as fast",
        "95 %",
        "blocked",
        "plain",
        "reorders",
    ):
        table.add_column(title, justify="left" if title == "model" else "right")
    for name, shape in MODELS.items():
        original = load(models.export(name) if name in models.exported() else models.packaged(name))
        results = [
            graphprune.prune(original, ratio=ratio, align=a, input_shapes=shape, prove=False) for a in ALIGNMENTS
        ]
        found = graphprune.bench(
            original, *(r.model for r in results), input_shapes=shape, threads=1, rounds=15, warmup=3
        )
        layouts = optimised(original)
        ms = f"{1e3 * found.timings[0].median:.1f}"
        counts = [str(layouts[k]) for k in ("blocked", "plain", "reorders")]
        table.add_row(name, "", "1", "1", ms, "", "", *counts)
        for align, result, timing, faster in zip(ALIGNMENTS, results, found.timings[1:], found.ratios, strict=True):
            layouts = optimised(result.model)
            table.add_row(
                "",
                "default" if align is None else str(align),
                f"{result.after.parameters / result.before.parameters:.3f}",
                f"{result.after.macs / result.before.macs:.3f}",
                f"{1e3 * timing.median:.1f}",
                f"{faster.speedup:.2f}",
                f"{faster.low:.2f} to {faster.high:.2f}",
                *(str(layouts[k]) for k in ("blocked", "plain", "reorders")),
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
