"""Distillation: which models, inputs, times and students it is given, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import graphprune
import models
from graphprune.errors import InputError
from graphprune.gradients.adam import Adam
from graphprune.model import load
from graphprune.passes.distill import train
from graphprune.passes.distill.distill import Distill
from graphprune.passes.distill.pool import Pool
from graphprune.passes.recipe import Recipe
from graphprune.passes.recipes import Wish, pruning
from graphprune.passes.state import Job
from models.small import Net
from tests.passes.test_distill import distilled, inputs, plain, worse


def two_inputs(sizes: tuple[int | str, ...] = ("batch", "time"), ints: bool = True) -> ModelProto:
    net = Net()
    x, m = net.input("x", [*sizes, 8]), net.input("m", [*sizes, 1])
    y = net.op("Tanh", net.linear(net.op("Mul", x, m), 8, 12))
    y = net.linear(y, 12, 4)
    which = net.op("ArgMax", y, axis=-1, keepdims=0)
    model = net.model(y, rank=3)
    if ints:
        model.graph.output.append(helper.make_tensor_value_info(which, TensorProto.INT64, [None, None]))
    return model


def feeds_of(lengths: list[int], batch: int = 1) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((batch, t, 8)).astype(np.float32), "m": np.ones((batch, t, 1), np.float32)}
        for t in lengths
    ]


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [(("batch", "time"), [3, 4, 5, 6] * 3), ((1, 5), [5] * 12), (("batch", "time"), [5] * 12)],
    ids=["lengths", "fixed", "joined"],
)
def test_inputs_that_cannot_be_joined_are_run_one_at_a_time(sizes: tuple[int | str, ...], lengths: list[int]) -> None:
    teacher = two_inputs(sizes)
    result = distilled(worse(teacher), teacher, calibration=feeds_of(lengths), batch=3)
    done = result.distilled
    assert done is not None and done.kept and done.course.after < 0.8 * done.course.before
    assert list(done.skipped.values()) == ["it holds int64"]


def test_a_model_that_only_counts_cannot_learn() -> None:
    model = two_inputs()
    del model.graph.output[0]
    with pytest.raises(InputError, match="none of its outputs holds floats that could be learnt"):
        distilled(worse(model), model, calibration=feeds_of([5] * 12))


def test_a_teacher_without_an_output_of_the_student() -> None:
    teacher = plain()
    other = helper.make_model(parser.parse_graph("g (float[batch, 8] x) => (float[batch, 8] z) {z = Sqrt(x)}"))
    other.opset_import[0].version, other.ir_version = 17, 9
    there = teacher.graph.output[0].name
    words = f"none of its outputs holds floats that could be learnt from the original's; it has {there}, .* has z$"
    with pytest.raises(InputError, match=words):
        distilled(teacher, other)


def test_steps_are_timed_apart_from_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = [0.0], [4.0, 1.0]
    adam = SimpleNamespace(flat=np.zeros(1), reset=lambda: None)

    def loss(_: object) -> float:
        clock[0] += looks.pop()
        return 0.0

    def step(*_: object) -> None:
        clock[0] += 0.1

    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])
    lesson: Any = SimpleNamespace(
        trainer=SimpleNamespace(adam=adam, step=step, loss=loss), held=[], batches=lambda *_, **__: []
    )
    assert train._affordable(lesson, train.Schedule(steps=None, seconds=100.0, rate=1e-3))[1] < 1000


def test_a_time_says_how_many_steps() -> None:
    teacher = plain()
    result = distilled(worse(teacher), teacher, steps=None, time="1s", rate=None)
    assert result.distilled is not None and result.distilled.course.steps > 3
    assert result.distilled.course.seconds > 0.2


@pytest.mark.parametrize("rate", [None, 0.01])
@pytest.mark.parametrize("seconds", [20, 70, 200, 1000])
def test_a_time_holds_with_the_search_for_a_rate(
    seconds: float, rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    class Slow:
        """A step takes a second, a look at what is held out a tenth."""

        adam = Adam({"w": np.ones(2, np.float32)})

        def step(self, batches: Any, rate: float) -> None:
            clock[0] += 1
            self.adam.steps += 1

        def loss(self, batches: Any) -> float:
            clock[0] += 0.1
            return 1.0

    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    lesson = train.Lesson(Slow(), lambda feeds: feeds, Pool([{}], joins=False), [])  # type: ignore[arg-type]
    course = train.train(lesson, train.Schedule(None, seconds, rate))
    assert 0.7 * seconds < clock[0] < 1.1 * seconds and course.steps > 0.4 * seconds


def test_what_is_not_finite_cannot_be_learnt_from() -> None:
    student = worse(plain())
    weight = next(t for t in student.graph.initializer if len(t.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.inf, np.float32), weight.name))
    with pytest.raises(InputError, match=r"its loss on inputs that are held out is (nan|inf), and nothing can be"):
        distilled(student, plain())


def test_weights_that_no_gradient_reaches_are_told_where_there_are_no_others() -> None:
    net = Net()
    y = net.conv(net.input("x", [2, 3, 8, 8]), 3, 8)
    rois = net.constant(np.array([[0, 0, 0, 7, 7], [1, 2, 2, 5, 5]], np.float32))
    teacher = net.model(net.op("MaxRoiPool", y, rois, pooled_shape=[3, 3]))
    pictures = {"x": np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)}
    with pytest.raises(InputError, match="has no gradient: MaxRoiPool node"):
        distilled(worse(teacher), teacher, calibration=pictures, seams=0.0)


@pytest.mark.parametrize("how", ["plan", "file", "none"])
def test_a_student_of_another_shape(how: str, tmp_path: Path) -> None:
    teacher = plain(wide=32)
    small = graphprune.prune(teacher, tmp_path / "s.onnx", ratio=0.5)
    plan = {"plan": small.plan, "file": tmp_path / "s.plan.json", "none": None}[how]
    result = distilled(small.proto, teacher, plan=plan)
    assert result.distilled is not None and result.distilled.kept
    assert ({"matmul_10", "matmul_18"} <= result.distilled.losses.keys()) == (
        how != "none"
    )  # else only what is of one shape
    assert result.after.parameters == small.after.parameters
    with pytest.raises(InputError, match="plan is of the teacher: give that too"):
        graphprune.run_recipe(Recipe((Distill(plan=small.plan),), Job(calibration=inputs())), small.proto)


def test_strangers() -> None:
    teacher, other = plain(), two_inputs()
    with pytest.raises(InputError, match="its input 'm' is none of the teacher's"):
        distilled(other, teacher)
    with pytest.raises(InputError, match=r"nothing\.onnx: no such file"):
        distilled(teacher, "nothing.onnx")
    with pytest.raises(InputError, match=r"'x\*' matches no weight"):
        distilled(worse(teacher), teacher, include=["x*"])
    with pytest.raises(InputError, match="there are 3: give at least 4"):
        distilled(worse(teacher), teacher, calibration=inputs(3))


def test_prune_distils_behind_each_round() -> None:
    calibrated = Job(calibration=inputs())
    recipe = pruning(Wish(0.5, steps=2), calibrated, distill="40")
    names = [one.name for one in recipe.passes]
    first = ["select", "cut", "fold-constants", "fit", "distill"]
    assert names == ["centre", "rotate", *first, *first, "smaller"]
    assert [one.steps for one in recipe.passes if isinstance(one, Distill)] == [10, 40]
    timed = pruning(Wish(0.5, steps=2), calibrated, distill="2m").passes
    assert [one.time for one in timed if isinstance(one, Distill)] == ["30s", "2m"]
    result = graphprune.run_recipe(recipe, plain(wide=32))
    assert len(result.rounds) == 2 and result.proof is not None and result.proof.worst < 1e-5
    assert result.distilled is not None and result.distilled.kept
    rounds = graphprune.sparsify(
        plain(), pattern="unstructured", amount=0.7, steps=2, include=["*"], calibration=inputs(), distill=8
    )
    assert rounds.sparse is not None and len(rounds.sparse.rounds) == 2 and rounds.distilled is not None
    again = graphprune.apply(result.plan, plain(wide=32))
    assert again.after.macs == result.after.macs and any("the plan distilled" in note for note in again.notes)


def test_biases_that_a_fit_has_added_hide_no_weight() -> None:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 32, bias=False))
    x = net.op("Relu", net.linear(x, 32, 16, bias=False))
    model = net.model(net.linear(x, 16, 4, bias=False), rank=2)
    x = {"x": inputs(256)["x"] + 1}
    result = graphprune.prune(model, ratio=0.5, calibration=x, distill=4)
    assert len(result.proto.graph.node) > len(model.graph.node)
    assert result.distilled is not None and len(result.distilled.weights) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: graphprune.prune(plain(), ratio=0.5, distill=True), "--distill learns on inputs: give them by"),
        (
            lambda: graphprune.prune(plain(), ratio=0.5, distill="soon", calibration=inputs()),
            "--distill soon: give steps",
        ),
        (lambda: distilled(plain(), plain(), time="5m"), "give steps or time, not both"),
        (lambda: distilled(plain(), plain(), steps=None, time="5x"), "--time 5x: is no time"),
        (lambda: distilled(plain(), plain(), loss="cubes"), "there is no loss 'cubes'"),
        (lambda: distilled(plain(), plain(), train="half"), "train is weights or all, not 'half'"),
        (lambda: distilled(plain(), plain(), rate=0.0), "rate must be above 0"),
        (lambda: distilled(plain(), plain(), labels=1.5), "labels must be between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_what_would_undo_it_comes_first(tmp_path: Path) -> None:
    text = 'format = "graphprune-recipe/1"\n[job]\ncalibration = "generated"\n' + '[[passes]]\nuse = "%s"\n' * 2
    path = tmp_path / "r.toml"
    path.write_text(text % ("distill", "fit"))
    with pytest.raises(InputError, match=r"r\.toml:5: pass 'distill': 'fit' is ahead, and would undo"):
        graphprune.run_recipe(path, load(plain()))


def test_a_batch_that_only_looks_free_is_not_joined() -> None:
    net = Net()
    x = net.op("Reshape", net.input("x", ["batch", 8]), net.ints(1, 8))
    model = net.model(net.linear(net.op("Tanh", net.linear(x, 8, 12)), 12, 4), rank=2)
    single = [{"x": inputs(16)["x"][k : k + 1]} for k in range(16)]
    result = distilled(worse(model), model, calibration=single)
    assert result.distilled is not None and result.distilled.kept


def test_outputs_that_are_no_tensors_are_told() -> None:
    model = models.export("sklearn-classifier-skl17")
    x = np.random.default_rng(0).standard_normal((32, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value))
    given = {model.graph.input[0].name: x.astype(np.float32)}
    with pytest.raises(InputError, match="none of its outputs holds floats that could be learnt"):
        distilled(worse(model), model, calibration=given)
