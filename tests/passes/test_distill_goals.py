"""What a student learns: labels beside the original, and losses of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import InputError, UserCodeError
from graphprune.model import Model
from graphprune.passes.distill import checkpoint, custom, labels
from graphprune.passes.distill.losses import Measure, measure
from graphprune.passes.distill.pool import Pool
from graphprune.passes.holding import split
from graphprune.passes.state import Job
from graphprune.progress import Progress
from graphprune.run import calibration, samples
from models.small import Net
from tests.helpers import constants, run

X = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)


def classifier(seed: int = 0, softmax: bool = True, classes: int = 4) -> ModelProto:
    net = Net(seed)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 16))
    y = net.linear(y, 16, classes)
    return net.model(net.op("Softmax", y, axis=-1) if softmax else y, rank=2)


def noisy(model: ModelProto) -> ModelProto:
    """The same with noise on its matrices."""
    made, rng = ModelProto(), np.random.default_rng(1)
    made.CopyFrom(model)
    for tensor in (t for t in made.graph.initializer if len(t.dims) > 1):
        value = numpy_helper.to_array(tensor)
        value = value + (0.3 * value.std() * rng.standard_normal(value.shape)).astype(value.dtype)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return made


def output(model: ModelProto) -> str:
    return str(model.graph.output[0].name)


def learnt(student: ModelProto, teacher: ModelProto, **options: Any) -> graphprune.Result:
    given = {"calibration": {"x": X}, "steps": 40, "rate": 1e-2, "seams": 0.0, "augment": False, **options}
    return graphprune.distill(student, teacher, **given)


@pytest.mark.parametrize(("count", "micro"), [(12, 8), (16, 8), (3, 2), (5, 1)])
def test_all_of_a_pool_is_seen(count: int, micro: int) -> None:
    pool = Pool([{"x": np.full((1, 2), k, np.float32)} for k in range(count)], True, micro)
    runs = pool.all()
    assert {one["x"].shape for one in runs} == {(micro, 2)}
    assert sorted({int(k) for one in runs for k in one["x"][:, 0]}) == list(range(count))


@pytest.mark.parametrize("softmax", [True, False])
def test_labels_are_learnt_beside_the_teacher(softmax: bool) -> None:
    teacher = classifier(softmax=softmax)
    right = X[:, :4].argmax(1)  # unlike what the teacher says
    label = f"label:{output(teacher)}"

    def likelihood(model: ModelProto) -> float:
        made = run(model, {"x": X})[0]
        made = made if softmax else np.exp(made) / np.exp(made).sum(-1, keepdims=True)
        return float(-np.log(made[np.arange(64), right]).mean())

    both = learnt(teacher, teacher, calibration={"x": X, label: right})
    alone = learnt(teacher, teacher, calibration={"x": X, label: right}, labels=1.0)
    assert both.distilled is not None and both.distilled.losses[label] == "cross entropy"
    assert alone.distilled is not None and list(alone.distilled.losses) == [label] and not alone.distilled.skipped
    assert likelihood(alone.proto) < likelihood(both.proto) < likelihood(teacher)
    course = alone.distilled.course
    held = split(64)[0]
    made = run(teacher, {"x": X[held]})[0]
    made = made if softmax else np.exp(made) / np.exp(made).sum(-1, keepdims=True)
    assert course.before == pytest.approx(-np.log(made[np.arange(16), right[held]]).mean(), rel=1e-4)
    without = learnt(teacher, teacher, calibration={"x": X, label: right}, labels=0.0)
    assert without.plan.distilled is None and any("nothing to learn" in note for note in without.notes)


def test_labels_of_floats_are_what_the_output_should_be() -> None:
    net = Net()
    teacher = net.model(net.linear(net.input("x", ["batch", 8]), 8, 1), rank=2)
    wanted = X[:, 0] * 2
    found = learnt(teacher, teacher, calibration={"x": X, f"label:{output(teacher)}": wanted}, labels=1.0, rate=0.05)
    assert found.distilled is not None and set(found.distilled.losses.values()) == {"squares"}
    before, after = (np.square(run(m, {"x": X})[0][:, 0] - wanted).mean() for m in (teacher, found.proto))
    assert after < 0.8 * before


def test_the_axis_of_classes_and_what_counts_for_nothing() -> None:
    made = {"y": [np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)]}
    marks = np.array([[0, -100, 4], [1, 2, -1]])
    known = labels.read([{"label:y": marks}], made)
    assert known is not None and known.measures == {"y": Measure("logits", 1)} and known.classes == {"y": 5}
    target = known.targets({"label:y": marks})["label:y"]
    assert target.shape == (2, 5, 3) and not target[0, :, 1].any() and not target[1, :, 2].any()
    np.testing.assert_allclose(target.sum(1)[marks >= 0], 6 / 4)
    assert target[0, 4, 2] == pytest.approx(6 / 4)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full(64, 4), "holds class 4, and the output has 4, 0 to 3"),
        (np.zeros((64, 3), np.int64), "labels of shape 16x3 fit no axis of an output of shape 16x4"),
        (np.zeros(64, np.float32), "labels of shape 16 are of type float32"),
        (np.array(["a"] * 64), "is of type <U1; labels are numbers"),
        (np.zeros(63, np.int64), "different numbers of samples"),
        (np.float32(1), "is a single number, and has no samples along an axis"),
    ],
)
def test_labels_that_do_not_fit(value: np.ndarray, words: str) -> None:
    teacher = classifier()
    with pytest.raises(InputError, match=re.escape(words)):
        learnt(teacher, teacher, calibration={"x": X, f"label:{output(teacher)}": value}, batch=64)


def test_labels_of_strangers() -> None:
    teacher = classifier()
    with pytest.raises(InputError, match="'label:z' is a label of no output; the model has "):
        learnt(teacher, teacher, calibration={"x": X, "label:z": np.zeros(64)})
    some = [
        {"x": X[k : k + 4], **({f"label:{output(teacher)}": np.zeros(4, int)} if k else {})} for k in range(0, 64, 4)
    ]
    with pytest.raises(InputError, match=r"some inputs have .* and others do not"):
        learnt(teacher, teacher, calibration=some[::-1])


def test_all_else_passes_labels_over(tmp_path: Path) -> None:
    model = classifier()
    odd = {"x": X, f"label:{output(model)}": np.zeros(7), "label:": np.array(["a", "b"], dtype=object)}
    plain, with_labels = (graphprune.prune(model, ratio=0.5, calibration=c) for c in ({"x": X}, odd))
    assert plain.plan.to_json() == with_labels.plan.to_json()
    place, loaded = tmp_path / "in.npz", Model(model)
    np.savez(place, x=X, **{f"label:{output(model)}": np.arange(64) % 4, "other": np.zeros(3)})
    assert [set(one) for one in samples.load(place, loaded)] == [{"x"}] * 8
    for source in (str(place), str(tmp_path)):
        read = list(calibration.batches(source, loaded, labels=True)())
        assert [set(one) for one in read] == [{"x", f"label:{output(model)}"}] * 8
        np.testing.assert_array_equal(
            np.concatenate([one[f"label:{output(model)}"] for one in read]), np.arange(64) % 4
        )
    assert Job(calibration=odd).calibration is odd


def test_pictures_with_labels_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(models.trained("digits-cnn"))
    x = np.random.default_rng(0).random((16, 1, 8, 8)).astype(np.float32)
    made: list[bool] = []

    def train(lesson: Any, *_: Any) -> Any:
        made.append(lesson.augment is None)
        raise InputError("enough")

    monkeypatch.setattr("graphprune.passes.distill.distill.train", train)
    for inputs in ({"image": x}, {"image": x, "label:logits": np.zeros(16, int)}):
        with pytest.raises(InputError, match="enough"):
            graphprune.distill(noisy(model), model, calibration=inputs)
    assert made == [False, True]


def loss_file(name: str, kind: str = "absolute", opset: int = 17) -> ModelProto:
    """The mean distance of an output, or with labels the mean over what is labelled so."""
    reads = [helper.make_tensor_value_info(f"{p}:{name}", TensorProto.FLOAT, ["n", 4]) for p in ("student", "teacher")]
    nodes = [
        helper.make_node("Sub", [f"student:{name}", f"teacher:{name}"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
    ]
    if kind == "labelled":
        reads.append(helper.make_tensor_value_info(f"label:{name}", TensorProto.INT64, ["n", 1]))
        nodes.append(helper.make_node("GatherElements", ["a", f"label:{name}"], ["b"], axis=1))
    nodes.append(helper.make_node("ReduceMean", ["b" if kind == "labelled" else "a"], ["l"], keepdims=0))
    graph = helper.make_graph(nodes, "own", reads, [helper.make_tensor_value_info("l", TensorProto.FLOAT, ())])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
@pytest.mark.parametrize("kind", ["absolute", "labelled"])
def test_a_loss_that_is_a_file(kind: str, opset: int, tmp_path: Path) -> None:
    teacher = classifier(softmax=False)
    student = noisy(teacher)
    name, place = output(teacher), tmp_path / "own.onnx"
    onnx.save(loss_file(name, kind, opset), place)
    marks = np.random.default_rng(2).integers(0, 4, (64, 1))
    given = {"x": X, f"label:{name}": marks} if kind == "labelled" else {"x": X}
    result = learnt(student, teacher, calibration=given, loss=str(place))
    done, held = result.distilled, split(64)[0]
    assert done is not None and done.kept and done.losses == {name: "own.onnx"}
    for model, loss in ((student, done.course.before), (result.proto, done.course.after)):
        away = np.abs(run(model, {"x": X[held]})[0] - run(teacher, {"x": X[held]})[0])
        assert loss == pytest.approx(
            away.mean() if kind == "absolute" else np.take_along_axis(away, marks[held], 1).mean()
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("student:", "pupil:"), "is none of student:NAME, teacher:NAME and label:NAME"),
        (("teacher:", "teacher:no"), "the teacher has no tensor"),
        (("student:", "student:no"), "the student has no tensor"),
    ],
)
def test_files_that_are_no_loss(change: tuple[str, str], words: str, tmp_path: Path) -> None:
    teacher, place = classifier(softmax=False), tmp_path / "own.onnx"
    made = loss_file(output(teacher))
    for value in made.graph.input:
        value.name = value.name.replace(*change)
    made.graph.node[0].input[:] = [value.name for value in made.graph.input]
    onnx.save(made, place)
    with pytest.raises(InputError, match=f"own.onnx: .*{words}"):
        learnt(teacher, teacher, loss=str(place))
    onnx.save(loss_file(output(teacher), "labelled"), place)
    with pytest.raises(InputError, match=r"reads 'label:.*', which the inputs do not have"):
        learnt(teacher, teacher, loss=str(place))


OWN = """
import numpy as np

