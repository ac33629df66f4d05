"""Distillation: what it changes and what it does not, on models of every make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import graphprune
from graphprune.errors import InputError
from graphprune.passes.distill import checkpoint
from graphprune.progress import Progress
from graphprune.rewrite import plan as plans
from models.small import Net
from tests.helpers import constants, relative, run

RATE = 3e-3


def plain(dtype: type = np.float32, batch: int | str = "batch", wide: int = 16) -> ModelProto:
    net = Net()
    net.dtype = dtype
    x = net.input("x", [batch, 8])
    x = net.op("Relu", net.linear(x, 8, wide))
    x = net.op("Relu", net.linear(x, wide, wide))
    return net.model(net.linear(x, wide, 4), rank=2)


def inputs(count: int = 32, dtype: type = np.float32, **others: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((count, 8)).astype(dtype), **others}


def worse(model: ModelProto, by: float = 0.3, zeros: bool = False) -> ModelProto:
    """The same with noise on what has more than one axis, as pruning leaves it."""
    made, rng = ModelProto(), np.random.default_rng(1)
    made.CopyFrom(model)

    def noisy(tensor: TensorProto) -> None:
        value = numpy_helper.to_array(tensor)
        if value.dtype.kind == "f" and value.ndim > 1:
            value = value + by * value.std() * rng.standard_normal(value.shape)
            value = value * (rng.random(value.shape) < 0.6) if zeros else value
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(kind), tensor.name))

    def all_of(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            noisy(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    noisy(attribute.t)
                if attribute.HasField("g"):
                    all_of(attribute.g)

    all_of(made.graph)
    return made


def distilled(student: Any, teacher: Any, output: Path | None = None, **options: Any) -> graphprune.Result:
    return graphprune.distill(
        student, teacher, output, **{"calibration": inputs(), "steps": 24, "rate": RATE, "augment": False, **options}
    )


def test_it_learns_and_leaves_alone_what_is_no_weight() -> None:
    teacher = plain()
    student = worse(teacher)
    result = distilled(student, teacher)
    done, feeds = result.distilled, {"x": inputs(64)["x"][48:]}
    assert done is not None and done.kept and done.course.after < 0.7 * done.course.before
    wanted = run(teacher, feeds)[0]
    assert relative(wanted, run(result.proto, feeds)[0]) < relative(wanted, run(student, feeds)[0])
    before, after = constants(student), constants(result.proto)
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert changed == {name for name, value in before.items() if value.ndim == 2} == set(done.weights)
    plans.from_json(json.loads(json.dumps(result.plan.to_json())))
    entry = result.plan.distilled
    assert entry is not None and entry["weights"] == done.weights and 0 < entry["best"] <= entry["steps"] == 24
    assert entry["losses"] == done.losses and "squares" in done.losses.values()


def test_all_trains_the_rest_too() -> None:
    teacher = plain()
    result = distilled(worse(teacher), teacher, train="all")
    before, after = constants(worse(teacher)), constants(result.proto)
    assert not any(np.array_equal(value, before[name]) for name, value in after.items() if value.size > 1)


def test_nothing_to_learn_is_bit_for_bit_unchanged(tmp_path: Path) -> None:
    onnx.save(plain(), tmp_path / "m.onnx")
    result = distilled(tmp_path / "m.onnx", plain(), output=tmp_path / "o.onnx")
    assert onnx.load(tmp_path / "o.onnx") == onnx.load(tmp_path / "m.onnx")
    assert result.plan.distilled is None and any("nothing to learn" in note for note in result.notes)


def test_a_model_that_only_gets_worse_stays_as_it_was() -> None:
    teacher = plain()
    student = worse(teacher, 0.001)
    result = distilled(student, teacher, rate=3.0, steps=4)
    assert result.distilled is not None and not result.distilled.kept and result.plan.distilled is None
    assert result.proto.SerializeToString() == student.SerializeToString()
    assert any("gained nothing in 4 steps" in note for note in result.notes)


def test_zeros_stay_zero() -> None:
    teacher = plain()
    student = worse(teacher, zeros=True)
    result = distilled(student, teacher)
    assert result.distilled is not None and result.distilled.kept
    for name, value in constants(student).items():
        np.testing.assert_array_equal(constants(result.proto)[name] == 0, value == 0)


@pytest.mark.parametrize("pattern", ["2:4", "unstructured"])
def test_a_pattern_stays(pattern: str) -> None:
    options: dict[str, Any] = {"pattern": pattern, "amount": None if pattern == "2:4" else 0.5, "include": ["*"]}
    options |= {"calibration": inputs(), "seed": 1}
    teacher = plain()
    once = graphprune.sparsify(teacher, **options)
    result = graphprune.sparsify(teacher, distill=12, **options)
    assert result.distilled is not None and result.distilled.course.steps == 12
    for name, value in constants(once.proto).items():
        np.testing.assert_array_equal(constants(result.proto)[name] == 0, value == 0)
    assert result.plan.sparsity == once.plan.sparsity


def tied(twice: bool) -> ModelProto:
    """One square weight that two products read, or two that are equal."""
    net = Net()
    x = net.input("x", ["batch", 8])
    weight = net.weight(8, 8)
    other = net.constant(numpy_helper.to_array(net.initializers[-1]), "twin") if twice else weight
    x = net.op("Tanh", net.op("MatMul", x, weight))
    return net.model(net.op("MatMul", x, other), rank=2)


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_tied_stays_tied(twice: bool) -> None:
    teacher = tied(twice)
    student = worse(tied(False))
    if twice:
        (noisy,) = [numpy_helper.to_array(t) for t in student.graph.initializer]
        student = tied(True)
        for tensor in student.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    result = distilled(student, teacher)
    assert result.distilled is not None and result.distilled.kept
    values = list(constants(result.proto).values())
    assert len(values) == 1 + twice and all(np.array_equal(v, values[0]) for v in values)
    names = [t.name for t in student.graph.initializer]
    alone = distilled(student, teacher, include=[names[0]])  # the twin of what is asked for goes along
    assert len(alone.distilled.weights) == 1 + twice if alone.distilled else False


def test_the_same_seed_gives_the_same_bytes() -> None:
    teacher = plain()
    one, two, three = (distilled(worse(teacher), teacher, seed=seed).proto for seed in (3, 3, 4))
    assert one.SerializeToString() == two.SerializeToString()
    assert constants(one).keys() == constants(three).keys()
    assert any(not np.array_equal(value, constants(three)[name]) for name, value in constants(one).items())


class StoppedError(Exception):
    """The training is interrupted."""


def after(steps: int) -> Progress:
    def watch(progress: Progress) -> None:
        if progress.phase == "distill" and progress.done == steps:
            raise StoppedError

    return Progress(watch)


def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    teacher, kept = plain(), tmp_path / "kept"
    whole = distilled(worse(teacher), teacher, rate=None)
    with pytest.raises(StoppedError):
        distilled(worse(teacher), teacher, rate=None, checkpoint=kept, progress=after(10))
    assert kept.exists()
    with pytest.raises(InputError, match="is the checkpoint of another training"):
        distilled(worse(teacher), teacher, rate=None, checkpoint=kept, seed=1)
    result = distilled(worse(teacher), teacher, rate=None, checkpoint=kept)
    found, wanted = constants(result.proto), constants(whole.proto)
    assert found.keys() == wanted.keys() and all(np.array_equal(found[n], wanted[n]) for n in found)
    assert result.plan.distilled == whole.plan.distilled and not kept.exists()


def test_a_file_that_is_no_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    teacher, kept = plain(), tmp_path / "kept"
    kept.write_text("mine")
    with pytest.raises(InputError, match="is no checkpoint of a training; remove it"):
        distilled(worse(teacher), teacher, checkpoint=kept)
    assert kept.read_text() == "mine"
    onnx.save(teacher, tmp_path / "t.onnx")
    with pytest.raises(InputError, match=r"t\.onnx: "):
        distilled(worse(teacher), tmp_path / "t.onnx", tmp_path / "t.onnx")
    with pytest.raises(InputError, match="would hold"):
        distilled(worse(teacher), teacher, tmp_path / "o.onnx", checkpoint=tmp_path / "o.onnx")


def test_half_precision_is_trained_in_single() -> None:
    teacher = plain(np.float16)
    student = worse(teacher)
    result = distilled(student, teacher, calibration=inputs(dtype=np.float16))
    assert result.distilled is not None and result.distilled.kept
    kinds = {t.name: t.data_type for t in result.proto.graph.initializer}
    assert kinds == {t.name: t.data_type for t in student.graph.initializer} and TensorProto.FLOAT16 in kinds.values()


INT8 = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,4] x) => (float[n,3] y)
<int8[4,6] q = {%s}, float s = {0.02}, int8 z = {0}, float[6,3] w = {%s}> {
  d = DequantizeLinear (q, s, z)
  h = MatMul (x, d)
  r = Relu (h)
  y = MatMul (r, w)
}"""


