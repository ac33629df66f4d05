"""Experts: what a layer loses without some, measured; and merging, where it keeps more."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphprune
import models
from graphprune.analysis import analyze
from graphprune.passes.choose import routed
from graphprune.passes.fit import merging
from graphprune.rewrite.rewrite import rewrite
from tests import helpers

NAME = "moe-lookup-ts14"


def changed(**values: np.ndarray) -> onnx.ModelProto:
    model = models.export(NAME)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].astype(np.float32), tensor.name))
    return model


def weight(name: str) -> np.ndarray:
    (found,) = (t for t in models.export(NAME).graph.initializer if t.name == name)
    return np.array(numpy_helper.to_array(found))


def inputs(samples: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((16, 16), dtype=np.float32)} for _ in range(samples // 16)]


def test_an_expert_that_is_never_picked_costs_nothing_and_goes_first() -> None:
    bias = weight("router.bias")
    bias[[3, 6]] = -100
    down = weight("down")
    down[3] *= 50  # its weights are the largest
    model = changed(**{"router.bias": bias, "down": down})
    analysis = analyze(model)
    (group,) = (g for g in analysis.groups if g.picked)
    losses = routed.losses(analysis, [group], inputs(64))[group.id]
    assert losses[3] == losses[6] == 0
    assert (np.delete(losses, [3, 6]) > 1e-3).all()
    assert np.sort(losses)[5] < np.sort(losses)[6] - 1  # two stay: nothing is said of less
    x = np.concatenate([one["x"] for one in inputs(64)])
    result = graphprune.prune(model, ratio=0.3, include=[group.id], calibration={"x": x})
    assert result.plan.groups[0].removed == [3, 6]


def test_losses_are_those_of_the_layer_that_is_left() -> None:
    analysis = analyze(models.export(NAME))
    (group,) = (g for g in analysis.groups if g.picked)
    feeds = inputs(64)
    losses = routed.losses(analysis, [group], feeds)[group.id]
    first = np.argsort(losses)[:3].tolist()
    whole, left = analysis.model, rewrite(analysis, {group.id: first}).model
    branch = next(n for n in whole.nodes if n.op_type == "Add" and n.output[0] == end(whole.proto)).input[1]
    wanted, found = ([values(m.proto, branch, one) for one in feeds] for m in (whole, left))
    a, b = np.concatenate(wanted), np.concatenate(found)
    spread = sum(np.square(w - w.mean()).sum() for w in wanted)
    assert losses[first[-1]] == pytest.approx(np.square(a - b).sum() / spread, rel=1e-3)


def end(model: onnx.ModelProto) -> str:
    """What the last layer reads: the sum of a branch and what goes round it."""
    return str(model.graph.node[-1].input[0])


def values(model: onnx.ModelProto, name: str, feeds: dict[str, np.ndarray]) -> np.ndarray:
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.append(onnx.ValueInfoProto(name=name))
    return helpers.run(seen, feeds)[0]


def test_experts_that_are_alike_are_merged_where_the_layer_then_loses_less() -> None:
    up, down, bias = weight("up"), weight("down"), weight("bias")
    model = changed(up=up[:1] + 0.2 * up, down=down[:1] + 0.2 * down, bias=bias[:1] + 0.2 * bias)
    analysis = analyze(model)
    (group,) = (g for g in analysis.groups if g.picked)
    feeds = inputs(64)
    gone = [0, 1, 2, 3, 4, 5]
    done = rewrite(analysis, {group.id: gone})
    made, entries = merging.merge(analysis, done, lambda: iter(feeds))
    assert entries
    assert entries[0]["after"] < merging.WORTH * entries[0]["before"]
    uses = merging.picked(analysis, group, feeds)
    assert uses.sum() - 8 == 2 * 64  # two of every token, and one for each at the start
    (entry,) = (e for e in done.plan.slices if e.source == "down")
    wanted = analysis.model.array("down").astype(np.float64)
    for number, partner in entries[0]["merged"].items():
        share = uses[partner] / (uses[partner] + uses[int(number)])
        wanted[partner] = share * wanted[partner] + (1 - share) * wanted[int(number)]
        uses[partner] += uses[int(number)]
    np.testing.assert_allclose(made.model.array(entry.result), np.delete(wanted, gone, 0), atol=1e-6)


def test_experts_that_have_nothing_in_common_are_left_alone() -> None:
    analysis = analyze(models.export(NAME))
    (group,) = (g for g in analysis.groups if g.picked)
    feeds = inputs(128)
    gone = np.argsort(routed.losses(analysis, [group], feeds)[group.id])[:4].tolist()
    done = rewrite(analysis, {group.id: sorted(gone)})
    made, entries = merging.merge(analysis, done, lambda: iter(feeds))
    assert made is done
    assert not entries
