"""Layers that repeat keep one width, where it is asked for, whatever groups can bear and however much may go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
import models
from graphprune.analysis import analyze, cost
from graphprune.passes.choose import allocation, families, meters
from graphprune.passes.choose.allocation import Asked, Budget, Terms
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.ratio import Cause, Chosen, Untouched
from graphprune.rewrite.removal import Removal
from models.small import Net
from tests import helpers

Shapes = list[tuple[int, ...]]
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
AIMED = ("llama-dynamo18", "bert-ts11", "vit-ts16")
TARGET: dict[str, Any] = {
    "target": graphprune.Meet(["macs=0.6"], blocks=False),
    "calibration": "generated",
    "compensate": "none",
}


def layers(model: ModelProto, count: int) -> tuple[Shapes, Shapes]:
    """Of each of two layers all matrices that something is multiplied by, in the order of the nodes."""
    held = helpers.constants(model)
    own = (n.input[1] for n in model.graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in held)
    found = [held[name].shape for name in own if held[name].ndim == 2]
    assert len(found) in (2 * count, 2 * count + 1)  # a classifier comes behind them
    return found[:count], found[count : 2 * count]


def feeds(*widths: int) -> ModelProto:
    """Layers of two products each beside a stream, and one more product that reads it in the end."""
    net = Net()
    y = net.input("x", ["batch", 8])
    for width in widths:
        y = net.op(
            "Add", y, net.op("MatMul", net.op("Relu", net.op("MatMul", y, net.weight(8, width))), net.weight(width, 8))
        )
    return net.model(net.op("MatMul", y, net.weight(8, 3)))


@pytest.mark.parametrize(
    ("name", "asked"), [*((name, {"ratio": 0.3}) for name in EXPORTS), *((name, TARGET) for name in AIMED)]
)
def test_all_layers_of_an_export_have_the_same_widths(name: str, asked: dict[str, Any]) -> None:
    model, count = models.export(name), EXPORTS[name]
    result = graphprune.prune(model, uniform_widths=True, **asked)
    first, second = layers(result.proto, count)
    assert first == second and first != layers(model, count)[0]
    assert result.proof is not None and result.proof.worst < 1e-3
    assert result.after.macs <= (0.6 if "target" in asked else 0.8) * result.before.macs


def test_without_it_they_do_not() -> None:
    """What the test above would not see if every layer lost the same anyhow."""
    target = graphprune.Meet(["macs=0.6"], blocks=False)
    given = {**TARGET, "target": target}
    first, second = layers(graphprune.prune(models.export("gpt2-dynamo18"), prove=False, **given).proto, 4)
    assert first != second


def test_they_keep_it_over_rounds() -> None:
    result = graphprune.prune(
        models.export("bert-ts11"), ratio=0.4, steps=2, calibration="generated", uniform_widths=True, prove=False
    )
    first, second = layers(result.proto, 6)
    assert first == second and len(result.rounds) == 2 and result.after.macs < 0.8 * result.before.macs


def test_head_dims_of_queries_and_of_values_are_one_width() -> None:
    """Of rotated queries and keys pairs go, of values single elements: the families count in the smaller ones."""
    analysis = analyze(models.export("llama-dynamo23"))
    rankings = {}
    for group in analysis.groups:
        errors = (0.1 if group.kind == "head_dim" else 1.0) * np.linspace(0, 1, group.size + 1) ** 2
        rankings[group.id] = Ranking(errors[1:], errors)
    budget = Budget("macs", 0.6 * cost.macs(analysis), meters.macs)
    asked = Asked([budget], Terms(align=2, uniform_widths=True))
    found = allocation.allocate(analysis, analysis.groups, rankings, asked)
    left = {g.id: 1 - len(found.selection.get(g.id, ())) / g.size for g in analysis.groups if g.kind == "head_dim"}
    assert len(left) == 3 and {g.size for g in analysis.groups if g.id in left} == {8, 16}
    assert len(set(left.values())) == 1 and 0 < min(left.values()) < 1
    assert found.left["macs"] == cost.macs(analysis, Removal(analysis, found.selection).sizes())
    assert list(found.selection) == [g.id for g in analysis.groups if g.id in found.selection]


def test_what_repeats_and_what_does_not() -> None:
    analysis = analyze(feeds(12, 12, 16, 12))
    found = families.units(analysis, [g for g in analysis.groups if g.size != 8], 0.5)
    assert [[one.size for one in unit.sets] for unit in found] == [[12, 12, 12], [16]]


def test_what_stays_of_a_family_keeps_all_of_it() -> None:
    model = feeds(12, 12, 16)
    first, second, other = (g.id for g in analyze(model).groups)
    result = graphprune.prune(model, ratio=0.5, uniform_widths=True, exclude=[second])
    assert [g.id for g in result.plan.groups] == [other]
    told = {one.group: (one.cause, str(one)) for one in result.untouched}
    assert told[second] == (Cause.ASKED, f"excluded by {second!r}")
    assert told[first] == (
        Cause.REPEATS, f"it keeps the width of group {second!r}, of which none goes: excluded by {second!r}"
    )  # fmt: skip
    result = graphprune.prune(model, ratio=0.5, uniform_widths=True, include=[first, other])
    assert [g.id for g in result.plan.groups] == [other]


@pytest.mark.parametrize("count", [0, 2])
def test_all_lose_what_each_can(count: int) -> None:
    analysis = analyze(feeds(12, 12))
    first, second = (g.id for g in analysis.groups)
    scores = {first: np.arange(12.0), second: np.arange(12.0)[::-1]}
    why = [] if count else [Untouched("of a reason", group=second, cause=Cause.WIDTH)]
    given = Chosen({first: [0, 1, 2, 3], **({second: [10, 11]} if count else {})}, why)
    found = families.level(families.units(analysis, analysis.groups, 0.5), scores, given)
    assert found.selection == ({first: [0, 1], second: [10, 11]} if count else {})
    assert [(one.group, one.cause) for one in found.untouched] == (
        [] if count else [(first, Cause.REPEATS), (second, Cause.WIDTH)]
    )