def test_quantised_weights_are_told() -> None:
    rng = np.random.default_rng(0)
    q, w = (", ".join(map(str, v)) for v in (rng.integers(-99, 99, 24), rng.standard_normal(18).round(3)))
    teacher = parser.parse_model(INT8 % (q, w))
    x = {"x": rng.standard_normal((32, 4)).astype(np.float32)}
    result = distilled(worse(teacher), teacher, calibration=x)
    assert result.distilled is not None and result.distilled.weights == ["w"]
    (one,) = result.distilled.untrained
    assert (one.weight, one.op) == ("q", "MatMul") and "stored as int8" in one.reason
    only = parser.parse_model(
        (INT8 % (q, w))
        .replace("y = MatMul (r, w)", "y = Slice (r, a, b, c)")
        .replace(f"float[6,3] w = {{{w}}}", "int64[1] a = {0}, int64[1] b = {3}, int64[1] c = {1}")
    )
    with pytest.raises(InputError, match="no float weight that could be trained: 'q' at MatMul node"):
        distilled(only, only, calibration=x)


BRANCH = """<ir_version: 10, opset_import: ["" : 18]>
g (bool c, float[n,4] x) => (float[n,4] y) <float[4,4] w = {%s}> {
  h = MatMul (x, w)
  t = Tanh (h)
  y = If (c) <
    then_branch = one () => (float[n,4] p) <float[4,4] w = {%s}> { p = MatMul (t, w) },
    else_branch = two () => (float[n,4] q) { q = Identity (t) }>
}"""


