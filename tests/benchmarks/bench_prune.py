"""Time and memory of pruning, as ratios within one run: ``python tests/benchmarks/bench_prune.py``.

Four tables: what ``--ratio 0.3`` removes, and how well the proof holds; what ``prune`` (without its proof) costs beside
``onnx.load`` plus ``onnx.save`` of the same file; how analysis grows with the number of nodes; and how much memory a
model with external data needs beside its size. Each measurement runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

REPEATS = 3


def measure(job: str, *arguments: str) -> dict[str, float]:
    """Run one job of this file in a fresh process."""
    done = subprocess.run([sys.executable, __file__, job, *arguments], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def job_copy(path: str, target: str) -> dict[str, float]:
    start = time.perf_counter()
    onnx.save(onnx.load(path), target)
    return {"seconds": time.perf_counter() - start}


def job_prune(path: str, target: str) -> dict[str, float]:
    import graphprune.passes.jobs  # what it imports is not timed, as for the copy

    start = time.perf_counter()
    result = graphprune.prune(path, target, ratio=0.3, prove=False)
    return {
        "seconds": time.perf_counter() - start,
        "analysis": result.seconds["analyze"],
        "groups": len(result.analysis.groups),
        "removed": 1 - result.after.parameters / result.before.parameters,
    }


def job_prove(path: str) -> dict[str, float]:
    import graphprune.passes.jobs

    start = time.perf_counter()
    result = graphprune.prune(path, ratio=0.3)
    assert result.proof is not None
    return {
        "seconds": time.perf_counter() - start,
        "groups": len(result.plan.groups),
        "before": result.before.parameters,
        "after": result.after.parameters,
        "macs": result.after.macs / result.before.macs,
        "worst": result.proof.worst,
    }


def job_analyze(path: str) -> dict[str, float]:
    import graphprune

    start = time.perf_counter()
    groups = len(graphprune.analyze(path).groups)
    return {"seconds": time.perf_counter() - start, "groups": groups}


def job_import() -> dict[str, float]:
    import graphprune.passes.jobs  # noqa: F401

    return {}


def _files(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Each model in turn as one file, which the next one replaces."""
    import models

    for name in names:
        path = folder / "model.onnx"
        packaged = name in models.PACKAGED
        path.write_bytes(models.packaged(name).read_bytes() if packaged else models.export(name).SerializeToString())
        yield name, path


def results(folder: Path) -> Table:
    """What is removed from trained models and exports, with the proof."""
    import models

    table = Table(title="prune --ratio 0.3, with its proof", title_justify="left")
    for name in ("model", "groups", "parameters", "removed", "MACs removed", "worst relative error", "s"):
        table.add_column(name, justify="left" if name == "model" else "right")
    trained = [n for n in models.PACKAGED if not n.endswith("-light")]
    for name, path in _files(folder, [*trained, *models.exported()]):
        found = measure("prove", str(path))
        table.add_row(
            name,
            f"{found['groups']:.0f}",
            f"{found['before'] / 1e6:.2f} M",
            f"{100 * (1 - found['after'] / found['before']):.1f} %",
            f"{100 * (1 - found['macs']):.1f} %",
            f"{found['worst']:.0e}",
            f"{found['seconds']:.1f}",
        )
    return table


