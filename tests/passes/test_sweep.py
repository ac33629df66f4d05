"""Sweeps: several targets and recipes, and which results nothing beats."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

import graphprune
from graphprune.errors import InputError, ProofError
from graphprune.passes import running
from graphprune.passes.aim.meet import Meet
from graphprune.passes.choose.select import Select
from graphprune.passes.fit.fit import Fit
from graphprune.passes.recipes import Wish, pruning
from graphprune.passes.state import Job
from graphprune.passes.study import runs, scatter, sweep
from graphprune.passes.study.points import Came, Point, Speed, Sweep, Timed, from_json, unbeaten
from graphprune.passes.study.variants import asked, variants
from graphprune.schema import schema
from models.small import residual
from tests.helpers import command, json_of

IMAGES = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
NUMBERS = st.none() | st.integers(0, 4).map(float)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12))
def test_the_front_is_what_no_other_beats(points: list[tuple[float | None, float | None]]) -> None:
    def beats(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    known = [point for point in points if None not in point]
    wanted = [point in known and not any(beats(one, point) for one in known) for point in points]
    assert unbeaten([cost for cost, _ in points], [score for _, score in points]) == wanted


def test_what_is_asked_for_takes_its_place_in_a_recipe() -> None:
    texts = ["macs=0.5,50%", "speedup=1.5, 2", "macs=0.5"]
    assert [one.text for one in asked(texts, [0.3, 0.3])] == ["macs=0.5", "speedup=1.5", "speedup=2", "ratio=0.3"]
    wish, job = Wish(0.5, steps=2), Job(calibration={"x": IMAGES})
    plain, meeting = (
        pruning(wish, job, store="auto"),
        pruning(replace(wish, ratio=0, target=Meet(("drop=0.1",), True)), job),
    )
    found = variants({"a": plain, "b": meeting}, asked(["macs=0.5"], [0.36]), Meet((), metric="top1"))
    names = [[one.name for one in own.done.passes] for own in found]
    chosen = [[one.ratio for one in own.done.passes if isinstance(one, Select)] for own in found]
    assert names[0] == [*names[1][:-2], "meet", "smaller", "store"] and names[2][-2:] == ["meet", "smaller"]
    assert "meet" not in names[1] + names[3] and chosen == [[None, None], [0.2, 0.36]] * 2
    assert found[0].done.passes[-3] == Meet(("macs=0.5",)), "the metric of other targets does not matter to it"
    meet = Meet((), metric="top1", device="cuda")
    for text, own in (("drop=0.1", {"metric": "top1"}), ("latency=0.5", {"device": "cuda"})):
        (one,) = variants({"a": plain}, asked([text], []), meet)
        assert one.done.passes[-3] == Meet((text,), **own)  # type: ignore[arg-type]
    assert found[2].done.passes[-2] == Meet(("macs=0.5",), True)
    assert len({own.content for own in found}) == 4
    with pytest.raises(InputError, match="no pass 'select'"):
        variants({"a": replace(plain, passes=(Fit("fold"),))}, asked(["macs=0.5"], []), Meet(()))


@pytest.fixture
def inputs(tmp_path: Path) -> list[str | Path]:
    np.savez(tmp_path / "in.npz", x=IMAGES)
    onnx.save(residual(), tmp_path / "m.onnx")
    return ["sweep", tmp_path / "m.onnx", "--calibration", tmp_path / "in.npz", "-q", "--targets", "macs=0.6,0.8,0.001"]


def test_shards_and_interrupted_sweeps_come_to_the_same_bytes(
    inputs: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(name: str, *options: str | Path) -> bytes:
        return json_of(capsys, tmp_path / name, *inputs, *options)

    whole = made("whole.json", "-o", tmp_path / "whole.svg")
    told = json.loads(whole)
    jsonschema.validate(told, schema("sweep"))
    first, second, third = told["points"]
    assert first["macs"] <= 0.6 * told["model"]["macs"] < second["macs"] <= 0.8 * told["model"]["macs"]
    assert third["macs"] is None and third["reason"].startswith("cannot be met") and not third["front"]
    assert first["front"] and first["drop"] == pytest.approx(told["original"] - first["score"])
    half = json.loads(made("half.json", "--folder", tmp_path / "a", "--shard", "2/2", "--latency"))
    jsonschema.validate(half, schema("sweep"))
    assert half["missing"] == 2 and half["latency"] is None
    assert made("again.json", "--folder", tmp_path / "a", "-o", tmp_path / "again.svg") == whole
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "whole.svg").read_bytes()
    assert made("jobs.json", "--jobs", "2") == whole
    assert made("seed.json", "--folder", tmp_path / "a", "--seed", "1") != whole


def test_kept_models_are_those_of_prune_and_come_back(
    inputs: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, again = tmp_path / "kept", [*inputs, "--folder", tmp_path / "f", "--models", tmp_path / "kept"]
    assert command(capsys, *again)[0] == 0
    files = ["m-macs=0.6.onnx", "m-macs=0.6.plan.json", "m-macs=0.8.onnx", "m-macs=0.8.plan.json"]
    assert sorted(path.name for path in kept.iterdir()) == files
    graphprune.prune(tmp_path / "m.onnx", tmp_path / "own.onnx", target="macs=0.6", calibration=tmp_path / "in.npz")
    bytes_ = (tmp_path / "own.onnx").read_bytes()
    assert (kept / files[0]).read_bytes() == bytes_
    assert (kept / files[1]).read_bytes() == (tmp_path / "own.plan.json").read_bytes()
    (kept / files[0]).write_bytes(bytes_[:-1])
    ran: list[Any] = []
    monkeypatch.setattr(
        runs,
        "run_recipe",
        lambda recipe, *own, **named: [ran.append(recipe), running.run_recipe(recipe, *own, **named)][1],
    )
    assert command(capsys, *again)[0] == 0
    assert (kept / files[0]).read_bytes() == bytes_ and len(ran) == 1


def test_times_stand_apart(
    inputs: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "ROUNDS", 3)
    own = [*inputs, "--folder", tmp_path / "f", "--json", tmp_path / "a.json"]
    assert command(capsys, *own)[0] == 0
    plain = json.loads((tmp_path / "a.json").read_text())
    assert command(capsys, *own, "--latency", "--threads", "1")[0] == 0
    timed = json.loads((tmp_path / "a.json").read_text())
    jsonschema.validate(timed, schema("sweep"))
    assert timed.pop("latency")["rounds"] == 3 and plain.pop("latency") is None
    speeds = [point.pop("latency") for point in timed["points"]]
    assert all(one["low"] <= one["speedup"] <= one["high"] for one in speeds[:2]) and speeds[2] is None
    for point in plain["points"]:
        point.pop("latency")
    assert [point.pop("file") for point in timed["points"]] == ["m-macs=0.6.onnx", "m-macs=0.8.onnx", None]
    assert [point.pop("file") for point in plain["points"]] == [None] * 3
    assert timed == plain


def test_recipes_and_functions_of_ones_own(inputs: list[str | Path], tmp_path: Path) -> None:
    def small(model: ModelProto) -> int:
        return -sum(numpy_helper.to_array(t).size for t in model.graph.initializer)

    for name, options in (("a", "ratio = 0.3"), ("b", 'criterion = "obs"\nuniform = true')):
        (tmp_path / f"{name}.toml").write_text(
            f'format = "graphprune-recipe/1"\n[job]\ncalibration = "in.npz"\n[[passes]]\nuse = "select"\n{options}\n'
            '[[passes]]\nuse = "cut"\n' + '[[passes]]\nuse = "meet"\ntargets = ["drop=0.1"]\n' * (name == "b")
        )
    both = [tmp_path / "a.toml", tmp_path / "b.toml"]
    found = graphprune.sweep(residual(), recipes=both, ratios=[0.25], targets="params=0.8", metric=small)
    assert [(p.recipe, p.asked) for p in found.points] == [(r, a) for r in "ab" for a in ("params=0.8", "ratio=0.25")]
    scores = [point.came.score for point in found.points if point.came]
    assert found.metric == "small" and scores == [-p.came.parameters for p in found.points if p.came]
    assert len(scores) == 4 and found.points[0].came != found.points[2].came
    (tmp_path / "b.toml").write_text((tmp_path / "b.toml").read_text().replace("in.npz", "generated"))
    with pytest.raises(InputError, match="different inputs"):
        graphprune.sweep(residual(), recipes=both, targets="macs=0.8")


def test_only_what_was_asked_for_and_not_had_is_a_row(
    inputs: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = command(capsys, *inputs[:4], "--targets", "macs=0.001,0.002")
    assert status == 1 and out.count("not met") == 2 and "none of 2 runs" in err.splitlines()[-1]
    for options, told in (
        (["--targets", "macs=half"], "is no target"),
        (["--ratios", "0.5,1"], "1 is out of range"),
        (["--ratios", "some"], "0.1,0.3"),
        (["--ratio", "0.3"], "--ratios"),
        (["--metric", "f1"], "distance, top1, cosine"),
        (["--shard", "1/2"], "--folder"),
        (["-o", "drawing.png"], "a drawing is .svg"),
        (["--recipes", "none.toml"], "none.toml: no such file"),
        (["--recipes", "none.toml", "--uniform"], "no place beside them"),
    ):
        status, _, err = command(capsys, *inputs, *options)
        assert status == 2 and told in err.splitlines()[-1], err
    status, _, err = command(capsys, *inputs[:4])
    assert status == 2 and "--targets macs=0.3,0.5,0.7" in err
    status, _, err = command(capsys, *inputs[:2], "--targets", "macs=0.5")
    assert status == 2 and "--calibration" in err

    def wrong(*_: Any, **__: Any) -> None:
        raise ProofError("it is not")

    monkeypatch.setattr(runs, "run_recipe", wrong)
    assert command(capsys, *inputs)[0] == 1


def points() -> Sweep:
    came = [Came(macs, 10, 100, score, "") for macs, score in ((30, 0.8), (50, 0.9), (50, 0.7), (60, None))]
    own = [Point("a<b>", f"macs=0.{k}", one, None, f"{k}.onnx") for k, one in enumerate(came)]
    own[1] = replace(own[1], recipe="c", speed=Speed(0.1, 2.0, 1.9, 2.1))
    lost = Point("c", "macs=0.01", None, "cannot be met: a < b")
    timed = Timed("CPUExecutionProvider", 1, 40, {"x": [1]}, 0.2)
    return Sweep("m.onnx", "", 100, 20, 200, "distance", 1.0, 0, (*own, lost), timed, 1)


def test_drawings_stand_alone() -> None:
    found = points()
    assert found.front("macs") == ([True, True, False, False, False], True)
    assert found.front("latency") == ([False, True, False, False, False], True)
    jsonschema.validate(found.to_json(), schema("sweep"))
    drawn = ElementTree.fromstring(scatter.svg(found).encode())
    marks = [node.get("class") for node in drawn.iter() if (node.get("class") or "").startswith("r")]
    assert marks == ["r0 on", "r1 on", "r0 on", "r1 on", "r0 off", "r1 on"], "two recipes, three points, one timed"
    texts = [node.text for node in drawn.iter() if node.tag.endswith("text")]
    assert texts.count("macs=0.1") == 2 and texts.count("macs=0.0") == 1 and "macs=0.2" not in texts
    captions = scatter.captions(found)
    for text in (scatter.svg(found), scatter.svg(replace(found, points=(), timed=None, original=None))):
        assert "<script" not in text and "href" not in text and "url(" not in text
        assert "prefers-color-scheme: dark" in text
    assert "1 models are still" in captions[1] and captions[2].endswith("a < b")


def test_it_is_read_back() -> None:
    found = points()
    assert from_json(json.loads(json.dumps(found.to_json()))) == found


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_axes_reach_over_all_values(low: float, room: float) -> None:
    found = scatter.steps(low, low + room)
    slack = 1e-6 * max(room, abs(low), 1e-9)
    assert found[0] <= low + slack and found[-1] >= low + room - slack and 2 <= len(found) <= 12
    assert all(one < other for one, other in pairwise(found))


def test_labels_do_not_stand_on_each_other() -> None:
    found = scatter.apart([(20.0, 5.0, "macs=0.5"), (10.0, 0.0, "macs=0.3"), (200.0, 0.0, "macs=0.7")])
    assert found == [(10.0, 0.0, "macs=0.3"), (20.0, 14.0, "macs=0.5"), (200.0, 0.0, "macs=0.7")]
