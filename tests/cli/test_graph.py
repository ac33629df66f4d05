"""``graphprune graph``: pictures by Graphviz, and node data for Model Explorer, whose own adapter names the nodes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest

import graphprune
import models
from graphprune.analysis import analyze, blocks
from graphprune.cli.pictures import explorer
from graphprune.cli.pictures.cut import cut
from graphprune.cli.pictures.group import group_picture
from graphprune.cli.pictures.whole import MOST, block_picture, overview
from tests.helpers import command
from tests.verdict.test_diff import chain

HOSTILE = "<script>alert(1)</script>\"'\\N&amp;\x1b"
drawn = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's command 'dot' is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(6, 32, 32, 5), "a.onnx")
    return tmp_path


def test_a_group_shows_what_it_couples_and_what_goes() -> None:
    analysis = analyze(chain(6, 32, 32, 5))
    group = analysis.groups[0]
    plan = graphprune.prune(chain(6, 32, 32, 5), ratio=0.25).plan
    picture = group_picture(cut(analysis, plan), group)
    boxes = list(picture.boxes.values())
    assert [(b.title, b.role) for b in boxes] == [
        ("MatMul", "cut"),
        ("Add", "cut"),
        ("Relu", "other"),
        ("MatMul", "cut"),
    ]
    assert boxes[0].lines == ["makes the classes", "layer0.w axis 1: 32 → 24"]
    assert boxes[-1].lines == ["sums over the classes", "layer1.w axis 0: 32 → 24"]
    assert set(map(tuple, picture.arrows.values())) == {("axis 1: 32 → 24",)}
    assert picture.title[-1] == "the plan removes 8 of its classes"


@pytest.mark.parametrize("name", ["resnet50-ts", "vit-ts16", "yolo-ts12"])
def test_the_whole_is_small_enough_to_read(name: str) -> None:
    analysis = analyze(models.export(name))
    picture = overview(cut(analysis, None))
    assert 5 < len(picture.boxes) <= MOST
    reached = {end for _, end in picture.arrows} | {key for key in picture.boxes if str(key).startswith("input ")}
    fed = {node for node in picture.boxes if isinstance(node, int)}
    assert all(start in picture.boxes and end in picture.boxes for start, end in picture.arrows)
    assert len(fed - reached) <= 1  # a constant that is expanded starts by itself


def test_a_block_stands_in_a_frame_with_its_neighbours() -> None:
    analysis = analyze(models.export("vit-ts16"))
    block = blocks.find_blocks(analysis).blocks[0]
    picture = block_picture(cut(analysis, None), block)
    outside = {key: box for key, box in picture.boxes.items() if key not in picture.inside}
    assert picture.inside and picture.inside <= set(block.nodes) and picture.frame == block.id
    assert outside and all(box.dashed for box in outside.values())
    assert any(start in outside and end in picture.inside for start, end in picture.arrows)
    assert any(start in picture.inside and end in outside for start, end in picture.arrows)


def test_source_needs_no_dot_and_pictures_say_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    status, out, _ = command(capsys, "graph", "a.onnx", "-q")
    assert status == 0 and out.startswith("digraph")
    assert command(capsys, "graph", "a.onnx", "-q", "-o", "a.dot")[0] == 0
    assert Path("a.dot").read_text().strip() == out.strip()
    status, _, err = command(capsys, "graph", "a.onnx", "-q", "-o", "a.svg")
    assert status == 3 and "install Graphviz" in err and len(err.splitlines()) == 1
    status, _, err = command(capsys, "graph", "a.onnx", "-o", "a.bmp")
    assert status == 2 and ".svg" in err
    monkeypatch.setitem(__import__("sys").modules, "graphviz", None)
    status, _, err = command(capsys, "graph", "a.onnx", "-o", "b.dot")
    assert status == 3 and "graphprune[graph]" in err


@drawn
def test_names_are_text_in_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = chain(6, 32, 5)
    model.graph.node[0].name = HOSTILE
    model.graph.node[0].input[1] = model.graph.initializer[0].name = "<b>w</b>"
    onnx.save(model, "h.onnx")
    (group,) = (g.id for g in analyze("h.onnx").groups)
    for arguments in ((), ("--group", group)):
        assert command(capsys, "graph", "h.onnx", *arguments, "-q", "--force", "-o", "h.svg")[0] == 0
        root = ElementTree.parse("h.svg").getroot()
        assert not any(tag in {e.tag.split("}")[-1] for e in root.iter()} for tag in ("script", "image"))
        texts = " ".join("".join(e.itertext()) for e in root.iter())
        assert "<script>alert(1)</script>" in texts
    assert "<b>w</b> axis 1: 32" in texts


def test_what_is_not_there_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = analyze("a.onnx").groups[0].id
    status, _, err = command(capsys, "graph", "a.onnx", "--group", known[:-1] + "7")
    assert status == 2 and f"did you mean '{known}'" in err
    assert command(capsys, "graph", "a.onnx", "--block", "layer:none")[0] == 2
    assert command(capsys, "graph", "a.onnx", "--group", known, "--block", "x")[0] == 2
    assert command(capsys, "graph", "a.onnx", "--sensitivity", "s.json")[0] == 2
    graphprune.prune("a.onnx", "b.onnx", ratio=0.25)
    status, _, err = command(capsys, "graph", "b.onnx", "--plan", "b.plan.json")
    assert status == 2 and "made for another file" in err


def test_node_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphprune.prune("a.onnx", "b.onnx", ratio=0.25)
    study = graphprune.sensitivity("a.onnx", calibration="generated", levels=[0.25]).to_json()
    Path("s.json").write_text(json.dumps(study))
    wishes = ("--plan", "b.plan.json", "--sensitivity", "s.json", "--model-explorer", "me.json")
    assert command(capsys, "graph", "a.onnx", *wishes)[0] == 0
    groups, removed, drops = (
        json.loads(Path(f"me{part}.json").read_text())["g"]["results"] for part in ("", ".removed", ".sensitivity")
    )
    first, second = (g.id for g in analyze("a.onnx").groups)
    assert groups["layer0/MatMul"]["value"] == first and groups["[value] layer0.w"]["value"] == first
    assert re.fullmatch("#[0-9a-f]{6}", groups["layer1/Relu"]["bgColor"]) and groups["layer1/Relu"]["value"] == second
    assert removed["layer0/Add"] == {"value": 25.0} and removed["[value] layer1.w"] == {"value": 43.75}
    assert removed["layer2/MatMul"] == {"value": 0.0}
    assert drops["layer0/MatMul"]["value"] == study["sets"][0]["levels"][0]["drop"]
    Path("s.json").write_text(json.dumps({**study, "model": {**study["model"], "sha256": "0"}}))
    status, _, err = command(capsys, "graph", "a.onnx", *wishes, "--force")
    assert status == 2 and "another file" in err
    Path("s.json").write_text("[" * 3000 + "]" * 3000)
    status, _, err = command(capsys, "graph", "a.onnx", *wishes, "--force")
    assert status == 2 and "too deep" in err


def test_what_breaks_is_at_the_top_of_the_scale() -> None:
    analysis = analyze(chain(6, 32, 32, 5))
    first, second = (g.id for g in analysis.groups)
    mild, large, none = ({"removed": 8, "score": s, "drop": d} for s, d in ((0.9, 0.1), (0.4, 0.6), (None, None)))
    sets = [{"groups": [first], "levels": [mild, none]}, {"groups": [second], "levels": [mild, large]}]
    (results,) = (
        own["results"] for own in explorer.node_data(cut(analysis, None), "sensitivity", {"sets": sets}).values()
    )
    assert results["layer0/MatMul"]["value"] == results["layer1/MatMul"]["value"] == 0.6


def test_groups_that_a_plan_has_and_the_model_not_are_told() -> None:
    plan = graphprune.prune(chain(6, 32, 32, 5), ratio=0.25).plan
    plan.groups[0].id = "elsewhere:1"
    taken = cut(analyze(chain(6, 32, 32, 5)), plan)
    for picture in (overview(taken), group_picture(taken, taken.analysis.groups[1])):
        assert any("elsewhere:1" in line and "not shown" in line for line in picture.title)


def test_a_constant_is_coloured_as_what_is_made_of_it() -> None:
    model = chain(6, 32, 32, 5)
    weight = model.graph.initializer.pop(2)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [weight.name], "held", value=weight))
    analysis = analyze(model)
    (results,) = (own["results"] for own in explorer.node_data(cut(analysis, None), "groups").values())
    assert results["held"]["value"] == analysis.groups[1].id == results["layer1/MatMul"]["value"]


NAMELESS = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[4] x, bool c) => (float[4] y) {
        a = Relu(x) b = Neg(a)
        d = If(c) <then_branch = t () => (float[4] p) { e = Abs(b) p = Relu(e) },
                   else_branch = f () => (float[4] q) { q = Exp(b) }>
        y = Sin(d)
    }
"""


