"""Gradients of whole models, against differences along them.

By default of some exports that hold most operators between them. All exports and packaged models take some minutes:
``GRAPHPRUNE_GRADIENTS=whole pytest tests/gradients/test_exports.py``.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from graphprune.gradients import differentiate
from models import PACKAGED, known, zoo
from tests.gradients.directional import (
    SMOOTH,
    NothingToCompareError,
    Outcome,
    compare,
    directions,
    double,
    inputs,
    read,
    session,
    tensors,
    with_values,
)

Arrays = dict[str, Any]

WHOLE = os.environ.get("GRAPHPRUNE_GRADIENTS") == "whole"
FEW = known(
    "bert-ts11",
    "conv3d-ts9",
    "dcgan-ts9",
    "deberta-ts17",
    "gru-tagger-ts13",
    "lstm-tagger-dynamo18s",
    "mamba-like-dynamo23",
    "mobilenet-v3-ts14",
    "moe-ts12",
    "segformer-ts14",
    "shufflenet-v2-ts11",
    "yolo-int8-ort18",
)
SMALL = known(
    "conv3d-ts9", "gru-tagger-ts13", "llama-dynamo18", "lstm-tagger-ts9", "mamba-like-dynamo23", "resnext-ts9"
)
"""Of which most weights do enough by themselves to be seen in single precision."""
NOTHING = {"sklearn-classifier-skl17": "no output is a float"}
"""Models of which no derivative is taken, and why."""


@pytest.mark.parametrize("name", (*zoo(), *PACKAGED) if WHOLE else FEW)
def test_the_derivative_along_the_gradient(name: str) -> None:
    if name in NOTHING:
        with pytest.raises(NothingToCompareError, match=NOTHING[name]):
            compare(read(name))
        return
    found: Outcome = compare(read(name), name in SMOOTH)
    assert found.error < 1e-2
    assert found.share > 0.3  # the others have a gradient of zero: rows that nothing looks up, what is cut off


def derived(name: str) -> tuple[ModelProto, Arrays, Arrays, Arrays, Arrays, dict[str, float]]:
    """A model, its inputs, cotangents of its outputs; by weight its value, how it is moved, and the derivative."""
    model, rng = read(name), np.random.default_rng(0)
    feeds = inputs(model)
    found = differentiate(model, input_shapes={k: v.shape for k, v in feeds.items()})
    names = sorted(i.name[2:] for i in found.model.graph.input if i.name.startswith("d:"))
    values = session(model).run(names, feeds)
    cotangents = {n: rng.standard_normal(v.shape).astype(np.float32) for n, v in zip(names, values, strict=True)}
    made = session(found.model).run(None, {**feeds, **{f"d:{n}": c for n, c in cotangents.items()}})
    grads = {o.name[2:]: g.astype(np.float64) for o, g in zip(found.model.graph.output, made, strict=True)}
    base = {n: numpy_helper.to_array(t).astype(np.float64) for n, t in tensors(model) if n in grads}
    ways = directions(model, base, grads)
    return model, feeds, cotangents, base, ways, {n: float((grads[n] * way).sum()) for n, way in ways.items()}


@pytest.mark.parametrize("name", SMALL)
def test_each_weight_by_itself(name: str) -> None:
    """One derivative of all weights at once hides a wrong one that is small."""
    model, feeds, cotangents, base, ways, expected = derived(name)
    floor = 2e-4 * max(expected.values())  # what single precision resolves in the outputs

    def difference(weight: str, step: float) -> float:
        ends = []
        for sign in (1, -1):
            moved = with_values(model, {weight: base[weight] + sign * step * ways[weight]})
            out = session(moved).run(list(cotangents), feeds)
            pairs = zip(cotangents.values(), out, strict=True)
            ends.append(sum(float((c * v.astype(np.float64)).sum()) for c, v in pairs))
        return (ends[0] - ends[1]) / (2 * step)

    for weight, value in expected.items():
        errors = (abs(difference(weight, step) - value) - floor for step in (1e-2, 3e-3, 3e-2))
        assert any(error < 1e-2 * value for error in errors), weight
    seen = [n for n, value in expected.items() if value > 10 * floor]
    assert len(seen) > 0.7 * len(base), sorted(base.keys() - seen)


@pytest.mark.parametrize("name", known("vgg-ts9", *(["mobilenet-v3-ts14", "unet-ts10"] if WHOLE else [])))
def test_each_weight_in_double_precision(name: str) -> None:
    """Where steps in single precision cross kinks, or are lost in its digits: every weight, the smallest too."""
    model, feeds, cotangents, base, ways, expected = derived(name)
    names = list(cotangents)
    loss = double(model, feeds, names, lambda out: sum(float((c * out[n]).sum()) for n, c in cotangents.items()))
    floor, step = 1e-6 * max(expected.values()), 1e-7
    for weight, way in ways.items():
        ends = [loss({weight: base[weight] + sign * step * way}) for sign in (1, -1)]
        assert abs((ends[0] - ends[1]) / (2 * step) - expected[weight]) < 1e-3 * expected[weight] + floor, weight
