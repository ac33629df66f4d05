"""Cases that mutate what is not the model: plans, recipes, inputs, pictures, weights, and the command line."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from graphprune.cli import boundary
from tests.fuzz import bases, raw
from tests.fuzz.cases import ALL, MODEL, OUTPUT, PRUNE, Case

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3.5, -0.5, 10**9, 10**30, 1e308, float("nan"), float("inf"), "", "x", "0", "../x",
    "a" * 3000, "\x1b[2J", [], [0], [0, 0], [-1], [[]], ["x"], {}, {"x": 1}, {"0": [0]},
)  # fmt: skip
RECIPE = """format = "graphprune-recipe/1"
[job]
calibration = "generated"
seed = 0
prove = true
[job.input_shapes]
x = [1, 3, 8, 8]
[[passes]]
use = "rotate"
[[passes]]
use = "select"
ratio = 0.3
criterion = "obs"
align = 1
exclude = ["nothing*"]
keep_first = 1
limits = {"*" = 0.9}
[[passes]]
use = "cut"
[[passes]]
use = "fold-constants"
[[passes]]
use = "fit"
method = "refit"
[[passes]]
use = "sparsify"
pattern = "2:4"
method = "magnitude"
[[passes]]
use = "low-rank"
share = 0.1
[[passes]]
use = "store"
how = "auto"
[[passes]]
use = "smaller"
[[passes]]
use = "validate"
min_cosine = 0.0
"""
VALUES = (
    "", "0", "-1", "1", "2", "0.5", "nan", "inf", "1e999", "x", "1x3", "1x3x8x8", "x=1x3x8x8", "x=0x3x8x8", "a=b",
    "=", "9" * 30,
    "../x", "é", "-", "--", "*", "[", "*=0.5", "2:4", "0:0", "4:2", "1x4", "1x0", "macs=0.5", "macs=nan", "bytes=1K",
    "drop=-1",
    "speedup=1e9", "auto", "generated", "magnitude", "json:loads", "no_module:x", MODEL, "missing.npz", "8G", "1",
    "cuda", "cpu",
)  # fmt: skip
KEPT_OUT = {
    "search", "steps", "distill", "time", "rounds", "warmup", "resume", "timeout", "help", "version", "trt", "sm",
    "output", "repeats",
    "samples", "tasks", "device", "provider", "jobs",
}  # fmt: skip
"""Options that may ask for hours, or for what is not there."""


def make(case: Case, folder: Path) -> tuple[str, ...]:
    """Write the files of a case into a folder; returns the command."""
    (folder / MODEL).write_bytes(bases.data(case.base))
    return _SURFACES[case.surface](case, folder, case.random("other"))


def _planned(folder: Path, random: Random) -> Path:
    """A plan of the model, beside the pruned one."""
    extra = random.choice([[], [], ["--blocks", "1"], ["--pattern", "2:4"], ["--rotate"], ["--low-rank", "0.2"]])
    with redirect_stderr(io.StringIO()):
        boundary.run(["prune", MODEL, "-o", "small.onnx", "-q", "--ratio", "0.5", "--align", "1", *extra])
    place = folder / "small.plan.json"
    if not place.is_file():
        place.write_text("{}")
    return place


def odd_json(data: Any, random: Random) -> Any:
    """JSON with one to three places that are not as they were."""
    for _ in range(random.choice([1, 1, 2, 3])):
        parents: list[Any] = []
        left = [data]
        while left:
            one = left.pop()
            if isinstance(one, dict | list) and one:
                parents.append(one)
                left += one.values() if isinstance(one, dict) else one
        if not parents:
            return random.choice(ODD)
        _odd_place(random.choice(parents), random)
    return data


def _odd_place(parent: Any, random: Random) -> None:
    key = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    way, old = random.randrange(6), parent[key]
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, list):
        parent.append(old)
    elif way == 1:
        parent[random.choice(["more", "", "0", "1"])] = old
    elif way == 2 and isinstance(old, int | float):
        parent[key] = old + random.choice([1, -1, 100, 0.5])
    elif way == 3 and isinstance(old, str):
        parent[key] = random.choice([old + "x", old.upper(), ""])
    else:
        parent[key] = random.choice(ODD)


def _plan(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    place = _planned(folder, random)
    if random.random() < 0.8:
        place.write_text(json.dumps(odd_json(json.loads(place.read_text()), random)))
    else:
        place.write_bytes(raw.mutated(place.read_bytes(), random))
    _weights(folder)
    name = place.name
    return random.choice(
        [
            ("apply", name, MODEL, "-o", OUTPUT, "-q", *ALL),
            ("apply", name, MODEL, "-o", OUTPUT, "-q", *ALL),
            ("state-dict", name, "weights.safetensors", "--model", MODEL, "-o", "narrow.safetensors", "-q"),
            ("torch-modules", name, "weights.safetensors", "--model", MODEL, "-o", "narrow.py"),
            ("report", name, "-o", "report.html"),
            ("explain", name, "g0", "--model", MODEL),
            ("graph", MODEL, "--plan", name, "-o", "graph.json"),
        ]
    )


def _recipe(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    lines = RECIPE.splitlines()
    for _ in range(random.choice([1, 1, 2, 3, 5])):
        at, way = random.randrange(len(lines)), random.randrange(5)
        if way == 0:
            del lines[at]
        elif way == 1:
            lines.insert(random.randrange(len(lines)), lines[at])
        elif way == 2 and "=" in lines[at]:
            value = random.choice(
                ['""', "0", "-1", "nan", "inf", "[]", "{}", "true", "9" * 25, '"x"', "1e400", "1979-05-27"]
            )
            lines[at] = f"{lines[at].partition('=')[0]}= {value}"
        elif way == 3:
            names = (
                "centre",
                "permute",
                "distill",
                "vocabulary",
                "meet",
                "select-blocks",
                "remove-blocks",
                "take-values",
                "no:such",
            )
            lines += ["[[passes]]", f'use = "{random.choice(names)}"']
        else:
            lines[at] = raw.mutated(lines[at].encode(), random).decode(errors="replace")
    (folder / "r.toml").write_text("\n".join(lines))
    return ("run", "r.toml", MODEL, "-o", OUTPUT, "-q", *ALL)


def _inputs(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    own = ModelProto.FromString((folder / MODEL).read_bytes()).graph.input[0]
    shape = [d.dim_value or 6 for d in own.type.tensor_type.shape.dim]
    value: Any = np.random.default_rng(case.number).standard_normal(shape).astype(np.float32)
    arrays = {own.name: value}
    way = random.randrange(9)
    if way == 0:
        arrays[own.name] = value.astype(
            random.choice([np.float64, np.int8, np.complex64, "U4", "M8[s]", np.bool_, ">f4"])
        )
    elif way == 1:
        arrays[own.name] = value.reshape(random.choice([(-1,), (1, *shape), (*shape, 1), (shape[0], -1)]))
    elif way == 2:
        value.flat[random.randrange(value.size)] = random.choice([np.nan, np.inf, 1e38])
    elif way == 3:
        arrays[random.choice(["", "y", "label:y", "../x", "é"])] = value
    elif way == 4:
        arrays = random.choice([{}, {"other": value}, {own.name: value[:0]}])
    elif way == 5:
        arrays[own.name] = np.array([value, None], dtype=object)
    stream = io.BytesIO()
    name = random.choice(["in.npz", "in.npz", "in.npy"])
    np.savez(stream, **arrays) if name == "in.npz" else np.save(stream, next(iter(arrays.values()), value))
    data = stream.getvalue()
    if way == 6:
        data = raw.mutated(data, random)
    elif way == 7:
        data = data.replace(str(tuple(shape)).encode(), str((2**40, *shape[1:])).encode()[: len(str(tuple(shape)))])
    elif way == 8:
        data = _archive(random)
    (folder / name).write_bytes(data)
    return (*PRUNE, "--ratio", "0.3", "--calibration", name)


def _archive(random: Random) -> bytes:
    """A zip file that is no npz, or one whose array says that it is huge."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 3, 8, 8), }" % random.choice([2**20, 2**40, -1, 0])
    array = b"\x93NUMPY\x01\x00" + len(head + b"\n").to_bytes(2, "little") + head + b"\n" + bytes(64)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(random.choice(["x.npy", "x.txt", "../x.npy"]), random.choice([array, b"", bytes(1 << 24)]))
    return stream.getvalue()


