"""What TensorRT makes of the zoo, original and pruned by 30 %: ``python tests/benchmarks/bench_verdict.py [NAME ...]``.

Each model is built twice, for the compute capability 8.6, without a GPU. A line says whether both build, how many
kernels each is compiled into, how many sets of nodes that share a kernel in the original still do, and the size of
weights and activations. ``pip install '.[test]'`` brings what it needs.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import graphprune  # noqa: E402
import models  # noqa: E402
from graphprune.verdict.checks import Checks, Level  # noqa: E402
from graphprune.verdict.verdict import validate  # noqa: E402


def judge(name: str) -> Level:
    """Prune and build one model."""
    model = models.export(name)
    pruned = graphprune.prune(model, ratio=0.3).model
    verdict = validate(pruned, model, Checks(tensorrt=True, capabilities=[(8, 6)]))
    return next(level for level in verdict.levels if level.name == "tensorrt")


def row(name: str, level: Level) -> list[str]:
    """A line of the table."""
    if level.status == "skipped":
        return [name, "skipped", level.message]
    builds = [level.details.get(k, {}) for k in ("original", "pruned")]
    built = ["builds" if b.get("built") else "fails" for b in builds]
    pairs = [
        " > ".join(f"{b[key] / unit:.2f}" if key in b else "-" for b in builds)
        for key, unit in (("weights_bytes", 1e6), ("activation_bytes", 1e6), ("seconds", 1))
    ]
    kernels = " > ".join(str(sum(b.get("kernels", {}).values())) for b in builds)
    fusion = level.details.get("fusion")
    kept = f"{fusion['groups'] - len(fusion['parted'])} of {fusion['groups']}" if fusion else ""
    why = "" if built[0] == "builds" else builds[0].get("message", "")[:70]
    return [name, built[0], built[1], kernels, kept, *pairs, why]


def main(names: list[str]) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for title in ("model", "original", "pruned", "kernels", "fused as before", "weights MB", "activations MB", "s", ""):
        table.add_column(title, justify="left" if title in ("model", "") else "right", no_wrap=True)
    names = list(models.known(*names)) or models.exported()
    both = originals = kept = groups = 0
    with ThreadPoolExecutor(2) as pool:
        for name, level in zip(names, pool.map(judge, names), strict=True):
            table.add_row(*row(name, level))
            builds = [level.details.get(k, {}).get("built", False) for k in ("original", "pruned")]
            originals, both = originals + builds[0], both + all(builds)
            fusion = level.details.get("fusion", {"groups": 0, "parted": []})
            groups, kept = groups + fusion["groups"], kept + fusion["groups"] - len(fusion["parted"])
    console = Console(width=220)
    console.print(table)
    console.print(
        f"{len(names)} models: TensorRT builds {originals} originals, and {both} of these pruned; {kept} of {groups} "
        "sets of nodes that share a kernel still do"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
