"""Removal and sparsity in rounds: what is chosen of a cut model is told and proven in terms of the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import graphprune
import models
from graphprune.analysis import analyze, patterns
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes import driver, recipes
from graphprune.passes.recipes import Wish
from graphprune.passes.sparse import thinning
from graphprune.passes.state import Job, State
from graphprune.progress import Progress
from graphprune.rewrite import lineage
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import rewrite
from models.small import Net
from tests.helpers import command, constants, mask_by_hand, relative, run

HEAD = 'format = "graphprune-recipe/1"\n'
ROUNDS = (
    "[[passes]]\nuse = 'select'\nratio = 0.25\n[[passes]]\nuse = 'cut'\n%s"
    "[[passes]]\nuse = 'select'\nratio = 0.5\n[[passes]]\nuse = 'cut'\n"
)


def plain(wide: int = 32) -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 4, 16]), 16, wide))
    x = net.op("Relu", net.linear(x, wide, 24))
    return net.model(net.linear(x, 24, 8), rank=3)


def inputs(count: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((count, 4, 16)).astype(np.float32)}


def shapes(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    return sorted(tuple(t.dims) for t in model.graph.initializer)


@pytest.mark.parametrize("name", ["", "llama-dynamo18", "shufflenet-v1-ts9", "feature-pyramid-ts11"])
def test_rounds_remove_as_much_as_one_step(name: str) -> None:
    model = models.export(name) if name else plain()
    once, often = graphprune.prune(model, ratio=0.5), graphprune.prune(model, ratio=0.5, steps=3)
    assert often.after.macs == once.after.macs and len(often.rounds) == 3 and not once.rounds
    assert {g.id: len(g.removed) for g in often.plan.groups} == {g.id: len(g.removed) for g in once.plan.groups}
    left = [one.macs for one in often.rounds]
    assert left == sorted(left, reverse=True) and left[-1] == often.after.macs
    told: dict[str, list[int]] = {}
    for one in often.plan.rounds:
        assert one["proof"] < 1e-5
        for id, classes in one["removed"].items():
            assert not {*told.get(id, ())} & {*classes}
            told[id] = sorted([*told.get(id, ()), *classes])
    assert told == {g.id: g.removed for g in often.plan.groups}
    again = graphprune.apply(often.plan, model)
    assert again.after.macs == often.after.macs and not again.rounds


def test_the_plan_counts_in_the_original() -> None:
    model = plain()
    result = graphprune.prune(model, ratio=0.5, steps=4)
    masked = mask_by_hand(model, result.plan.to_json())
    feeds = inputs(3)
    assert relative(run(masked, feeds)[0], run(result.proto, feeds)[0]) < 1e-5
    kept = constants(result.proto)
    for entry in result.plan.slices:
        value = constants(model)[entry.source]
        for axis, gone in entry.removed.items():
            value = np.delete(value, gone, int(axis))
        np.testing.assert_array_equal(kept[entry.result], value)


def test_fits_stand_between_and_are_of_the_original(tmp_path: Path) -> None:
    model, x = plain(), inputs()
    result = graphprune.prune(model, tmp_path / "s.onnx", ratio=0.5, steps=3, calibration=x)
    assert [len(one["removed"]) > 0 for one in result.plan.rounds] == [True] * 3
    again = graphprune.apply(tmp_path / "s.plan.json", model)
    assert shapes(again.proto) == shapes(result.proto) and again.after.macs == result.after.macs
    wanted = run(model, x)[0]
    errors = [float(np.square(run(m, x)[0] - wanted).mean()) for m in (result.proto, again.proto)]
    assert errors[0] < 0.7 * errors[1]
    nodes = [entry["node"] for entry in result.plan.compensated]
    assert len(nodes) == len(set(nodes)) > 0
    unfitted = graphprune.prune(model, ratio=0.5, steps=3, calibration=x, compensate="none")
    assert unfitted.plan.to_json() != result.plan.to_json()  # ranked anew, on what fits have made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_two_cuts_are_one_of_the_original(data: st.DataObject) -> None:
    first = analyze(plain())

    def some(analysis: Any) -> dict[str, list[int]]:
        every = {g.id: st.sets(st.integers(0, g.size - 1), max_size=g.size // 2) for g in analysis.groups}
        return {id: sorted(data.draw(classes)) for id, classes in every.items()}

    one = rewrite(first, some(first))
    later = analyze(one.model, first.witness.inputs)
    kin = lineage.ancestors(one.removal, later)
    assert set(kin) == {g.id for g in later.groups}
    more = some(later)
    two = rewrite(later, more)
    every = {id: sorted({*one.plan.selection.get(kin[id].group.id, ()), *kin[id].told(c)}) for id, c in more.items()}
    for id, classes in more.items():
        assert kin[id].here(kin[id].told(classes)) == classes
    both = rewrite(first, {kin[id].group.id: classes for id, classes in every.items()})
    assert lineage.disagreement(one.removal, later, two.removal, both.removal) is None
    found, wanted = ([numpy_helper.to_array(t) for t in m.proto.graph.initializer] for m in (two.model, both.model))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    less = rewrite(first, {id: c[1:] for id, c in both.plan.selection.items()})
    if any(both.plan.selection.values()):
        assert lineage.disagreement(one.removal, later, two.removal, less.removal) is not None


def test_rounds_that_permute_are_proven_as_one() -> None:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, 128))
    x = net.op("Relu", net.linear(x, 128, 128))
    model = net.model(net.linear(x, 128, 64), rank=3)
    wish = graphprune.passes.sparse.sparse.Request("2:4", permute=True)
    result = graphprune.prune(model, ratio=0.25, steps=2, sparsity=wish)
    assert any(entry.order for entry in result.plan.groups) and len(result.rounds) == 2
    assert result.proof is not None and result.proof.worst < 1e-5
    assert {entry["pattern"] for entry in result.plan.sparsity} == {"2:4"}
    again = graphprune.apply(result.plan, model)
    np.testing.assert_array_equal(
        *(run(one.proto, {"x": np.ones((1, 8, 64), np.float32)})[0] for one in (result, again))
    )


def test_a_flat_recipe_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(HEAD + ROUNDS % "[[passes]]\nuse = 'fold-constants'\n")
    result = graphprune.run_recipe(path, plain())
    assert [round(len(g.removed) / g.size, 3) for g in result.plan.groups] == [0.5, 0.5]
    for between, words in (
        ("[[passes]]\nuse = 'own:step'\n", "'own:step' stands between it and the next 'cut'"),
        ("[[passes]]\nuse = 'remove-blocks'\n", "'remove-blocks' stands between it and the next 'cut'"),
    ):
        path.write_text(HEAD + ROUNDS % between)
        with pytest.raises(InputError, match=words) as wrong:
            graphprune.run_recipe(path, plain())
        assert str(wrong.value).startswith(f"{path}:6: pass 'cut': ")


def test_of_a_round_that_chooses_nothing_the_next_has_the_say() -> None:
    result = graphprune.prune(plain(), ratio=0.125, steps=4, align=1)
    assert [len(g.removed) for g in result.plan.groups] == [4, 3] and result.rounds


def test_what_only_one_step_wants_is_as_it_was() -> None:
    job = Job()
    assert recipes.pruning(Wish(0.3), job) == recipes.pruning(Wish(0.3, steps=1), job)
    assert Wish(0.75, steps=2).shares() == pytest.approx([0.5, 0.75])
    for wish, words in ((Wish(0.3, steps=0), "--steps 0 is out of range"), (Wish(steps=2), "give one")):
        with pytest.raises(InputError, match=words):
            recipes.pruning(wish, job)


def test_progress_numbers_what_rounds_have_in_common() -> None:
    recipe = recipes.pruning(Wish(0.5, steps=2), Job(calibration=inputs()))
    model = Model(plain())
    state = State(model, model, Plan({}), recipe.job)
    found = driver.phases(recipe.passes, state, True)
    assert found[:5] == ["load", "analyze", "centre", "rotate", "round 1: observe"] and found[-1] == "write"
    assert found.index("round 1: fit") < found.index("round 2: observe") < found.index("round 2: prove")
    seen: list[str] = []
    graphprune.run_recipe(recipe, plain(), progress=Progress(lambda p: seen.append(p.phase)))
    order = list(dict.fromkeys(seen))
    assert order == [phase for phase in found if phase in order] and "round 2: fit" in order


def test_patterns_grow() -> None:
    single = patterns.parse("unstructured", 0.8).growing(4)
    assert [amount for _, amount in single] == pytest.approx([0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)])
    assert [text for text, _ in patterns.parse("2:4").growing(2)] == ["3:4", "2:4"]
    assert [text for text, _ in patterns.parse("1:8").growing(3)] == ["5:8", "3:8", "1:8"]
    for pattern in (patterns.parse("2:4"), patterns.parse("1x4", 0.5)):
        assert pattern.growing(1) == [(str(pattern), getattr(pattern, "amount", None))]
    with pytest.raises(InputError, match="--steps 3: between dense and 2:4 there are 2"):
        patterns.parse("2:4").growing(3)


@pytest.mark.parametrize("rewind", [False, True])
def test_single_weights_go_in_rounds(rewind: bool) -> None:
    model, x = plain(), inputs()
    result = graphprune.sparsify(
        model, pattern="unstructured", amount=0.8, steps=3, rewind=rewind, calibration=x, include=["*"]
    )
    assert result.sparse is not None and len(result.sparse.rounds) == 3
    assert result.sparse.rounds == sorted(result.sparse.rounds) and result.sparse.share == pytest.approx(0.8, abs=0.01)
    assert all(entry["rounds"] == 3 and entry["kept_magnitude"] < 0.7 for entry in result.plan.sparsity)
    again = graphprune.apply(result.plan, model)  # fits stood between: masks do not follow from the original
    assert again.sparse is None and any("chose sparse weights on calibration inputs" in note for note in again.notes)


def test_rewinding_keeps_zeros_and_takes_all_else_from_the_original() -> None:
    first = Model(plain())
    once = graphprune.sparsify(first, pattern="unstructured", amount=0.5, calibration=inputs(), include=["*"])
    assert once.sparse is not None and any(fit.kept for fit in once.fits)
    targets = [one.target for one in once.sparse.thinned]
    back = constants(thinning.rewound(once.model, first, targets).proto)
    was, now = constants(first.proto), constants(once.proto)
    assert set(back) == set(was)
    for name, value in back.items():
        stays = now[name] != 0 if name in {t.weight for t in targets} else np.ones(value.shape, bool)
        np.testing.assert_array_equal(value, was[name] * stays)
    wider = replace(targets[0], weight="none of this name")
    with pytest.raises(InputError, match="leave out --rewind"):
        thinning.rewound(once.model, first, [wider])


def test_what_makes_no_sense_in_rounds_is_refused() -> None:
    for options, words in (
        ({"pattern": "2:4", "rewind": True}, "--rewind is for --pattern unstructured"),
        ({"pattern": "unstructured", "amount": 0.5, "rewind": True}, "with inputs to fit on"),
        ({"pattern": "2:4", "steps": 5}, "--steps 5: between dense and 2:4 there are 2"),
        ({"steps": 0}, "--steps 0 is out of range"),
        ({"pattern": "2:4", "steps": 2}, "rounds come to what one does"),
    ):
        with pytest.raises(InputError, match=words):
            graphprune.sparsify(plain(), **options)


def test_the_command_line_tells_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(plain(), "m.onnx")
    status, out, error = command(capsys, "prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "--steps", "2")
    assert status == 0, error
    assert "round 1: " in out and "round 2: " in out and "of 2 groups went" in out
    status, out, _ = command(capsys, "apply", "s.plan.json", "m.onnx", "-o", "t.onnx")
    assert status == 0 and "round" not in out
    assert shapes(onnx.load("t.onnx")) == shapes(onnx.load("s.onnx"))