def weights_of(graph: onnx.GraphProto) -> list[np.ndarray]:
    """Weights of a graph and of its bodies, wherever they stand, in order."""
    found = [numpy_helper.to_array(t) for t in graph.initializer]
    for attribute in (a for node in graph.node for a in node.attribute):
        found += [numpy_helper.to_array(attribute.t)] if attribute.HasField("t") else []
        found += weights_of(attribute.g) if attribute.HasField("g") else []
    return found


@pytest.mark.parametrize("node", [False, True])
def test_weights_in_bodies_get_back_into_them(node: bool) -> None:
    rng = np.random.default_rng(0)
    numbers = tuple(", ".join(map(str, rng.standard_normal(16).round(3))) for _ in "ab")
    text = BRANCH
    if node:  # the same weight as a node
        text = text.replace("<float[4,4] w = {%s}> { p", "{ w = Constant <value = float[4,4] {%s}> () p")
        text = text.replace("w = Constant", "v = Constant").replace("p = MatMul (t, w)", "p = MatMul (t, v)")
    teacher = parser.parse_model(text % numbers)
    onnx.checker.check_model(teacher)
    student = worse(teacher)
    feeds = [{"c": np.array(True), "x": rng.standard_normal((4, 4)).astype(np.float32)} for _ in range(12)]
    result = distilled(student, teacher, calibration=feeds)
    assert result.distilled is not None and result.distilled.kept and len(result.distilled.weights) == 2
    for old, new in zip(weights_of(student.graph), weights_of(result.proto.graph), strict=True):
        assert not np.array_equal(old, new)
    wanted = run(teacher, feeds[0])[0]
    assert relative(wanted, run(result.proto, feeds[0])[0]) < relative(wanted, run(student, feeds[0])[0])


def test_weights_outside_of_the_file(tmp_path: Path) -> None:
    teacher = plain(wide=64)
    inside, place = worse(teacher), tmp_path / "s.onnx"
    onnx.save(worse(teacher), place, save_as_external_data=True, size_threshold=64)
    result = distilled(place, teacher, tmp_path / "o.onnx")
    wanted = distilled(worse(teacher), teacher)
    written = onnx.load(tmp_path / "o.onnx")
    assert (tmp_path / "o.onnx.data").exists() and result.distilled is not None and result.distilled.kept
    for name, value in constants(wanted.proto).items():
        np.testing.assert_array_equal(constants(written)[name], value)
    pruned = graphprune.prune(
        place, tmp_path / "p.onnx", ratio=0.5, calibration=inputs(), compensate="none", distill=24
    )
    assert (
        pruned.distilled is not None and pruned.distilled.kept
    )  # weights that were cut are made when they are written
    feeds = inputs()
    np.testing.assert_allclose(
        run(str(tmp_path / "p.onnx"), feeds)[0], run(pruned.proto, feeds)[0], rtol=1e-5, atol=1e-6
    )
    assert relative(run(inside, feeds)[0], run(str(tmp_path / "p.onnx"), feeds)[0]) < relative(
        run(inside, feeds)[0],
        run(graphprune.prune(place, ratio=0.5, calibration=inputs(), compensate="none").proto, feeds)[0],
    )
