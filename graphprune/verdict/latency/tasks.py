"""The folder in which layers are timed: models of one layer, ``tasks.json``, ``time_layers.py``, and the results.

A task is named by what it is, so that layers that are alike are timed once, and a folder that is written again keeps
its results. ``tasks.json`` is written last; ``tasks.schema.json``, beside this page, is its format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from onnx import helper

from graphprune.analysis import Analysis
from graphprune.errors import InputError
from graphprune.model import Model, files, parsing
from graphprune.rewrite.operands import Refit
from graphprune.run import arrays
from graphprune.run.runtime import generate
from graphprune.schema import schema
from graphprune.verdict.latency import grid, pieces, time_layers
from graphprune.verdict.latency.isolate import Alone, NotAloneError, alone
from graphprune.verdict.latency.table import Layer, Table

FORMAT = "graphprune-tasks/1"


@dataclass
class _Written:
    """What has been written so far: the tasks by name, for each piece the grid of tasks, and why there is none."""

    folder: Path
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    grids: dict[int, np.ndarray] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, found: Alone) -> None:
        if found.name in self.tasks:
            return
        files.atomically(self.folder / f"{found.name}.onnx", lambda file: file.write(found.model))
        inputs = [
            {"name": name, "type": helper.tensor_dtype_to_np_dtype(kind).name, "shape": list(shape)}
            for name, kind, shape in found.inputs
        ]
        self.tasks[found.name] = {"name": found.name, "inputs": inputs, "operators": found.operators}


def write(
    folder: Path,
    model: Model,
    analysis: Analysis,
    how: Mapping[str, Any],
    levels: grid.Levels | None = None,
    told: time_layers.Told = time_layers.untold,
) -> None:
    """Write the tasks of a model.

    Args:
        folder: made if it is not there.
        model: as it is timed as a whole.
        analysis: of it.
        how: ``provider``, ``threads``, ``rounds``.
        levels: shares of full widths; None stands for ``grid.LEVELS``.
        told: is told how many points of how many are done.

    Raises:
        InputError: the folder cannot be written.
    """
    found, left_out = pieces.cut(analysis)
    memo: dict[object, grid.Knob | None] = {}
    knobs = [grid.knobs(analysis, piece, levels, memo) for piece in found]
    points = [point for number, own in enumerate(knobs) for point in grid.points(number, own)]
    written = _Written(folder)
    for number, own in enumerate(knobs):
        written.grids[number] = np.empty([len(k.widths) for k in own], object)

    def see(point: grid.Point, refit: Refit | str) -> None:
        try:
            if isinstance(refit, str):
                raise NotAloneError(refit)
            one = alone(found[point.piece], refit, how["provider"] == time_layers.CPU)
        except NotAloneError as no:
            written.failed[point.piece] = str(no)
            return
        written.add(one)
        written.grids[point.piece][point.place] = one.name

    try:
        folder.mkdir(parents=True, exist_ok=True)
        whole = _whole(folder, model, analysis)
        grid.visit(analysis, points, see, told)
        script = Path(time_layers.__file__).read_bytes()
        files.atomically(folder / "time_layers.py", lambda file: file.write(script))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    named = [_layer(analysis, piece, own) for piece, own in zip(found, knobs, strict=True)]
    kept = [n for n in range(len(found)) if n not in written.failed]
    left_out += [pieces.LeftOut(named[n]["node"], reason) for n, reason in sorted(written.failed.items())]
    data = {
        "format": FORMAT,
        "model": {"file": analysis.model.name, "sha256": analysis.model.sha256},
        "shapes": {n: list(s) for n, s in analysis.witness.inputs.items()},
        **how,
        "whole": whole,
        "tasks": [{"name": whole, "inputs": None, "operators": []}, *(t for _, t in sorted(written.tasks.items()))],
        "layers": [{**named[n], "grid": written.grids[n].tolist()} for n in kept],
        "left_out": [asdict(entry) for entry in left_out],
    }
    files.write_json(folder / "tasks.json", data)


def _whole(folder: Path, model: Model, analysis: Analysis) -> str:
    """Write the whole model and inputs for it; returns the name of the task."""
    shapes = json.dumps({n: list(s) for n, s in analysis.witness.inputs.items()}, sort_keys=True)
    name = f"whole-{blake2b((analysis.model.sha256 + shapes).encode(), digest_size=10).hexdigest()}"
    files.save(model, folder / f"{name}.onnx")
    feeds: dict[str, Any] = dict(generate(model, analysis.witness.inputs))
    files.atomically(folder / f"{name}.npz", lambda file: arrays.write(file, feeds))
    return name


def _layer(analysis: Analysis, piece: pieces.Piece, knobs: list[grid.Knob]) -> dict[str, Any]:
    nodes = [analysis.model.nodes[n] for n in piece.nodes]
    axes = []
    for knob in knobs:
        tensor, axis = analysis.web.tensor_of[knob.vertex]
        axes.append({"tensor": tensor, "axis": axis, "widths": list(knob.widths)})
    return {
        "node": next(o for o in nodes[0].output if o),
        "operators": [n.op_type for n in nodes],
        "axes": axes,
    }


def collect(folder: Path, model: Model | None = None) -> Table:
    """The table that the results of a folder come to.

    Args:
        folder: with tasks and results.
        model: that it must be of, if given.

    Raises:
        InputError: no tasks, another model's, results that are missing or were timed in different ways.
    """
    job = _job(folder)
    if model is not None and job["model"]["sha256"] != model.sha256:
        raise InputError(f"{folder}: its tasks are of another file than {model.name}; write them again by --tasks")
    results = _Results(folder, job)
    whole = results.seconds(job["whole"])
    if isinstance(whole, str):
        raise InputError(f"{folder}: the whole model cannot be timed: {whole}; other sizes may do, by --input-shape")
    layers, left_out = [], list(job["left_out"])
    for entry in job["layers"]:
        names = np.asarray(entry["grid"], object)
        found = [results.seconds(str(name)) for name in names.reshape(-1)]
        failure = next((f for f in found if isinstance(f, str)), None)
        if failure is not None:
            left_out.append({"node": entry["node"], "reason": failure})
            continue
        axes = tuple((a["tensor"], int(a["axis"])) for a in entry["axes"])
        widths = tuple(np.asarray(a["widths"], np.int64) for a in entry["axes"])
        seconds = np.asarray(found, float).reshape([len(w) for w in widths])
        layers.append(Layer(entry["node"], tuple(entry["operators"]), axes, widths, seconds))
    measured = {**results.settings, "shapes": job["shapes"]}
    return Table(tuple(layers), whole, measured, job["model"], tuple(left_out))


def _job(folder: Path) -> dict[str, Any]:
    path = folder / "tasks.json"
    try:
        job: dict[str, Any] = parsing.parsed(parsing.text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); --tasks {folder} writes it") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); --tasks {folder} writes it again") from error
    error_ = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema("tasks")).iter_errors(job))
    if error_ is not None:
        where = ".".join(map(str, error_.absolute_path)) or "the top"
        raise InputError(f"{path}: at {where}: {error_.message[:200]}; --tasks {folder} writes it again")
    return job


class _Results:
    """The results of all tasks, looked at as a whole.

    Attributes:
        settings: of all.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        planned = [(task["name"], time_layers.result_path(folder, task, n)) for task, n in time_layers.schedule(job)]
        missing = sum(not path.is_file() for _, path in planned)
        if missing:
            raise InputError(
                f"{folder}: {missing} of {len(planned)} results are missing; 'python time_layers.py {folder}' goes on"
            )
        self.found: dict[str, list[dict[str, Any]]] = {}
        for name, path in planned:
            self.found.setdefault(name, []).append(_result(path))
        every = [r["settings"] for own in self.found.values() for r in own]
        self.settings: dict[str, Any] = every[0]
        other = next((s for s in every if s != every[0]), None)
        if other is not None:
            key = next(k for k in self.settings if other.get(k) != self.settings[k])
            raise InputError(
                f"{folder}: timed in different ways: {key} is {self.settings[key]!r} and {other.get(key)!r}; "
                "run time_layers.py again, with the same options for all"
            )

    def seconds(self, task: str) -> float | str:
        """The fastest round, since disturbances only add, or why the task failed."""
        own = self.found[task]
        failed = reduce(lambda text, r: text or r.get("error", ""), own, "")
        return failed or float(min(r["seconds"] for r in own))


def _result(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parsing.parsed(parsing.text(path))
        if isinstance(found["settings"], dict) and ("error" in found or float(found["seconds"]) >= 0):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: is no result of time_layers.py; delete it and run that again")