def _pictures(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    from PIL import Image

    (folder / "in").mkdir()
    for k in range(3):
        stream = io.BytesIO()
        size = random.choice([(8, 8), (9, 5), (1, 1), (300, 2)])
        mode = random.choice(["RGB", "RGB", "L", "RGBA", "P", "CMYK"])
        kind = random.choice(["JPEG", "BMP", "PNG"]) if mode in ("RGB", "L") else ("JPEG" if mode == "CMYK" else "PNG")
        Image.new(mode, size, k).save(stream, kind)
        data = stream.getvalue()
        if random.random() < 0.6:
            data = raw.mutated(data, random)
        (folder / "in" / f"{k}.{random.choice(['png', 'jpg', 'bmp', kind.lower()])}").write_bytes(data)
    if random.random() < 0.5:
        said = {"size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True}
        (folder / "in" / "preprocessor_config.json").write_text(json.dumps(odd_json(said, random)))
    asked = random.choice(
        [[], [], ["--preprocess", f"{random.choice(['fit', 'size', 'mean'])}={random.choice(VALUES)}"]]
    )
    return (*PRUNE, "--ratio", "0.3", "--calibration", "in", *asked)


def _weights(folder: Path) -> Path:
    from safetensors.numpy import save

    graph = ModelProto.FromString((folder / MODEL).read_bytes()).graph
    place = folder / "weights.safetensors"
    place.write_bytes(save({t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}))
    return place


def _checkpoint(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    plan, place = _planned(folder, random), _weights(folder)
    data = place.read_bytes()
    size = int.from_bytes(data[:8], "little")
    way = random.randrange(3)
    if way == 0:
        data = raw.mutated(data, random)
    elif way == 1:
        head = json.dumps(odd_json(json.loads(data[8 : 8 + size]), random)).encode()
        data = len(head).to_bytes(8, "little") + head + data[8 + size :]
    else:
        head = raw.mutated(data[8 : 8 + size], random)
        data = len(head).to_bytes(8, "little") + head + data[8 + size :]
    place.write_bytes(data)
    command = random.choice(["state-dict", "state-dict", "torch-modules"])
    output = "narrow.safetensors" if command == "state-dict" else "narrow.py"
    return (command, plan.name, place.name, "--model", MODEL, "-o", output)


def _options(case: Case, folder: Path, random: Random) -> tuple[str, ...]:
    import click

    from graphprune.cli.commands import cli

    context = click.Context(cli)
    names = (
        "prune",
        "sparsify",
        "inspect",
        "explain",
        "graph",
        "validate",
        "diff",
        "init",
        "apply",
        "state-dict",
        "sensitivity",
    )
    name = random.choice(names)
    found = cli.get_command(context, name)
    assert found is not None
    given = [name]
    for parameter in found.params:
        if isinstance(parameter, click.Argument):
            given.append(random.choice([MODEL, MODEL, MODEL, *VALUES]) if random.random() < 0.95 else "")
    able = [p for p in found.params if isinstance(p, click.Option) and p.name not in KEPT_OUT]
    for option in random.sample(able, min(len(able), random.choice([1, 2, 2, 3, 5]))):
        given.append(random.choice(option.opts))
        if not option.is_flag and random.random() < 0.97:
            given.append(random.choice(VALUES))
    return tuple(given)


_SURFACES: dict[str, Callable[[Case, Path, Random], tuple[str, ...]]] = {
    "plan": _plan,
    "recipe": _recipe,
    "inputs": _inputs,
    "pictures": _pictures,
    "weights": _checkpoint,
    "options": _options,
}
