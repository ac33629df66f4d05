"""What breaks a proto is told in one line that names the place, by every command; what ONNX Runtime runs is taken."""

from __future__ import annotations

import gzip
import os
import pickle
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon
import onnx_ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import load
from models.small import Net
from tests.helpers import command
from tests.model.broken import (
    INT,
    Break,
    again,
    becomes,
    body,
    cleared,
    entry,
    function,
    gives,
    imports,
    loop,
    model,
    more,
    nested,
    setting,
    sparse,
    weight,
)
from tests.model.defects import BROKEN, TEXT, setattr_first


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a model, with what a location may name that is no file of it."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "m.data").write_bytes(b"\0" * 4096)
    (inner / "link").symlink_to("../m.data")
    (inner / "loop").symlink_to("loop")
    os.mkfifo(inner / "pipe")
    monkeypatch.chdir(inner)
    return inner


COMMANDS = {
    "prune": ["-o", "o.onnx", "--ratio", "0.3"],
    "inspect": [],
    "sparsify": ["-o", "o.onnx"],
    "validate": [],
    "graph": [],
    "init": ["-o", "r.toml"],
}


def _told(capsys: pytest.CaptureFixture[str], words: str, *commands: str) -> None:
    for name in commands or ["prune"]:
        status, _, err = command(capsys, name, "m.onnx", *COMMANDS[name])
        assert status == 2 and err.count("\n") == 1 and "m.onnx" in err, err
        assert any(one in err for one in words.split("|")), err
    assert not Path("o.onnx").exists()


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = BROKEN[name]
    proto = model(folder)
    change(proto)
    Path("m.onnx").write_bytes(proto.SerializeToString())
    _told(capsys, words)


