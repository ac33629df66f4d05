"""Jobs of every kind in one process, whose machine, place and environment are as the caller says (see test_alike).

python -m tests.run_alike OUT CORES

What a job is done to lies in the working directory: ``NAME.onnx`` with its inputs ``NAME.npz``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

JOBS = {
    "calibrated": ("sensitive", "--ratio 0.3 --calibration {inputs} --rotate"),
    "sparse": (
        "sensitive", "--calibration {inputs} --pattern 2:4 --permute --method sparsegpt --packed {out}/p.safetensors",
    ),
    "trained": ("sensitive", "--ratio 0.3 --calibration generated --distill 4 --low-rank 0.3"),
    "targets": (
        "sensitive",
        "--target macs=0.8 --target drop=0.9 --nearest --calibration {inputs} --no-compensate --validate",
    ),
    "factored": ("wide", "--ratio 0.3 --low-rank 0.3 --calibration {inputs}"),
    "sparse of few": ("wide", "--pattern 2:4 --method sparsegpt --calibration {inputs}"),
}  # fmt: skip
"""A model and options of ``prune``, by what the job is about."""


def main(out: str, cores: int) -> None:
    """Do all jobs, each into a folder of its own, and write down how many threads sessions had."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import graphprune.cli  # behind that: libraries count the cores when they are loaded
    from graphprune.run import synthetic

    counts = counted()
    synthetic.SAMPLES = 8
    for name, (model, options) in JOBS.items():
        folder = Path(out) / name
        folder.mkdir(parents=True)
        words = [word.format(inputs=f"{model}.npz", out=folder) for word in options.split()]
        done = ["prune", f"{model}.onnx", "-q", "-o", f"{folder}/p.onnx", "--json", f"{folder}/p.json", *words]
        for command in (done, ["report", f"{folder}/p.plan.json", "-o", f"{folder}/p.html"]):
            try:
                graphprune.cli.main(command)
            except SystemExit as stop:
                if stop.code:
                    sys.exit(f"{name}: exit status {stop.code}")
    Path(out, "threads.json").write_text(json.dumps(sorted(counts)))


def counted() -> set[int]:
    """The numbers of threads within an operator of all sessions from now on."""
    import onnxruntime

    class Counted(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            counts.add(self.get_session_options().intra_op_num_threads)

    counts: set[int] = set()
    onnxruntime.InferenceSession = Counted
    return counts


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
