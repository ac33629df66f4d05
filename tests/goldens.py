"""What the program makes of many models, as hashes: recorded before code is moved, compared after.

    python -m tests.goldens record FILE.json [--jobs ratio,blocks] [--models resnet]
    python -m tests.goldens compare FILE.json

Every zoo export, every trained model and every packaged one goes through seven jobs by the command line; of each the
written model, its plan and its JSON without seconds are hashed. Hashes hold on one machine with one set of packages
only, so they are recorded there and never kept. What a model says of how it was made (``metadata_props`` whose key
starts with ``graphprune``) is no part of its hash, and paths are no part of any.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import onnx

import models

JOBS = {
    "ratio": ["prune", "--ratio", "0.3"],
    "statistical": ["prune", "--ratio", "0.3", "--allow-statistical"],
    "blocks": ["prune", "--blocks", "1"],
    "sparse": ["sparsify"],
    "permuted": ["sparsify", "--permute"],
    "calibrated": ["prune", "--ratio", "0.3", "--calibration", "generated"],
    "sparse-calibrated": ["sparsify", "--calibration", "generated"],
}
SAMPLES = 8
"""Made-up inputs of the calibrated jobs: few, since it is the same steps that are compared."""
FIXED = ("ppocr-v4-det", "ppocr-v4-rec", "ppocr-v4-cls", "magika", "shufflenet-light", "squeezenet-light")
"""Packaged models that are looked at; the others of their kind pass the same way."""
LARGE = ("ppocr-v4-det", "ppocr-v4-rec", "shufflenet-light", "squeezenet-light")
"""Of these the jobs with calibration inputs take too long."""


def names() -> list[str]:
    """Every model that is looked at."""
    return [*models.zoo(), *sorted(p.stem for p in models.TRAINED.glob("*.onnx")), *FIXED]


def _file(name: str, folder: Path) -> Path:
    if name in models.PACKAGED:
        return models.packaged(name)
    if name not in models.zoo():
        return models.trained(name)
    path = folder / f"{name}.onnx"
    onnx.save(models.export(name), path)
    return path


def _few_samples() -> None:
    try:
        from graphprune.run import synthetic
    except ImportError:  # before files were moved
        from graphprune import synthetic  # type: ignore[attr-defined,no-redef]
    synthetic.SAMPLES = SAMPLES


def one(task: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """Hashes of one job on one model."""
    from graphprune.cli import main

    name, job = task
    _few_samples()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        out = folder / "out.onnx"
        printed, failed, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(failed):
            try:
                main([*JOBS[job], str(_file(name, folder)), "-o", str(out), "--json", "-q"])
            except SystemExit as stop:
                status = int(stop.code or 0)
        found = {"status": str(status)}
        if status:
            found["error"] = failed.getvalue().replace(temporary, "")
        else:
            found["model"] = _of_model(out)
            found["plan"] = _hash(out.with_name("out.plan.json").read_text())
            found["json"] = _hash(json.dumps(_still(json.loads(printed.getvalue())), sort_keys=True))
    return f"{name} {job}", found


def _of_model(path: Path) -> str:
    proto = onnx.load(path, load_external_data=False)
    kept = [p for p in proto.metadata_props if not p.key.startswith("graphprune")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    beside = path.with_name(path.name + ".data")
    return _hash(proto.SerializeToString(deterministic=True) + (beside.read_bytes() if beside.exists() else b""))


def _still(data: dict[str, Any]) -> dict[str, Any]:
    """What is the same whenever and wherever it is run."""
    kept = {k: v for k, v in data.items() if k not in ("seconds", "output")}
    kept["after"] = {k: v for k, v in data["after"].items() if k != "bytes"}  # of the metadata too
    return kept


def _hash(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def collect(wanted: str, jobs: list[str], workers: int) -> dict[str, dict[str, str]]:
    """Hashes by model and job."""
    tasks = [
        (name, job)
        for name in names()
        for job in jobs
        if re.search(wanted, name) and not ("calibrated" in job and name in LARGE)
    ]
    if not tasks:
        raise SystemExit(f"no model matches {wanted!r}")
    with ProcessPoolExecutor(workers) as pool:
        found: dict[str, dict[str, str]] = {}
        for number, (key, value) in enumerate(pool.map(one, tasks)):
            found[key] = value
            print(f"\r{number + 1} of {len(tasks)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def compare(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Every difference, in a line."""
    lines = []
    for key in sorted(after):
        if key not in before:
            lines.append(f"{key}: new")
        lines += [
            f"{key}: {field}: {before[key].get(field)} -> {after[key].get(field)}"
            for field in sorted({*before.get(key, {}), *after[key]})
            if key in before and before[key].get(field) != after[key].get(field)
        ]
    return lines


def main() -> None:
    """Record, or compare and exit with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--models", default="", help="a regular expression on names")
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    found = collect(given.models, given.jobs.split(","), given.workers)
    if given.what == "record":
        given.file.write_text(json.dumps(found, indent=1, sort_keys=True))
        return
    lines = compare(json.loads(given.file.read_text()), found)
    print("\n".join(lines) or "all equal")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
