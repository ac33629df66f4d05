"""Checks that stand on onnx, numpy and ONNX Runtime alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from graphprune.cli import main


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    """Every constant of a model: initializers, Constant nodes, ConstantOfShape of a constant."""
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            found[node.output[0]] = numpy_helper.to_array(attributes["value"])
        elif node.op_type == "ConstantOfShape" and node.input[0] in found:
            fill = numpy_helper.to_array(attributes["value"]).reshape(-1)[0] if "value" in attributes else np.float32(0)
            found[node.output[0]] = np.full(tuple(found[node.input[0]]), fill)
    return found


def bare(model: Path | ModelProto) -> bytes:
    """A model without what it says of how it was made, which tells a replay from the first run."""
    proto = ModelProto()
    proto.CopyFrom(onnx.load(model, load_external_data=False) if isinstance(model, Path) else model)
    kept = [prop for prop in proto.metadata_props if not prop.key.startswith("graphprune.")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto.SerializeToString(deterministic=True)


def mask_by_hand(model: ModelProto, plan: dict[str, Any]) -> ModelProto:
    """The original with each removed slice of a plan set to zero; knows nothing of graphprune."""
    masked = ModelProto()
    masked.CopyFrom(model)
    values = constants(model)
    makers: dict[str, NodeProto] = {n.output[0]: n for n in masked.graph.node if n.output}
    _part(masked, [e["consumer"] for e in plan["slices"]], makers)
    extra: list[NodeProto] = []
    for k, entry in enumerate(plan["slices"]):
        value = np.array(values[entry["source"]])
        for axis, gone in entry["removed"].items():
            index: list[Any] = [slice(None)] * value.ndim
            index[int(axis)] = gone
            value[tuple(index)] = 0
        name = f"masked_by_hand_{k}"
        extra.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
        makers[entry["consumer"]].input[entry["input"]] = name
    nodes = [*extra, *masked.graph.node]
    del masked.graph.node[:]
    masked.graph.node.extend(nodes)
    return masked


def _part(model: ModelProto, consumers: list[str], makers: dict[str, NodeProto]) -> None:
    """A constant that is computed and read in several places has a copy for each: ``<tensor>@<reader>:<input>``."""
    for name in sorted({c for c in consumers if c not in makers}, key=len):
        cuts = [k for k, sign in enumerate(name) if sign == "@"]
        shared, reader, position = next(  # names of the model's own may hold the signs too
            (name[:k], *name[k + 1 :].rpartition(":")[::2])
            for k in cuts
            if name[:k] in makers and name[k + 1 :].rpartition(":")[0] in makers
        )
        copy = NodeProto()
        copy.CopyFrom(makers[shared])
        copy.name, copy.output[0] = name, name
        makers[reader].input[int(position)] = name
        at = next(i for i, n in enumerate(model.graph.node) if n.output[0] == shared)
        model.graph.node.insert(at, copy)
        makers[name] = model.graph.node[at]


def run(model: ModelProto | str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs in ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def random_feeds(model: ModelProto, sizes: dict[str, int], seed: int = 0, top: int = 100) -> dict[str, np.ndarray]:
    """Random inputs with the free dims set by name."""
    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        shape = [d.dim_value or sizes[d.dim_param] for d in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(0, top, shape).astype(dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def relative(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference, relative to the largest expected value."""
    assert expected.shape == found.shape
    scale = max(float(np.abs(expected).max(initial=0)), 1e-30)
    return float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max(initial=0)) / scale


def check(model: ModelProto) -> None:
    """ONNX's own checker with strict shape inference."""
    onnx.checker.check_model(model, full_check=True)


def before_softmax(model: ModelProto) -> ModelProto:
    """The model with the input of a last Softmax as its output instead."""
    last = next(
        (n for n in model.graph.node if n.op_type == "Softmax" and n.output[0] == model.graph.output[0].name), None
    )
    if last is not None:
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=last.input[0]))
    return model


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line."""
    with pytest.raises(SystemExit) as done:
        main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return int(done.value.code or 0), printed.out, printed.err


def json_of(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str | Path) -> bytes:
    """The JSON that a command writes, which does what it is asked for."""
    status, _, error = command(capsys, *arguments, "--json", path)
    assert status == 0, error
    return path.read_bytes()


def drained(terminal: int) -> bytes:
    """All that was written to a pseudo terminal whose other end is closed; closes it."""
    found = b""
    while True:
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that nothing more comes
            chunk = b""
        if not chunk:
            os.close(terminal)
            return found
        found += chunk