def _nameless(named: bool) -> onnx.ModelProto:
    model = onnx.parser.parse_model(NAMELESS)
    model.graph.node[3].name = "node_1"  # which a node without a name gets first
    if not named:
        model.graph.ClearField("name")
    return model


@pytest.mark.parametrize("name", ["vit-ts16", "keras-cnn-tf13", "gru-tagger-ts13", "named", "nameless"])
def test_nodes_are_called_as_the_adapter_calls_them(name: str, tmp_path: Path) -> None:
    adapter: Any = pytest.importorskip("model_explorer_onnx.main", reason="model-explorer-onnx is not installed")
    builder: Any = pytest.importorskip("model_explorer").node_data_builder
    model = _nameless(name == "named") if "name" in name else models.export(name)
    onnx.save(model, tmp_path / "m.onnx")
    graph = adapter.ONNXAdapter().convert(str(tmp_path / "m.onnx"), {})["graphs"][0]
    shown = {node.id for node in graph.nodes}
    assert {key for _, key in explorer.node_keys(model.graph)} <= shown
    data = explorer.node_data(cut(analyze(model), None), "groups")
    assert set(data) == {graph.id} and set(data[graph.id]["results"]) <= shown
    results = {key: builder.NodeDataResult(**value) for key, value in data[graph.id]["results"].items()}
    whole = builder.ModelNodeData({graph.id: builder.GraphNodeData(**{**data[graph.id], "results": results})})
    again = json.loads(whole.to_json_string())[graph.id]
    assert again["results"] == data[graph.id]["results"]
