"""``explain PLAN`` says in words what a run made of a group and why; ``prune -v`` prints it for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import graphprune
import models
from tests.helpers import command
from tests.passes.test_choices import layers

Says = Callable[..., str]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """Runs a command in a folder with a model of four groups, ``m.onnx``, and gives what it prints."""
    monkeypatch.chdir(tmp_path)
    onnx.save(layers(40, 40, 40, 40), "m.onnx")

    def run(*arguments: str, fails: int = 0) -> str:
        status, out, err = command(capsys, *arguments)
        assert status == fails, err
        return err if fails else out

    return run


def ids(model: str = "m.onnx") -> list[str]:
    return [g.id for g in graphprune.analyze(model).groups]


def ids_of(plan: str) -> list[str]:
    """Groups that a plan has choices about."""
    return [one["id"] for one in json.loads(Path(plan).read_text())["choices"][0]["groups"]]


def test_a_group_that_was_cut_kept_limited_or_rounded(says: Says) -> None:
    first, second, third, fourth = ids()
    steering = ("--exclude", f"{first[:-2]}*", "--limit", f"{second}=0.1", "--ratio", f"{third}=0.2")
    says("prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.3", *steering, "--calibration", "generated")
    Path("m.onnx").unlink()  # the plan alone tells
    excluded, limited, own, rest = (says("explain", "out.plan.json", id) for id in (first, second, third, fourth))
    assert f"group {first}: keeps all 40 feature classes" in excluded
    assert f"it stays whole: excluded by '{first[:-2]}*'" in excluded
    assert (
        f"group {second}: cut to 36 of 40" in limited and "a limit lets no more than 4 of its 40 classes go" in limited
    )
    assert "0.2 is its own ratio" in own and "8 of 40 classes went" in own
    assert "by obs the last that went scores" in rest and "is predicted to lose" in rest
    assert "it was cut no further:" in rest and "of its classes could go" in rest and fourth in rest


def test_the_next_step_stands_beside_what_it_was_worth(says: Says) -> None:
    says("prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.3", "--calibration", "generated")
    data = json.loads(says("explain", "out.plan.json", ids()[1], "--json"))["groups"][0]
    (choice,) = data["choices"]
    step, text = choice["next"], says("explain", "out.plan.json", ids()[1])
    assert data["size"] - data["removed"] == 40 - choice["removed"] and choice["cost"] == "macs"
    assert f"the next step, {step['removed']} of them, would lose {step['error']:.3g} more and save" in text
    assert f"{choice['next_per_percent']:.3g} for each per cent" in text
    assert f"which was worth {choice['worth_per_percent']:.3g}" in text
    each = step["error"] / step["saved"] / 100
    assert choice["next_per_percent"] == pytest.approx(each, rel=1e-5)


def test_shares_that_are_rounded_and_groups_that_means_run_over(says: Says) -> None:
    onnx.save(models.export("convnext-ts14"), "c.onnx")
    says("prune", "c.onnx", "-o", "c.out.onnx", "--ratio", "0.3", "--no-proof")
    made = {one["cause"]: one["id"] for one in json.loads(Path("c.out.plan.json").read_text())["choices"][0]["groups"]}
    rounded = says("explain", "c.out.plan.json", made["width"])
    assert "is its share" in rounded and "is rounded up" in rounded
    whole = says("explain", "c.out.plan.json", made["statistical"])
    assert "keeps all" in whole and "it stays whole: statistical:" in whole


def test_nodes_and_tensors_lead_to_their_groups(says: Says) -> None:
    says("prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.3")
    entry = json.loads(Path("out.plan.json").read_text())["slices"][1]
    Path("m.onnx").rename("elsewhere.onnx")
    groups = ids_of("out.plan.json")
    for name in (entry["consumer"], entry["source"]):
        text = says("explain", "out.plan.json", name)
        assert f"{name} belongs to 2 groups" in text
        assert all(f"group {id}: cut to 28 of 40" in text for id in groups[:2])
    tanh = next(n for n in onnx.load("elsewhere.onnx").graph.node if n.op_type == "Tanh")
    node = tanh.name or tanh.output[0]
    assert "--model m.onnx knows what it left alone" in says("explain", "out.plan.json", "strange", fails=2)
    assert "belongs to 1 group" in says("explain", "out.plan.json", node, "--model", "elsewhere.onnx")
    assert f"did you mean '{groups[0]}'" in says("explain", "out.plan.json", groups[0] + "0", fails=2)
    onnx.save(layers(8, 8), "other.onnx")
    assert "was made for another file" in says("explain", "out.plan.json", node, "--model", "other.onnx", fails=2)
    assert "--model is for a plan" in says("explain", "elsewhere.onnx", node, "--model", "m.onnx", fails=2)


def test_what_cannot_be_pruned_is_told_by_the_model_beside_the_plan(says: Says) -> None:
    says("prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.3")
    analysis = graphprune.analyze("m.onnx")
    (group,) = (g for g in analysis.fixed if g.size == 5)
    assert "it cannot be pruned, because it is the output" in says("explain", "out.plan.json", group.id)


def test_plans_of_earlier_versions_say_that_they_do_not_tell(says: Says) -> None:
    says("prune", "m.onnx", "-o", "out.onnx", "--ratio", "0.3")
    data = json.loads(Path("out.plan.json").read_text())
    del data["choices"]
    Path("old.json").write_text(json.dumps(data))
    text = says("explain", "old.json", ids()[0])
    assert "cut to 28 of 40" in text and "the plan does not tell why" in text
    data["groups"][0]["removed"] = data["groups"][0]["removed"][:4]
    edited = {**json.loads(Path("out.plan.json").read_text()), "groups": data["groups"]}
    Path("edited.json").write_text(json.dumps(edited))
    assert "removes 4 of its classes, which is not what was chosen" in says("explain", "edited.json", ids()[0])
    Path("other.json").write_text('{"format": "graphprune-recipe/1"}')
    assert "not a graphprune-plan/1 file" in says("explain", "other.json", "x", fails=2)


@pytest.mark.parametrize("options", [(), ("--calibration", "generated"), ("--steps", "2")])
def test_prune_v_prints_a_table_of_all_groups(
    says: Says, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("prune", "m.onnx", "--ratio", "0.3", "--dry-run", *options)
    assert "stopped by" not in says(*words)
    out = says(*words, "-v")
    assert out.count("stopped by") == (2 if "--steps" in options else 1)
    columns = ("lost per %", "others lose less") if "--calibration" in options else ("last", "first", "its share")
    assert all(word in out for word in ("saved %", *columns))
    rows = [line.split() for line in out.splitlines() if line.startswith(tuple(ids()))]
    assert len(rows) == 4 * out.count("stopped by") and all(row[1] in ("40", "36") for row in rows)
    data = json.loads(says(*words, "--json"))["choices"]
    assert [one["round"] for one in data] == [*range(1, 1 + out.count("stopped by"))]
