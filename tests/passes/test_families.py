"""Layers that repeat keep one width, where it is asked for, whatever groups can bear and however much may go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
import models
from graphprune.analysis import Analysis, Group, analyze, cost
from graphprune.passes.choose import families, magnitude, meters
from graphprune.passes.choose.ratio import Cause, Chosen, lowest
from graphprune.passes.choose.ratio import select as by_ratio
from graphprune.passes.choose.widths import Widths
from graphprune.passes.results import Result
from graphprune.rewrite.removal import Removal
from models.small import Net
from tests import helpers

EXPORTS = {
    "llama-dynamo18": 7,
    "llama-dynamo23": 7,
    "mistral-dynamo18": 7,
    "qwen2-dynamo18": 7,
    "bert-dynamo23": 6,
    "bert-ts11": 6,
    "gpt2-dynamo18": 4,
    "vit-ts16": 6,
}
"""Exports of two layers each, and how many weights a layer multiplies by."""


def shapes(model: ModelProto) -> list[tuple[int, ...]]:
    """Of all matrices that something is multiplied by, in the order of the nodes."""
    held = helpers.constants(model)
    own = (n.input[1] for n in model.graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in held)
    return [held[name].shape for name in own if held[name].ndim == 2]


def layers(model: ModelProto, count: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    found = shapes(model)
    assert len(found) in (2 * count, 2 * count + 1)  # a classifier comes behind them
    return found[:count], found[count : 2 * count]


@pytest.mark.parametrize(("name", "count"), EXPORTS.items())
@pytest.mark.parametrize(
    "asked", [{"ratio": 0.3}, {"target": "macs=0.6", "calibration": "generated", "compensate": "none"}], ids=str
)
def test_all_layers_of_an_export_have_the_same_widths(name: str, count: int, asked: dict[str, Any]) -> None:
    model = models.export(name)
    result = graphprune.prune(model, uniform_widths=True, **asked)
    first, second = layers(result.proto, count)
    assert first == second and first != layers(model, count)[0]
    assert result.proof is not None and result.proof.worst < 1e-3
    assert result.after.macs <= (0.6 if "target" in asked else 0.8) * result.before.macs