@pytest.mark.parametrize("name", TEXT)
def test_names_that_are_no_text(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = TEXT[name]
    Path("m.onnx").write_bytes(change(model(folder).SerializeToString()))
    _told(capsys, words)


def test_every_command_and_every_form_of_a_model_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = model(folder)
    gives("act", "fc")(proto)
    Path("m.onnx").write_bytes(proto.SerializeToString())
    words = "node 'act' (Relu): its output 'fc' is already the name of another tensor"
    _told(capsys, words, *COMMANDS)
    for form in (proto, proto.SerializeToString(), "m.onnx"):
        with pytest.raises(InputError) as told:
            graphprune.prune(form, ratio=0.3)
        assert words in str(told.value)


def test_models_of_other_libraries_are_told() -> None:
    net = Net()
    proto = net.model(net.op("MatMul", net.input("x", [2, 8]), net.weight(8, 4)))
    proto.graph.node[0].op_type = "Matmul"
    for form in (onnx_ir.from_proto(proto), onnx_graphsurgeon.import_onnx(proto)):
        with pytest.raises(InputError, match=r"\(Matmul\): no such operator in ONNX's set 17"):
            graphprune.analyze(form)


KINDS = {
    "empty": (b"", "is empty, and not an ONNX model"),
    "text": (b"not a model, but some text", "not an ONNX model, or truncated"),
    "gzip": (gzip.compress(b"x" * 99), "is compressed by gzip; unpack it first"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run 'git lfs pull'"),
    "zip": (b"PK\x03\x04" + b"\0" * 99, "is a zip archive, as PyTorch and numpy write"),
    "pickle": (pickle.dumps({"a": [1, 2]}), "is a pickle of Python, which is not opened"),
    "ort": (b"\x20\0\0\0ORTM" + b"\0" * 99, "is in ONNX Runtime's own format (.ort)"),
    "tflite": (b"\x20\0\0\0TFL3" + b"\0" * 99, "is TensorFlow Lite"),
    "graph of TensorFlow": (b"\n\x19\n\x05input\x12\x0bPlaceholder*\x03\n\x01a", "as TensorFlow writes"),
    "safetensors": (b'\x20\0\0\0\0\0\0\0{"a": {}}', "is safetensors, which hold weights and no graph"),
    "web page": (b"<!doctype html><html></html>", "is a web page"),
    "plan": (b'{"format": "graphprune-plan/1"}', "is a plan of graphprune, and no model"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_that_are_no_model(name: str, tmp_path: Path) -> None:
    data, words = KINDS[name]
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(InputError, match=re.escape(words)):
        load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="not an ONNX model"):
        load(data)


def test_places_that_are_no_file(tmp_path: Path) -> None:
    for place, words in ((tmp_path, "is a folder"), ("/dev/null", "is no file"), (tmp_path / "no", "no such file")):
        with pytest.raises(InputError, match=words):
            load(place)


ODD: dict[str, Break] = {
    "doubled graph output": lambda m: m.graph.output.append(m.graph.output[0]),
    "graph output without a type": cleared(lambda m: m.graph.output[0], "type"),
    "graph output is an input": setting(lambda m: m.graph.output[0], "name", "x"),
    "graph output of another size": setting(lambda m: m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 7),
    "declared shape of another size": setting(
        lambda m: m.graph.value_info[0].type.tensor_type.shape.dim[1], "dim_value", -7
    ),
    "declared value that is not there": setting(lambda m: m.graph.value_info[0], "name", "stray"),
    "initializer twice": lambda m: m.graph.initializer.append(weight(m, "conv_b")),
    "raw and typed data": lambda m: weight(m, "conv_b").float_data.extend([1.0] * 8),
    "strings that nothing reads": more(s=TensorProto(dims=[1], data_type=8, string_data=[b"\xff"])),
    "IR version 0": setting(lambda m: m, "ir_version", 0),
    "IR version 3 without weights among inputs": setting(lambda m: m, "ir_version", 3),
    "an operator set twice": imports(("", 17), ("ai.onnx", 17), ("local", 1)),
    "an operator set of nobody": imports(("", 17), ("local", 1), ("no", 5)),
    "an operator set left out that ONNX Runtime knows": becomes("relu", "Gelu", "com.microsoft"),
    "a graph without a name": cleared(lambda m: m.graph, "name"),
    "annotations of nothing": lambda m: m.graph.quantization_annotation.add(tensor_name="nowhere"),
    "training": lambda m: m.training_info.add().algorithm.CopyFrom(m.graph),
    "metadata twice": lambda m: [m.metadata_props.add(key="a", value=v) for v in "12"],
    "nodes without names": lambda m: [n.ClearField("name") for n in m.graph.node],
    "nodes in no order": lambda m: m.graph.node.append(m.graph.node.pop(0)),
    "a body that has names of what comes later": lambda m: (
        setattr_first(body(m).node[0].output, "fc"),
        setattr(body(m).output[0], "name", "fc"),
    ),
    "bodies in bodies": nested(20),
    "a function that nothing calls": lambda m: m.functions.append(
        helper.make_function("no", "no", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], m.opset_import)
    ),
    "an input that a call leaves out": function(lambda f: f.input.append("c")),
    "length 0 of external data": entry("length", "0"),
    "a checksum of external data": again("checksum", "00"),
    "a place by way of the folder": entry("location", "./m.data"),
    "a shape of two axes": more(
        helper.make_node("ConstantOfShape", ["s"], ["k"]), s=helper.make_tensor("", INT, [1, 2], [3, 3])
    ),
    "sparse weights": sparse([1, 5]),
    "a loop": loop(),
}


@pytest.mark.parametrize("name", ODD)
def test_what_onnx_runtime_runs_is_taken(name: str, folder: Path) -> None:
    proto = model(folder)
    ODD[name](proto)
    Path("m.onnx").write_bytes(proto.SerializeToString())
    feeds = {"x": np.ones((2, 3, 8, 8), np.float32)}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    ort.InferenceSession("m.onnx", options, providers=["CPUExecutionProvider"]).run(None, feeds)
    found = graphprune.prune("m.onnx", "o.onnx", ratio=0.3)
    assert found.proof is not None and found.proof.worst < 1e-4
    onnx.load("o.onnx")


def test_graphs_too_deep_in_each_other(folder: Path) -> None:
    proto = model(folder)
    nested(30)(proto)
    with pytest.raises(InputError, match="more than 30 deep in each other"):
        load(proto)


@pytest.mark.parametrize(("domain", "kind"), [("", "Relu"), ("ai.onnx", "Relu"), ("com.microsoft", "Gelu")])
def test_a_function_with_the_name_of_an_operator_is_never_called(domain: str, kind: str, tmp_path: Path) -> None:
    """ONNX Runtime takes the operator, and so does the proof: a function that was laid open would fail it."""
    net = Net()
    y = net.op(kind, net.linear(net.input("x", [2, 8]), 8, 16), domain="" if domain == "ai.onnx" else domain)
    proto = net.model(net.linear(y, 16, 4), domains=["com.microsoft"])
    negated = helper.make_node("Neg", ["a"], ["b"])
    proto.functions.append(helper.make_function(domain, kind, ["a"], ["b"], [negated], [helper.make_opsetid("", 17)]))
    found = graphprune.prune(proto, tmp_path / "o.onnx", ratio=0.5)
    assert found.proof is not None and found.proof.worst < 1e-5
    assert kind in {n.op_type for n in load(tmp_path / "o.onnx").nodes}
