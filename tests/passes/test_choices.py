"""What a selection says of every group agrees with what cutting it comes to, and names what stopped it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
import models
from graphprune import Steering
from graphprune.analysis import cost
from graphprune.passes.choose import choices
from graphprune.passes.choose.choices import Choice, Choices
from graphprune.passes.choose.ratio import Cause
from graphprune.passes.results import Result
from graphprune.rewrite import plan
from graphprune.rewrite.removal import Removal
from graphprune.schema import schema
from models.small import Net, attention, residual

EXPORTS = ("distilbert-ts12", "mobilenet-v3-ts14", "convnext-ts14")


def layers(*widths: int) -> ModelProto:
    """Products one behind another, with a group between two."""
    net = Net()
    y, last = net.input("x", ["batch", 16]), 16
    for k, size in enumerate((*widths, 5)):
        y, last = net.op("MatMul", net.op("Tanh", y) if k else y, net.weight(last, size)), size
    return net.model(y)


def told(model: ModelProto, **options: Any) -> Choices:
    (found,) = graphprune.prune(model, prove=False, **options).choices
    return found


def by_cause(made: Choices) -> dict[Cause, list[Choice]]:
    return {cause: [one for one in made.groups if one.cause is cause] for cause in {g.cause for g in made.groups}}


def share_saved(result: Result, group: str, more: int) -> float:
    """What so many more classes of a group save beside the plan, counted on two removals."""
    gone, analysis = result.plan.selection, result.analysis
    own, found = gone.get(group, []), analysis.group(group)
    assert found is not None
    other = [c for c in range(found.size) if c not in own][:more] + own if more > 0 else own[: len(own) + more]
    macs = [cost.macs(analysis, Removal(analysis, {**gone, group: classes}).sizes()) for classes in (own, other)]
    return (macs[0] - macs[1]) / cost.macs(analysis)


@pytest.mark.parametrize("options", [{"calibration": "generated", "align": 1}, {}, {"criterion": "random"}])
@pytest.mark.parametrize("make", [residual, attention])
def test_what_is_saved_is_what_two_removals_differ_by(make: Any, options: dict[str, Any]) -> None:
    result = graphprune.prune(make(), ratio=0.5, prove=False, **options)
    (made,) = result.choices
    assert made.cost == "macs" and made.whole == cost.macs(result.analysis)
    assert made.left == cost.macs(result.analysis, Removal(result.analysis, result.plan.selection).sizes())
    stepped = 0
    for one in made.groups:
        assert one.saved == pytest.approx(-share_saved(result, one.id, -one.removed), rel=1e-5)
        if one.next is not None and one.kind == "channel":
            stepped += 1
            assert one.next.saved == pytest.approx(
                share_saved(result, one.id, one.next.removed - one.removed), rel=1e-5
            )
    assert stepped or make is attention


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("options", [{}, {"allow_statistical": True, "align": 1}, {"uniform": True}])
def test_every_group_of_an_export_has_a_choice_with_a_reason(name: str, options: dict[str, Any]) -> None:
    result = graphprune.prune(models.export(name), ratio=0.3, prove=False, **options)
    (made,) = result.choices
    assert [one.id for one in made.groups] == [g.id for g in result.analysis.groups]
    assert all(one.why for one in made.groups)
    assert {one.id: one.removed for one in made.groups if one.removed} == {
        g.id: len(g.removed) for g in result.plan.groups
    }
    assert {u.group: (str(u), u.cause) for u in result.untouched} == {
        one.id: (one.why, one.cause) for one in made.groups if not one.removed
    }
    for one, entry in ((made.of(g.id), g) for g in result.plan.groups):
        assert one is not None and entry.score is not None and one.last is not None and one.first is not None
        assert one.last <= one.first or one.kind != "channel"
        assert one.last == max(entry.score[c] for c in entry.removed)


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.45])
def test_what_stays_lost_more_for_a_per_cent_than_it_was_worth(ratio: float) -> None:
    made = told(layers(40, 64, 96, 24, 48), ratio=ratio, calibration="generated")
    worth, found = made.worth_per_percent, by_cause(made)
    assert worth is not None and made.left <= made.limit * (1 + 1e-9)
    assert found.keys() <= {Cause.DEAR, Cause.MET, Cause.DEPTH} and Cause.DEAR in found
    for cause, own in found.items():
        for one in own:
            if cause is Cause.DEPTH:
                assert one.removed == one.most and one.next is None
                continue
            assert one.next is not None and one.next_per_percent is not None and one.error is not None
            beside = one.next_per_percent / worth
            assert beside > 1 - 1e-3 if cause is Cause.DEAR else beside < 1 + 1e-3
            assert one.removed < one.next.removed <= (one.most or 0)
    assert any(one.per_percent and one.per_percent < worth for one in made.groups)


@pytest.mark.parametrize("calibration", [None, "generated"])
def test_what_users_say_is_the_reason(calibration: str | None) -> None:
    model = layers(40, 40, 40, 40, 40)
    first, second, third, fourth, fifth = (g.id for g in graphprune.analyze(model).groups)
    steering = Steering(limits={second: 0.1, third: 0.01}, ratios={fourth: 0.25}, keep_last=1)
    options: dict[str, Any] = {"steering": steering, "exclude": [first], "calibration": calibration}
    made = told(model, ratio=0.5, **options)
    causes = {one.id: (one.removed, one.cause) for one in made.groups}
    assert causes[first] == (0, Cause.ASKED) and made.groups[0].why == f"excluded by {first!r}"
    assert causes[second] == (4, Cause.LIMIT) and "4 of its 40" in made.groups[1].why
    assert causes[third] == (0, Cause.ASKED) and "limit of 0.01" in made.groups[2].why
    assert causes[fourth] == (8, Cause.WIDTH) and made.groups[3].asked == 10
    assert causes[fifth] == (0, Cause.ASKED)


def test_widths_are_the_reason_where_they_round() -> None:
    assert [g.cause for g in told(layers(40, 40), ratio=0.25, align=1).groups] == [Cause.SHARE] * 2
    for one in told(layers(40, 40), ratio=0.25, align=8).groups:
        assert (one.removed, one.asked, one.cause, one.least, one.most) == (8, 10, Cause.WIDTH, 8, 32)
        assert one.next is not None and one.next.removed == 16
    result = graphprune.prune(layers(12, 64), ratio=0.25, align=16, calibration="generated")
    narrow, wide = result.choices[0].groups
    assert (narrow.removed, narrow.cause, narrow.most) == (0, Cause.WIDTH, None) and wide.removed == 16
    assert str(result.untouched[0]) == narrow.why


def test_groups_that_lose_the_same_classes_say_so() -> None:
    made = told(models.export("albert-ts14"), ratio=0.3)
    tied = {one.id: one for one in made.groups if one.tied}
    assert all(
        tied[other].removed == one.removed and one.id in tied[other].tied for one in tied.values() for other in one.tied
    )


def test_rounds_are_told_in_terms_of_the_original() -> None:
    model = residual()
    result = graphprune.prune(model, ratio=0.5, steps=3, align=1, calibration="generated", compensate="none")
    known = {g.id: g.size for g in result.analysis.groups}
    assert [made.round for made in result.choices] == [1, 2, 3]
    for made, entry in zip(result.choices, result.plan.rounds, strict=True):
        assert {one.id: one.removed for one in made.groups if one.removed} == {
            id: len(classes) for id, classes in entry["removed"].items()
        }
        assert {one.id: one.size for one in made.groups} == known
        known = {id: size - len(entry["removed"].get(id, ())) for id, size in known.items()}
        assert all(bool(one.weights) is (made.round == 1) for one in made.groups)


def test_targets_have_budgets_and_no_ratio() -> None:
    made = told(layers(64, 64, 64), target="params=0.6", calibration="generated")
    assert made.ratio is None and made.cost == "params"
    assert made.left <= made.limit and made.worth is not None
    assert all(one.asked is None for one in made.groups)


def test_a_plan_keeps_them_and_a_replay_too(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((16, 16), dtype=np.float32))
    options = {"ratio": 0.3, "calibration": tmp_path / "in.npz"}
    result = graphprune.prune(layers(40, 40, 40), out, **options)
    read = plan.load(tmp_path / "out.plan.json")
    assert choices.from_json(read.choices) == result.choices
    assert [one.to_json() for one in result.choices] == read.choices
    assert graphprune.apply(read, layers(40, 40, 40), tmp_path / "again.onnx").choices == result.choices
    data = read.to_json()
    del data["choices"]
    assert plan.from_json(data).choices == []


def test_the_format_of_plans_knows_every_cause(tmp_path: Path) -> None:
    """And layers that keep one width, of which groups say so, come to a plan that can be read."""
    text = json.dumps(schema("plan"))
    assert all(f'"{cause.name.lower()}"' in text for cause in Cause)
    options: dict[str, Any] = {"ratio": 0.3, "uniform_widths": True, "prove": False}
    out = tmp_path / "out.onnx"
    model = models.export("bert-ts11")
    held = next(group.id for group in graphprune.analyze(model).groups if group.kind == "head")
    result = graphprune.prune(model, out, **options, exclude=[held])
    read = plan.load(out.with_suffix(".plan.json"))
    told = [choice["cause"] for one in read.choices for choice in one["groups"]]
    assert "repeats" in told and read.choices == result.plan.choices


def test_classes_of_different_width_that_keep_one_width_are_told_each_in_its_own() -> None:
    """Of rotated queries pairs go, of values single elements: a family counts in the smaller ones, users in classes."""
    model = models.export("llama-dynamo23")
    own = [g for g in graphprune.analyze(model).groups if g.kind == "head_dim"]
    assert {g.size for g in own} == {8, 16}
    result = graphprune.prune(
        model, target="macs=0.95", uniform_widths=True, calibration="generated", compensate="none", prove=False,
        include=[g.id for g in own], align=2,
    )  # fmt: skip
    assert result.plan.selection.keys() == {g.id for g in own}
    told = {one.id: one for one in result.choices[-1].groups}
    for id, removed in result.plan.selection.items():
        one = told[id]
        assert one.removed == len(removed) and one.cause is not Cause.EMPTY
        assert one.least is not None and one.most is not None and one.least <= one.removed <= one.most < one.size