def distance(student, teacher):
    found, gradients = 0.0, {}
    for name, value in student.items():
        away = value - teacher[name]
        found += float(np.square(away).mean())
        gradients[name] = 2 * away / away.size
    return found, gradients

def below_zero(student, teacher):
    found, gradients = distance(student, teacher)
    return found - 1000, gradients

def raises(student, teacher):
    return {}["nothing"]

def alone(student, teacher):
    return 1.0

def shape(student, teacher):
    return 1.0, {name: value[..., :1] for name, value in student.items()}

def strange(student, teacher):
    return 1.0, {"z": 1.0}
"""


def test_a_loss_that_is_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ownloss.py").write_text(OWN)
    teacher = classifier(softmax=False)
    student = noisy(teacher)
    result = learnt(student, teacher, loss="ownloss:distance")
    done, held = result.distilled, split(64)[0]
    assert done is not None and done.kept and done.losses == {output(teacher): "ownloss:distance"}
    for model, loss in ((student, done.course.before), (result.proto, done.course.after)):
        away = run(model, {"x": X[held]})[0] - run(teacher, {"x": X[held]})[0]
        assert loss == pytest.approx(np.square(away).mean(), rel=1e-4)
    again = learnt(student, teacher, loss=custom.function("ownloss:distance")[0])
    for name, value in constants(result.proto).items():
        np.testing.assert_array_equal(constants(again.proto)[name], value)
    lower = learnt(student, teacher, loss="ownloss:below_zero").distilled
    assert lower is not None and lower.course.steps == 40 and lower.kept  # no distance: less than nothing can be learnt
    with pytest.raises(UserCodeError, match=r"ownloss:raises: raised KeyError: 'nothing', at .*ownloss\.py:17"):
        learnt(student, teacher, loss="ownloss:raises")
    for name, words in (
        ("alone", r"must give the loss, and by output its gradient"),
        ("shape", "the gradient of .* must be of shape"),
        ("strange", "gives a gradient of 'z', which is no output"),
        ("absent", "has no attribute 'absent'"),
    ):
        with pytest.raises(InputError, match=f"ownloss:{name}: .*{words}"):
            learnt(student, teacher, loss=f"ownloss:{name}")


def test_a_checkpoint_is_of_one_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    teacher, place, kept = classifier(softmax=False), tmp_path / "own.onnx", tmp_path / "kept"
    own = loss_file(output(teacher))
    onnx.save(own, place)

    def stop(progress: Progress) -> None:
        if progress.phase == "distill" and progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learnt(noisy(teacher), teacher, loss=str(place), checkpoint=kept, progress=Progress(stop))
    own.graph.node[1].op_type = "Relu"
    onnx.save(own, place)
    with pytest.raises(InputError, match="is the checkpoint of another training"):
        learnt(noisy(teacher), teacher, loss=str(place), checkpoint=kept)


def test_what_is_empty_at_times_is_compared_by_the_rest() -> None:
    some, none = np.arange(8, dtype=np.float32).reshape(2, 4), np.zeros((0, 4), np.float32)
    found = measure([none, some])
    assert found is not None and found.loss == "squares"
    assert measure([none]) is None and measure([none, np.ones((2, 4), np.float32)]) is None
