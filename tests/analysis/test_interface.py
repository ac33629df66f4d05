"""Inputs and outputs that shrink where the user lets them: caches by themselves, others by name."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.cli import main
from graphprune.run.calibration import still
from models.small import Net, chain
from tests import helpers

CACHED = "llama-cache-dynamo18"


def test_without_leave_the_interface_stays() -> None:
    result = graphprune.prune(models.export(CACHED), ratio=0.5)
    assert not result.plan.interface
    assert {g.kind for g in result.plan.groups} <= {"hidden", "feature", "head"}  # query heads of one cached head


def test_heads_go_with_their_cache() -> None:
    model = models.export(CACHED)
    result = graphprune.prune(model, ratio=0.5, allow_io=True)
    assert result.proof is not None and result.proof.worst < 1e-4
    assert {"head", "head_dim"} <= {g.kind for g in result.plan.groups}
    changed = {c["name"]: (c["from"], c["to"]) for c in result.plan.interface}
    assert changed["past_key_0"] == (["batch", 2, "past", 16], ["batch", 1, "past", 8])
    assert still({"past_key_0": (2, 2, 7, 16)}, result.model) == {"past_key_0": (2, 1, 7, 8)}
    assert len(changed) == 8 and not any("linear" in name for name in changed)
    onnx.checker.check_model(result.model.proto, full_check=True)


def test_two_steps_with_the_smaller_cache_are_two_steps_of_the_masked_model() -> None:
    model = models.export(CACHED)
    result = graphprune.prune(model, ratio=0.5, allow_io=True)
    masked = helpers.mask_by_hand(model, result.plan.to_json())
    feeds = helpers.random_feeds(model, {"batch": 1, "past": 1})
    small = dict(feeds)
    for name, removed in _removed(result).items():
        for axis, gone in removed.items():
            small[name] = np.delete(small[name], gone, axis)
    for _ in range(2):
        expected, found = helpers.run(masked, feeds), helpers.run(result.model.proto, small)
        assert helpers.relative(expected[0], found[0]) < 1e-4
        for k, name in enumerate(n for n in list(feeds) if n.startswith("past")):
            feeds[name], small[name] = expected[k + 1], found[k + 1]
        ids = {"input_ids": expected[0][:, -1].argmax(-1)[:, None].astype(np.int64)}
        feeds, small = {**feeds, **ids}, {**small, **ids}


def _removed(result: graphprune.Result) -> dict[str, dict[int, list[int]]]:
    from graphprune.rewrite.removal import Removal

    removal = Removal(result.analysis, result.plan.selection)
    return {
        i.name: {a: list(map(int, g)) for a, g in removal.of(i.name).items()} for i in result.analysis.model.graph.input
    }


def test_what_nothing_carries_round_goes_only_by_name() -> None:
    with pytest.raises(graphprune.InputError, match=r"nothing (can be removed|is prunable)"):
        net = Net()
        graphprune.prune(net.model(net.conv(net.input("x", ["batch", 6, 4, 4]), 6, 4)), ratio=0.5, allow_io=True)
    model = onnx.shape_inference.infer_shapes(chain())  # with its output's sizes declared
    result = graphprune.prune(model, ratio=0.5, allow_io=True)
    assert result.plan.groups and not result.plan.interface
    (output,) = (g.id for g in graphprune.analyze(model, allow_io=True).groups if g.interface and g.size == 4)
    named = graphprune.prune(model, ratio=0.5, allow_io=True, include=[output])
    assert [c["to"] for c in named.plan.interface] == [["batch", 2, 8, 8]]
    assert named.proof is not None and named.proof.worst < 1e-5


def test_a_plan_with_another_interface_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(models.export(CACHED), tmp_path / "m.onnx")
    command = ["prune", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "a.onnx"), "--ratio", "0.5", "--allow-io"]
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code == 0
    assert "interface: past_key_0 was batchx2xpastx16, is batchx1xpastx8" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["apply", str(tmp_path / "a.plan.json"), str(tmp_path / "m.onnx"), "-o", str(tmp_path / "b.onnx")])
    assert done.value.code == 0
    assert helpers.bare(tmp_path / "a.onnx") == helpers.bare(tmp_path / "b.onnx")
