"""Directional derivatives of whole models, in all float weights at once.

``python -m tests.gradients.directional REGEX`` prints them for the models whose names match.

The model is moved along its gradient (each weight by a step of its own size) and back; what its outputs change by is
held against what the gradient says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from graphprune.analysis.shapes import find_witness
from graphprune.gradients import differentiate
from graphprune.gradients.known import constant
from graphprune.model import load
from graphprune.model.canonical import canonicalize
from graphprune.run.runtime import generate
from models import PACKAGED, export, packaged, zoo

HUGE = 1e30
STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-5, 1e-6)


def session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def inputs(model: ModelProto) -> dict[str, Any]:
    """Inputs that the model accepts; some exports hold for a batch of one only."""
    loaded = load(model)
    shapes = find_witness(canonicalize(loaded)).inputs
    feeds: dict[str, Any] = generate(loaded, shapes)
    try:
        session(model).run(None, feeds)
    except InvalidArgument:
        feeds = generate(loaded, {name: (1, *shape[1:]) for name, shape in shapes.items()})
    return feeds


def compare(model: ModelProto) -> tuple[float, tuple[Any, ...]]:
    """Relative error of the derivative, and the weights that have none."""
    rng = np.random.default_rng(0)
    feeds = inputs(model)
    found = differentiate(model, input_shapes={k: v.shape for k, v in feeds.items()})
    seeds = {i.name for i in found.model.graph.input if i.name.startswith("d:")}
    if not seeds or not found.model.graph.output:
        raise ValueError(f"nothing to compare: {sorted({(s.op, s.reason) for s in found.stopped})}")
    names = [name.removeprefix("d:") for name in sorted(seeds)]
    values = dict(zip(names, session(model).run(names, feeds), strict=True))
    weights = {n: rng.standard_normal(v.shape) for n, v in values.items()}
    given = {
        f"d:{n}": w.astype(np.float64 if values[n].dtype == np.float64 else np.float32) for n, w in weights.items()
    }
    grads = dict(
        zip((o.name for o in found.model.graph.output), session(found.model).run(None, {**feeds, **given}), strict=True)
    )
    tensors = {name: t for name, t in _tensors(model) if f"d:{name}" in grads}
    base = {name: numpy_helper.to_array(t).astype(np.float64) for name, t in tensors.items()}
    directions = {}
    powers = {node.input[1] for node in model.graph.node if node.op_type == "Pow"}
    for name, value in base.items():
        if name in powers or not value.size:  # powers of negative numbers have no derivative by the exponent
            continue
        if not (np.abs(value) < HUGE).all():  # the infinite numbers of masks
            continue
        grad = grads[f"d:{name}"].astype(np.float64)
        size = float(np.abs(value).mean()) or 1e-3
        directions[name] = grad / (float(np.sqrt((grad**2).mean())) or 1.0) * size
    assert directions, f"no weight has a gradient: {found.stopped[0]}"
    expected = sum(float((grads[f"d:{n}"] * d).sum()) for n, d in directions.items())
    errors = []
    for step in STEPS:
        ends = []
        for sign in (1, -1):
            moved = ModelProto()
            moved.CopyFrom(model)
            for name, tensor in _tensors(moved):
                if name in directions:
                    to = (base[name] + sign * step * directions[name]).astype(numpy_helper.to_array(tensor).dtype)
                    tensor.CopyFrom(numpy_helper.from_array(to, tensor.name))
            out = session(moved).run(names, feeds)
            ends.append(sum(float((weights[n] * v.astype(np.float64)).sum()) for n, v in zip(names, out, strict=True)))
        errors.append(abs((ends[0] - ends[1]) / (2 * step) - expected) / max(abs(expected), 1e-12))
    return float(np.nanmin(errors)), found.stopped  # a long step may leave where the model is defined


def _tensors(model: ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if constant(node) is not None and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def main(pattern: str) -> None:
    good = 0
    names = [n for n in (*zoo(), *PACKAGED) if re.search(pattern, n)]
    for name in names:
        try:
            error, stopped = compare(onnx.load(packaged(name)) if name in PACKAGED else export(name))
            good += error < 1e-2
            print(
                f"{name:32} {error:.1e} {len(stopped)} stopped {sorted({(s.op, s.reason) for s in stopped})}",
                flush=True,
            )
        except Exception as problem:
            print(f"{name:32} {type(problem).__name__}: {str(problem)[:300]}", flush=True)
    print(f"{good} of {len(names)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
