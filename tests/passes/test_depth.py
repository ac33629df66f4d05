"""Blocks that go, alone and together with channels and heads, through the pipeline, the plan and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.analysis import analyze, blocks
from graphprune.cli import main
from graphprune.passes.depth import influence
from graphprune.passes.depth.depth import Request
from graphprune.run.calibration import still
from models.small import Net, residual
from tests import helpers, rotation

BLOCKLESS = models.known(
    *("conv3d-dynamo18", "conv3d-ts9", "dcgan-dynamo18", "dcgan-ts9", "squeezenet-dynamo18", "squeezenet-ts9"),
    *("keras-tagger-tf15", "sklearn-classifier-skl17", "sklearn-regressor-skl15"),
)
"""Nets in which no tensor behind a product has the shape of one before it."""


@pytest.mark.parametrize("name", rotation.some(models.zoo(), 8))
def test_blocks_and_ratio_in_one_run(name: str) -> None:
    model = models.export(name)
    every = blocks.find_blocks(analyze(model)).blocks
    if name in BLOCKLESS:
        assert not every
        return
    names = [b.id for b in every if not b.parts][:1]
    result = graphprune.prune(model, ratio=0.3, blocks=Request(names))
    assert result.without is not None and result.without.proof is not None and result.proof is not None
    assert result.without.proof.worst < 1e-4 and result.proof.worst < 1e-4
    assert len(result.plan.blocks) == 1 and result.plan.groups
    assert result.after.macs < result.before.macs and result.after.parameters < result.before.parameters
    if analyze(model).model.opsets[""] < 28:
        helpers.check(result.model.proto)


@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_plans_are_replayed_to_the_bit(tmp_path: Path, ratio: float) -> None:
    model = models.export("vit-ts16")
    onnx.save(model, tmp_path / "a.onnx")
    first = graphprune.prune(tmp_path / "a.onnx", tmp_path / "b.onnx", ratio=ratio, blocks=Request(count=2))
    again = graphprune.apply(tmp_path / "b.plan.json", tmp_path / "a.onnx", tmp_path / "c.onnx")
    assert helpers.bare(tmp_path / "b.onnx") == helpers.bare(tmp_path / "c.onnx")
    plan = json.loads((tmp_path / "b.plan.json").read_text())
    assert [b["id"] for b in plan["blocks"]] == [b.id for b in first.plan.blocks] and plan["proof"]["blocks"]["outputs"]
    assert again.plan.blocks == first.plan.blocks and again.after.macs == first.after.macs
    assert plan["model"]["sha256"] == analyze(tmp_path / "a.onnx").model.sha256


def test_caches_go_with_their_layers(tmp_path: Path) -> None:
    model = models.export("llama-cache-dynamo18")
    result = graphprune.prune(model, tmp_path / "b.onnx", ratio=0.5, allow_io=True, blocks=Request(["layer:add_350"]))
    gone = [e["name"] for e in result.plan.interface if not e["to"]]
    shrunk = [e["name"] for e in result.plan.interface if e["to"]]
    assert sorted(gone) == ["cat_7", "cat_8", "past_key_0", "past_value_0"] and "past_key_1" in shrunk
    saved = onnx.load(tmp_path / "b.onnx")
    assert [o.name for o in saved.graph.output] == ["linear_14", "cat_11", "cat_12"]
    again = graphprune.apply(tmp_path / "b.plan.json", model)
    assert helpers.bare(again.model.proto) == helpers.bare(result.model.proto)
    with pytest.raises(graphprune.InputError, match="no block matches"):
        graphprune.prune(model, blocks=Request(["branch:add_300"]))


def test_sizes_that_were_given_of_inputs_that_go_go_too() -> None:
    """The first block takes a cache away whose size was given; the second is chosen and taken all the same."""
    net = Net()
    y = net.linear(net.input("x", ["batch", 4, 8]), 8, 8)
    outputs = []
    for k in range(3):
        past = net.input(f"past_{k}", ["batch", f"length_{k}", 8])
        outputs.append(net.op("Concat", past, net.linear(y, 8, 8), axis=1))
        y = net.op("Add", y, net.op("Add", net.linear(net.op("ReduceMean", outputs[-1], axes=[1]), 8, 8), y))
    model = net.model(net.linear(y, 8, 3), *outputs, rank=3)
    sizes = {f"past_{k}": (3, 7, 8) for k in range(3)}
    result = graphprune.prune(
        model,
        ratio=0.5,
        align=1,
        blocks=Request(["layer:*"], count=2),
        allow_io=True,
        input_shapes=sizes,
    )
    assert len([e for e in result.plan.interface if not e["to"]]) == 4
    (name,) = (i.name for i in result.model.inputs if i.name != "x")
    assert still(sizes, result.model) == {name: (3, 7, 8)}


def test_calibration_data_decides(tmp_path: Path) -> None:
    """A block that only answers to bright inputs goes where none is bright, and stays where all are."""
    net = Net()
    x = net.input("x", ["batch", 16])
    bright = net.linear(net.op("Relu", net.op("Sub", x, net.constant(np.float32(3)))), 16, 16, bias=False)
    y = net.op("Add", bright, x)
    mild = net.op("Tanh", net.linear(y, 16, 16, bias=False))
    z = net.op("Add", net.op("Mul", mild, net.constant(np.float32(0.3))), y)
    model = net.model(net.linear(z, 16, 4))
    gone = {}
    for name, level in (("dark", 0.0), ("bright", 20.0)):
        data = level + np.random.default_rng(0).random((8, 16), dtype=np.float32)
        np.savez(tmp_path / f"{name}.npz", x=data)
        result = graphprune.prune(
            model, blocks=Request(count=1), calibration=tmp_path / f"{name}.npz", compensate="none"
        )
        assert result.without is not None
        gone[name] = result.without.entries[0].output
    assert gone == {"dark": y, "bright": z}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(done.value.code or 0), shown.out, shown.err


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "m.onnx")
    every = blocks.find_blocks(analyze("m.onnx")).blocks
    branch = next(b for b in every if b.kind == "branch")
    status, out, _ = run(capsys, "inspect", "m.onnx", "--all")
    assert status == 0 and "removable blocks" in out and branch.id in out
    data = json.loads(run(capsys, "inspect", "m.onnx", "--json")[1])
    assert [b["id"] for b in data["blocks"]] == [b.id for b in every]
    status, out, _ = run(capsys, "explain", "m.onnx", branch.id)
    assert status == 0 and f"can be replaced by {branch.by!r}" in out
    inside, stem = analyze("m.onnx").model.nodes[branch.nodes[0]].name, analyze("m.onnx").model.nodes[0].name
    assert branch.id in run(capsys, "explain", "m.onnx", inside)[1]
    assert "in no block: no tensor" in run(capsys, "explain", "m.onnx", stem)[1]
    status, out, _ = run(capsys, "prune", "m.onnx", "-o", "b.onnx", "--remove-block", branch.id)
    assert status == 0 and f"block {branch.id} went" in out and "proof of blocks: holds" in out
    assert Path("b.onnx").exists() and Path("b.plan.json").exists()
    status, out, _ = run(capsys, "prune", "m.onnx", "--blocks", "1", "--block-score", "influence", "--ratio", "0.3")
    assert status == 0 and "(score " in out and "proof: holds" in out
    for wrong, words in (
        (("--remove-block", "none"), "no block matches 'none'"),
        (("--blocks", "9"), "9 blocks are to go"),
        (("--blocks", "1", "--block-score", "taste"), "taste"),
        (("--blocks", "1", "--calibration", "none.npz"), "no such file"),
    ):
        status, out, err = run(capsys, "prune", "m.onnx", "--dry-run", *wrong)
        assert status == 2 and words in err and err.count("\n") == 1 and not out


def test_generated_inputs_score_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do classes: smooth noise, and not the white noise that stands where nothing is asked for."""
    given: list[float] = []

    def scored(
        analysis: graphprune.Analysis, blocks: list[object], score: str, feeds: list[dict[str, np.ndarray]]
    ) -> list[float]:
        given.extend(float(np.abs(np.diff(f["x"])).mean() / f["x"].std()) for f in feeds)
        return [float(k) for k in range(len(blocks))]

    monkeypatch.setattr(influence, "score_all", scored)
    model, choice = residual(), {"blocks": Request(count=1), "compensate": "none", "prove": False}
    graphprune.prune(model, **choice)
    white = given[:]
    given.clear()
    graphprune.prune(model, calibration="generated", **choice)
    assert min(white) > 1 and len(given) > len(white) and max(given) < 0.9


def test_a_block_whose_output_is_no_number_is_proven() -> None:
    """Zero times infinity is no number: what stands in the place of a branch is zeros, and no product."""
    net = Net()
    x = net.input("x", ["batch", 8])
    inside = net.op("Relu", net.linear(x, 8, 16))
    broken = net.op("Div", inside, net.constant(np.zeros(16, np.float32)))
    y = net.op("Add", x, net.linear(broken, 16, 8))
    model = net.model(net.linear(y, 8, 4), rank=2)
    (block, *_) = blocks.find_blocks(analyze(model)).blocks
    result = graphprune.prune(model, blocks=Request([block.id]))
    assert result.without is not None and result.without.proof is not None and result.without.proof.worst < 1e-4
