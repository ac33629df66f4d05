"""Time by phase of long graphs: ``python tests/benchmarks/bench_long.py [--nodes 2000,8000] [--shapes chain]``.

Microseconds of processor time a node in each phase of ``prune --ratio 0.3 --no-proof``, beside ``onnx.load`` plus
``onnx.save`` of the same file in the same process; for graphs of several shapes (``models/long.py``), whose weights are
so small that nothing but the nodes counts. What is linear keeps its figure from line to line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SHAPES = "chain,residual,transformer,elementwise,constants,sums,identities"
NODES = "2000,8000,32000,100000"


def measure(shape: str, nodes: int) -> dict[str, float]:
    """Seconds of processor time by phase, and of ``copy``; in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", shape, str(nodes)], check=True, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _one(shape: str, nodes: int) -> dict[str, float]:
    import graphprune.passes.jobs  # what it imports is not timed, as for the copy
    from graphprune.progress import Progress
    from models import long

    class Clock(Progress):
        """Processor time by phase."""

        def __init__(self) -> None:
            super().__init__()
            self.found: dict[str, float] = {}
            self.last = time.process_time()

        def end(self, phase: str) -> None:
            now = time.process_time()
            self.found[phase] = self.found.get(phase, 0.0) + now - self.last
            self.last = now
            super().end(phase)

    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "long.onnx", Path(folder) / "small.onnx"
        path.write_bytes(long.LONG[shape](nodes).SerializeToString())
        begun = time.process_time()
        onnx.save(onnx.load(path), out)
        copied = time.process_time() - begun
        clock = Clock()
        graphprune.prune(path, out, ratio=0.3, prove=False, progress=clock)
        return {"nodes": len(onnx.load(path).graph.node), "copy": copied, **clock.found}


def table(shapes: list[str], sizes: list[int]) -> Table:
    """A line for each shape and size."""
    phases = ("load", "analyze", "select", "cut", "write")
    found = Table(title="prune --ratio 0.3 --no-proof, microseconds a node", title_justify="left")
    for name in ("shape", "nodes", *phases, "all", "load + save", "seconds in all"):
        found.add_column(name, justify="left" if name == "shape" else "right")
    for shape in shapes:
        for size in sizes:
            one = measure(shape, size)
            each = 1e6 / one.pop("nodes")
            copied = one.pop("copy")
            whole = sum(one.values())
            row = (*(one.get(p, 0.0) for p in phases), whole, copied)
            found.add_row(shape, f"{1e6 / each:.0f}", *(f"{each * s:.0f}" for s in row), f"{whole:.1f}")
    return found


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--nodes", default=NODES)
    given = parser.parse_args()
    Console(width=140).print(table(given.shapes.split(","), [int(n) for n in given.nodes.split(",")]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(_one(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
