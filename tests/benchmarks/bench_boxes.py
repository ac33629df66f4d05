"""The recipe for detectors on a small one trained here: ``python tests/benchmarks/bench_boxes.py [SHARE ...]``.

Of its MACs these shares are to be left (0.7 and 0.5), with 64 unlabelled images. A row says mean average precision
against what was drawn, and against what the original finds (``--metric detections``), both on 400 images that nothing
has seen. What came of it stands in ``ACCURACY.md``.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
from graphprune.passes import toml  # noqa: E402
from graphprune.passes.choose.select import Select  # noqa: E402
from graphprune.passes.recipe import Recipe  # noqa: E402
from graphprune.passes.shelf.filling import filled  # noqa: E402
from graphprune.passes.state import Job  # noqa: E402
from tests.benchmarks.bench_accuracy import scored  # noqa: E402
from tests.benchmarks.tasks import TASKS, original  # noqa: E402

TASK = TASKS["shapes"]
WITHOUT = {
    "the recipe": ("validate",),
    "without distillation": ("validate", "distill"),
    "without distillation, heads too": ("validate", "distill", "heads"),
    "without fit and distillation": ("validate", "distill", "fit", "fold-constants"),
}


def made(left_out: tuple[str, ...]) -> Recipe:
    """The recipe without some of its passes."""
    recipe = toml.load("yolo")
    passes = [one for one in recipe.passes if one.name not in left_out]
    if "heads" in left_out:
        passes = [replace(one, keep_heads=False) if isinstance(one, Select) else one for one in passes]
    return replace(recipe, passes=tuple(passes), job=Job(calibration=TASK.inputs(64)))


def main(shares: list[str]) -> None:
    """Print a row for each."""
    print("original", scored(TASK, original(TASK)), flush=True)
    for way in reversed(WITHOUT):
        for share in shares:
            start = time.perf_counter()
            result = graphprune.run_recipe(filled(made(WITHOUT[way]), None, [f"macs={share}"]), TASK.path)
            seconds, left = time.perf_counter() - start, result.after.macs / result.before.macs
            print(f"{way}, {share}: {scored(TASK, result.model.proto)} ({left:.2f}), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["0.7", "0.5"])
