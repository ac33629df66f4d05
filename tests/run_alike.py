"""Jobs of every kind in one process, whose machine, place and environment are as the caller says (see test_alike).

python -m tests.run_alike MODEL.onnx INPUTS.npz OUT CORES
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

JOBS = {
    "calibrated": "--ratio 0.3 --calibration {inputs} --rotate",
    "sparse": "--calibration {inputs} --pattern 2:4 --permute --method sparsegpt --packed {out}/p.safetensors",
    "trained": "--ratio 0.3 --calibration generated --distill 4 --low-rank 0.3",
    "targets": "--target macs=0.8 --target drop=0.9 --nearest --calibration {inputs} --no-compensate --validate",
}
"""Options of ``prune``, by what the job is about."""


def main(model: str, inputs: str, out: str, cores: int) -> None:
    """Do all jobs, each into a folder of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import graphprune.cli  # behind that: libraries count the cores when they are loaded
    from graphprune.run import synthetic

    synthetic.SAMPLES = 8
    for name, options in JOBS.items():
        folder = Path(out) / name
        folder.mkdir(parents=True)
        words = options.format(inputs=inputs, out=folder).split()
        done = ["prune", model, "-q", "-o", f"{folder}/p.onnx", "--json", f"{folder}/p.json", *words]
        for command in (done, ["report", f"{folder}/p.plan.json", "-o", f"{folder}/p.html"]):
            try:
                graphprune.cli.main(command)
            except SystemExit as stop:
                if stop.code:
                    sys.exit(f"{name}: exit status {stop.code}")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
