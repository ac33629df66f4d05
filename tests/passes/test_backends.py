"""Widths for a runtime: what is left is a multiple of what its facts say, and groups stay where none is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.passes.choose import backends
from graphprune.passes.sparse.sparse import Request
from models.small import Net
from tests.helpers import command

OWN = """format = "graphprune-backends/1"
[backends.mine]
title = "A device"
outputs = {float32 = 6}
sums = {float32 = 4}
otherwise = "refused"
[[backends.mine.facts]]
says = "channels come by the dozen"
sure = "rule"
source = "the makers"
"""


def wide(*channels: int, dtype: Any = np.float32) -> onnx.ModelProto:
    net = Net(dtype=dtype)
    y, last = net.input("x", ["batch", 3, 4, 4]), 3
    for c in channels:
        y, last = net.op("Relu", net.conv(y, last, c)), c
    return net.model(net.conv(y, last, 2))


def widths(model: onnx.ModelProto) -> list[int]:
    return [t.dims[0] for t in model.graph.initializer if len(t.dims) == 4][:-1]


@pytest.mark.parametrize(
    ("backend", "ratio", "expected"),
    [
        ("qnn", 0.5, [64, 96, 24]),  # 48 goes up to 64; 24 has no multiple of 32 below it
        ("tensorrt", 0.3, [68, 100, 20]),  # 96 - 28 = 68, 140 - 42 = 98 goes up to 100, 24 - 7 = 17 to 20
        ("tensorrt:float16", 0.3, [72, 104, 24]),
        ("tensorrt:int8", 0.3, [96, 128, 24]),
        ("rknn", 0.3, [96, 128, 24]),  # as float16, by what it sums over
        ("openvino", 0.3, [72, 104, 24]),
        ("ncnn-x86", 0.3, [72, 104, 20]),  # 24 would give up more than an eighth of it: 4 is less good, and good
    ],
)
def test_what_is_left_is_what_pays(backend: str, ratio: float, expected: list[int]) -> None:
    assert widths(graphprune.prune(wide(96, 140, 24), ratio=ratio, backend=backend).proto) == expected


def test_why_a_group_stays() -> None:
    result = graphprune.prune(wide(96, 24), ratio=0.5, backend="qnn")
    (why,) = result.untouched
    text = "no width from 12 up is a multiple of 32 and below 24, and qnn computes other widths as the next multiple"
    assert str(why) == text


def test_onnx_runtime_is_the_default() -> None:
    model = wide(96, 140, 24, 9)
    default, said = graphprune.prune(model, ratio=0.3), graphprune.prune(model, ratio=0.3, backend="ort-cpu")
    assert widths(default.proto) == widths(said.proto) == [68, 100, 20, 8]
    assert widths(graphprune.prune(model, ratio=0.3, backend="qnn", align=1).proto) == [68, 98, 17, 7]


def test_the_type_is_that_of_most_weights() -> None:
    assert backends.kind_of(analyze(wide(8))) == "float32"
    assert backends.kind_of(analyze(wide(8, dtype=np.float16))) == "float16"
    assert backends.kind_of(analyze(models.export("yolo-int8-ort18"))) == "int8"
    assert widths(graphprune.prune(wide(140, dtype=np.float16), ratio=0.3, backend="tensorrt").proto) == [104]
    only = backends.find("ethos-u")
    assert [only.align(kind) for kind in backends.KINDS] == [8, 8, 8]  # what it is converted to there


def test_what_other_passes_ask_for_holds_too() -> None:
    model = wide(96, 144)
    result = graphprune.prune(model, ratio=0.3, backend="ort-cpu", sparsity=Request("2:4"))
    alone = graphprune.prune(model, ratio=0.3, sparsity=Request("2:4"))
    assert widths(result.proto) == widths(alone.proto)
    assert all(w % 32 == 0 for w in widths(graphprune.prune(model, ratio=0.5, backend="qnn", sparsity=Request()).proto))


def test_rounds_and_allocations_keep_to_it() -> None:
    calibration = {"x": np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype(np.float32)}
    for options in ({"steps": 3}, {"calibration": calibration}):
        left = widths(graphprune.prune(wide(96, 144), ratio=0.5, backend="tensorrt:float16", **options).proto)
        assert sum(left) < 240 and all(w % 8 == 0 for w in left)


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    own, model, recipe = tmp_path / "in" / "mine.toml", tmp_path / "m.onnx", tmp_path / "in" / "r.toml"
    own.write_text(OWN)
    onnx.save(wide(96, 40, 11), model)
    options = ["--ratio", "0.3", "--for", f"{own}:float32", "--save-recipe", recipe]
    status, printed, errors = command(capsys, "prune", model, *options, "--json", "-o", tmp_path / "small.onnx")
    assert status == 0 and not errors and widths(onnx.load(tmp_path / "small.onnx")) == [72, 36, 11]
    assert "and mine does not take other widths" in printed and json.loads(printed)
    assert 'backend = "mine.toml:float32"' in recipe.read_text()  # where it lies, seen from the recipe
    assert command(capsys, "run", recipe, model, "-q", "-o", tmp_path / "again.onnx")[0] == 0
    assert widths(onnx.load(tmp_path / "again.onnx")) == [72, 36, 11]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tensort", "", "--for tensort: there is no such backend; did you mean tensorrt?"),
        ("help", "", "there is no such backend; there are ort-cpu, ort-cuda, tensorrt, .*, and FILE.toml"),
        ("none.toml", "", "none.toml: no such file"),
        ("x.toml", "][", "x.toml: not TOML: "),
        ("x.toml", OWN.replace("float32 = 6", "float32 = 0"), "backends.mine.outputs.float32: 0 is less than"),
        ("x.toml", OWN.replace("source =", "sources ="), "backends.mine.facts.1: "),
        ("x.toml", OWN + OWN.partition("\n")[2].replace("mine", "other"), r"holds 2 backends \(mine, other\)"),
    ],
)
def test_what_is_no_backend(name: str, text: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    if text:
        Path(name).write_text(text)
    with pytest.raises(InputError, match=message):
        graphprune.prune(wide(96), ratio=0.3, backend=name)


@pytest.mark.parametrize("given", ["value", "path"])
def test_one_of_another_package(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        value = "theirs:mine"

        def load(self) -> object:
            (tmp_path / "b.toml").write_text(OWN)
            one = backends.Backend("theirs", "A device", {"int8": 12}, {"int8": 12})
            return one if given == "value" else tmp_path / "b.toml"

    monkeypatch.setattr(backends, "_foreign", lambda: {"theirs": Entry()})
    assert backends.names()[-1] == "theirs"
    assert widths(graphprune.prune(wide(96), ratio=0.3, backend="theirs").proto) == [72]


def test_the_table_of_the_readme_is_the_data() -> None:
    readme = Path(backends.__file__).with_name("README.md")
    assert backends.table() in readme.read_text()
    assert all(one.facts for one in map(backends.find, backends.names()))