def times(folder: Path) -> Table:
    """Prune beside load and save."""
    import models

    table = Table(title="prune --ratio 0.3 --no-proof beside onnx.load + onnx.save", title_justify="left")
    for name in ("model", "nodes", "groups", "analysis s", "prune s", "load + save s", "ratio", "parameters"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, path in _files(folder, ["ppocr-v5-rec", "densenet121-light", *models.exported()]):
        nodes = len(onnx.load(path).graph.node)
        pairs = [
            (measure("prune", str(path), str(folder / "a.onnx")), measure("copy", str(path), str(folder / "b.onnx")))
            for _ in range(REPEATS)
        ]
        ratio = median(p["seconds"] / c["seconds"] for p, c in pairs)
        first = pairs[0][0]
        table.add_row(
            name,
            str(nodes),
            f"{first['groups']:.0f}",
            f"{median(p['analysis'] for p, _ in pairs):.2f}",
            f"{median(p['seconds'] for p, _ in pairs):.2f}",
            f"{median(c['seconds'] for _, c in pairs):.2f}",
            f"{ratio:.2f}",
            f"-{100 * first['removed']:.1f} %",
        )
    return table


def growth(folder: Path) -> Table:
    """Analysis of residual nets of growing depth."""
    from models.small import Net

    table = Table(title="analysis of a residual net of growing depth", title_justify="left")
    for name in ("nodes", "groups", "s", "ms a node", "beside the first"):
        table.add_column(name, justify="right")
    base = 0.0
    for blocks in (250, 1000, 4000):
        net = Net()
        y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 16, k=1))
        for _ in range(blocks):
            z = net.op("Relu", net.conv(y, 16, 8, k=1))
            y = net.op("Add", y, net.conv(z, 8, 16, k=1))
        model = net.model(net.conv(y, 16, 2, k=1), rank=4)
        onnx.save(model, folder / "deep.onnx")
        found = measure("analyze", str(folder / "deep.onnx"))
        each = 1000 * found["seconds"] / len(model.graph.node)
        base = base or each
        row = (len(model.graph.node), f"{found['groups']:.0f}", f"{found['seconds']:.2f}", f"{each:.3f}")
        table.add_row(*map(str, row), f"{each / base:.2f}")
    return table


def memory(folder: Path, layers: int = 24, width: int = 4096) -> Table:
    """Peak memory for a model with external data, above that of the bare imports."""
    from models.small import Net

    net = Net()
    y = net.input("x", ["batch", width])
    names = []
    for _ in range(layers):
        names.append(f"weight_{len(names)}")
        y = net.op("Relu", net.op("MatMul", y, names[-1]))
    rng = np.random.default_rng(0)
    data = folder / "large.data"
    with open(data, "wb") as file:
        for name in names:
            tensor = onnx.TensorProto(name=name, dims=[width, width], data_type=onnx.TensorProto.FLOAT)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            value = rng.standard_normal((width, width), dtype=np.float32)
            for key, entry in (("location", data.name), ("offset", file.tell()), ("length", value.nbytes)):
                tensor.external_data.add(key=key, value=str(entry))
            file.write(numpy_helper.from_array(value).raw_data)
            net.initializers.append(tensor)
    model = net.model(y, rank=2)
    (folder / "large.onnx").write_bytes(model.SerializeToString())
    size = data.stat().st_size
    bare = measure("import")["peak"]
    peak = measure("prune", str(folder / "large.onnx"), str(folder / "small.onnx"))["peak"]
    table = Table(title="peak memory with external data", title_justify="left")
    for name in ("weights MB", "largest weight MB", "peak MB", "imports alone MB", "rest / weights"):
        table.add_column(name, justify="right")
    row = (size, 4 * width * width, peak, bare)
    table.add_row(*(f"{v / 1e6:.0f}" for v in row), f"{(peak - bare) / size:.2f}")
    return table


def peak_memory() -> int:
    """Bytes; of this process alone, where ``ru_maxrss`` may still be that of the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError("no VmHWM in /proc/self/status")


def main() -> None:
    """All tables."""
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        for job in (results, times, growth, memory):
            console.print(job(Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        jobs = {
            "analyze": job_analyze,
            "copy": job_copy,
            "import": job_import,
            "prove": job_prove,
            "prune": job_prune,
        }
        found = jobs[sys.argv[1]](*sys.argv[2:])
        print(json.dumps({**found, "peak": peak_memory()}))
    else:
        os.environ.setdefault("PYTHONHASHSEED", "0")
        main()
