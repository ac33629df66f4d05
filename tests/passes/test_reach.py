"""What gradients say of a removal is what the removal does, where that is linear; and where they stop, it is tried."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import graphprune
from graphprune.analysis import Analysis, analyze
from graphprune.analysis.contractions import observe
from graphprune.model import load
from graphprune.passes.choose import attribution, backward, movement, reach, trial
from graphprune.passes.sparse.masks import BY_GRADIENTS
from graphprune.relation import Values
from graphprune.run.runtime import Feeds
from models.small import Net


def deep(opset: int = 17) -> ModelProto:
    """Convolutions and products of matrices in a row, with nothing between that bends."""
    net = Net(opset=opset)
    y = net.conv(net.input("x", ["batch", 3, 6, 6]), 3, 8)
    y = net.conv(net.conv(y, 8, 8, group=8), 8, 12, strides=[2, 2])
    y = net.op("Transpose", net.op("Reshape", y, net.ints(0, 12, -1)), perm=[0, 2, 1])
    return net.model(net.linear(net.linear(y, 12, 10), 10, 5))


def gemms() -> ModelProto:
    """Rows of all samples in one axis, and weights that are read as they lie or turned."""
    net = Net(3)
    y = net.op("Reshape", net.input("x", ["batch", 4, 6]), net.ints(-1, 6))
    y = net.op("Gemm", y, net.weight(8, 6), net.weight(8), transB=1)
    y = net.op("Gemm", y, net.op("Transpose", net.weight(9, 8), perm=[1, 0]), net.weight(9))
    return net.model(net.op("Gemm", y, net.weight(9, 4)))


def pooled() -> ModelProto:
    """Convolutions before and behind an operator that stops gradients."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", [2, 3, 8, 8]), 3, 8))
    y = net.op("Relu", net.conv(y, 8, 8))
    rois = net.constant(np.array([[0, 0, 0, 7, 7], [1, 2, 2, 5, 5]], np.float32))
    return net.model(net.conv(net.op("MaxRoiPool", y, rois, pooled_shape=[3, 3]), 8, 4))


def at_hand(model: ModelProto, count: int = 512) -> tuple[Analysis, list[Feeds], dict[str, Values]]:
    """The analysis, random inputs for single runs, and 64 of them as one array."""
    declared = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal((count, *declared[1:])).astype(np.float32)
    step = declared[0] or 64
    return analyze(model), [{"x": x[k : k + step]} for k in range(0, count, step)], {"x": x[:64]}


@pytest.mark.parametrize("made", [deep, gemms])
def test_of_linear_models_it_is_what_a_trial_measures(made: object) -> None:
    analysis, feeds, _ = at_hand(made())  # type: ignore[operator]
    contractions = observe(analysis, analysis.groups, lambda: feeds)
    gone = {group.id: np.arange(2) for group in analysis.groups}
    found, why = reach.reached(analysis, gone, contractions, feeds)
    tried = trial.tried(analysis, gone, contractions, feeds)
    assert not why and len(found) == len(analysis.groups) > 1
    for id, error in tried.items():
        assert found[id] == pytest.approx(error, rel=0.35), id


def test_a_query_without_some_of_its_elements() -> None:
    """Products of activations: what goes is lost."""
    net = Net(5)
    x = net.input("x", ["batch", 7, 6])
    q, k = net.linear(x, 6, 8), net.op("Transpose", net.linear(x, 6, 8), perm=[0, 2, 1])
    analysis, feeds, _ = at_hand(net.model(net.op("MatMul", q, k)))
    (group,) = analysis.groups
    contractions, gone = observe(analysis, analysis.groups, lambda: feeds), {group.id: np.array([1, 4])}
    found, _ = reach.reached(analysis, gone, contractions, feeds)
    assert found[group.id] == pytest.approx(trial.tried(analysis, gone, contractions, feeds)[group.id], rel=0.35)


def test_what_reaches_no_output_is_free_and_what_stops_is_tried() -> None:
    model = pooled()
    analysis, feeds, x = at_hand(model, 8)
    contractions = observe(analysis, analysis.groups, lambda: feeds)
    gone = {group.id: np.arange(2) for group in analysis.groups}
    found, why = reach.reached(analysis, gone, contractions, feeds)
    first, second = (group.id for group in analysis.groups)
    assert list(found) == [second] and list(why) == [first] and "MaxRoiPool" in why[first]
    assert found[second] == pytest.approx(trial.tried(analysis, gone, contractions, feeds)[second], rel=0.5)
    result = graphprune.prune(model, ratio=0.25, calibration=x)
    assert any("weighed by removing" in note and "MaxRoiPool" in note for note in result.notes)


def test_a_model_that_gradients_refuse_as_a_whole_is_tried() -> None:
    net = Net(opset=10)
    y = net.op("Relu", net.conv(net.input("x", [2, 3, 8, 8]), 3, 8))
    y = net.op("Resize", y, net.constant(np.array([1, 1, 0.5, 2], np.float32)))
    model = net.model(net.conv(net.op("Relu", net.conv(y, 8, 8)), 8, 4))
    result = graphprune.prune(model, ratio=0.25, calibration=at_hand(model, 8)[2])
    assert any("weighed by removing" in note and "some axes longer" in note for note in result.notes)


def fading(scale: float = 0.0) -> ModelProto:
    """Hidden features of which the first four reach outputs that hardly count."""
    net = Net(2)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 6]), 6, 8))
    first = np.zeros((8, 6), np.float32)
    first[:4, :3] = net.rng.standard_normal((4, 3)) * 9
    first[4:, 3:] = net.rng.standard_normal((4, 3))
    y = net.op("Mul", net.op("MatMul", y, net.constant(first)), net.constant(np.float32([scale] * 3 + [1] * 3)))
    return net.model(net.op("MatMul", y, net.weight(6, 6)))


@pytest.mark.parametrize("criterion", [c for c in attribution.CRITERIA if c != "movement"])  # which is signed
def test_gradients_see_what_lies_behind(criterion: str) -> None:
    """Features that feed what is scaled down are large, and worth little."""
    _, _, x = at_hand(fading(1e-3))
    result = graphprune.prune(
        fading(1e-3), ratio=0.5, calibration=x, criterion=criterion, align=1, uniform=True, rotate=False
    )
    removed = {entry.id: entry.removed for entry in result.plan.groups}
    assert [0, 1, 2, 3] in removed.values()
    by_norm = graphprune.prune(
        fading(1e-3), ratio=0.5, calibration=x, criterion="activation", align=1, uniform=True, rotate=False
    )
    assert [0, 1, 2, 3] not in [entry.removed for entry in by_norm.plan.groups]


def against() -> ModelProto:
    """Two hidden features, the largest, undo a part of what the others make."""
    net = Net()
    ones, ends = np.ones((1, 8), np.float32), np.ones((8, 1), np.float32)
    ones[0, [2, 5]], ends[[2, 5], 0] = 1.2, -1.2
    y = net.op("MatMul", net.input("x", ["batch", 1]), net.constant(ones))
    return net.model(net.op("MatMul", y, net.constant(ends)))


def test_what_training_takes_to_zero_goes_first() -> None:
    """The loss of what was scaled down wants the others larger, and these two smaller, whatever their magnitude."""
    _, _, x = at_hand(against())
    given = {"ratio": 0.25, "calibration": x, "align": 1, "uniform": True, "compensate": "none", "rotate": False}
    chosen = {
        criterion: graphprune.prune(against(), criterion=criterion, **given).plan.groups[0].removed
        for criterion in ("movement", "magnitude")
    }
    assert chosen["movement"] == [2, 5] and not {2, 5} & set(chosen["magnitude"])


def test_single_weights_that_training_takes_to_zero_go_first() -> None:
    _, _, x = at_hand(against())
    given = {"pattern": "unstructured", "amount": 0.25, "compensate": "none", "also": ("*",), "calibration": x}
    made = graphprune.sparsify(against(), method="movement", **given)
    assert made.sparse is not None
    (weight,) = (numpy_helper.to_array(t) for t in made.proto.graph.initializer if list(t.dims) == [8, 1])
    assert np.flatnonzero(weight == 0).tolist() == [2, 5]
    # what is zero at the start is worth least, so that a second run finds nothing else to do
    again = graphprune.sparsify(made.proto, method="movement", **given).proto
    assert again.graph.initializer == made.proto.graph.initializer


def test_a_short_training_depends_on_the_seed_alone_and_says_what_stops_it() -> None:
    model = load(pooled())
    _, feeds, _ = at_hand(pooled(), 8)
    names = list(model.initializers)
    one, again, other = (movement.moved(model, feeds, names, seed) for seed in (0, 0, 1))
    assert one.worth.keys() == again.worth.keys() and one.worth
    assert all((one.worth[name] == again.worth[name]).all() for name in one.worth)
    assert any((one.worth[name] != other.worth[name]).any() for name in one.worth)
    assert any("MaxRoiPool" in why for why in one.stopped.values()) and not one.stopped.keys() & one.worth.keys()


@pytest.mark.parametrize("criterion", ["fisher", "movement"])
def test_a_group_without_gradients_is_told(criterion: str) -> None:
    _, _, x = at_hand(pooled(), 8)
    result = graphprune.prune(pooled(), ratio=0.25, calibration=x, criterion=criterion, uniform=True)
    assert any(f"ranked by magnitude, not by {criterion}" in note and "MaxRoiPool" in note for note in result.notes)


@pytest.mark.parametrize("criterion", attribution.CRITERIA)
def test_a_gradient_that_is_not_finite_ranks_nothing(criterion: str) -> None:
    net = Net(4)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 6]), 6, 8))
    y = net.op("Mul", net.op("Abs", net.linear(y, 8, 4)), net.constant(np.array([0, 1, 1, 1], np.float32)))
    model = net.model(net.op("Sqrt", y))  # infinity at zero, by zero
    _, _, x = at_hand(model)
    result = graphprune.prune(model, ratio=0.25, calibration=x, criterion=criterion, uniform=True)
    assert any(f"not by {criterion}" in note and "is not finite" in note for note in result.notes)


@pytest.mark.parametrize("method", ["taylor", "snip"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_single_weights_by_gradients(method: str, pattern: str) -> None:
    """All layers compete, and of each those go that lead to what is scaled down."""
    _, _, x = at_hand(fading(1e-3))
    amount = 0.5 if pattern == "unstructured" else None
    model = graphprune.sparsify(
        fading(1e-3), calibration=x, pattern=pattern, method=method, amount=amount, compensate="none", also=("*",)
    )
    values = [numpy_helper.to_array(t) for t in model.proto.graph.initializer]
    first, matrix, last = (v for v in values if v.ndim == 2)
    if pattern == "unstructured":
        assert first[:, 4:].all() and matrix[4:, 3:].all() and last[3:].all()
    assert [entry["method"] for entry in model.plan.sparsity] == [method] * 3


@pytest.mark.parametrize("method", BY_GRADIENTS)
def test_weights_without_gradients_are_refused(method: str) -> None:
    _, _, x = at_hand(pooled(), 8)
    with pytest.raises(graphprune.errors.InputError, match=rf"--method {method} asks for gradients.*MaxRoiPool"):
        graphprune.sparsify(pooled(), calibration=x, pattern="unstructured", amount=0.5, method=method, also=("*",))


def test_a_model_that_tells_no_floats_has_no_course() -> None:
    """Gradients of what is an integer are nothing: weights go by magnitude, with a word on it."""
    model = against()
    model.graph.node.append(helper.make_node("ArgMax", [model.graph.output[0].name], ["best"], axis=-1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("best", 7, ["batch", 1]))
    _, _, x = at_hand(model)
    given = {"ratio": 0.25, "calibration": x, "align": 1, "uniform": True, "criterion": "movement"}
    assert any("no output holds floats" in note for note in graphprune.prune(model, **given).notes)


def test_outputs_count_where_they_are_finite() -> None:
    """Masked scores are minus infinity, and the rest of them is told of as if it stood alone."""
    scores = np.array([[1, -np.inf, 3], [-np.inf, 4, 6]], np.float32)
    forward = SimpleNamespace(run=lambda *given: [scores], get_providers=list)
    directions = backward._Directions(forward, ["scores"], np.random.default_rng(0))
    given = directions.of({"x": np.zeros((2, 1), np.float32)})["scores"]
    assert ((given == 0) == np.isinf(scores)).all()
    assert np.abs(given[0, 0]) == pytest.approx(np.square(scores[np.isfinite(scores)] - 3.5).sum() ** -0.5)


def test_inputs_of_different_sizes() -> None:
    """Runs of different shapes, and outputs that hold no floats beside those that do."""
    net = Net(7)
    y = net.linear(net.op("Relu", net.linear(net.input("x", ["batch", "tokens", 6]), 6, 8)), 8, 5)
    model = net.model(y)
    model.graph.node.append(helper.make_node("ArgMax", [y], ["best"], axis=-1))
    model.graph.output.append(helper.make_tensor_value_info("best", 7, ["batch", "tokens", 1]))
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, n, 6)).astype(np.float32)} for n in (3, 5, 4, 9)]
    analysis = analyze(model)
    contractions = observe(analysis, analysis.groups, lambda: feeds)
    found, why = reach.reached(analysis, {g.id: np.arange(2) for g in analysis.groups}, contractions, feeds)
    assert not why and all(error > 0 for error in found.values())
    moved, why = attribution.score(analysis, analysis.groups, "movement", contractions, feeds)
    assert not why and all(scores.min() == 0 < scores.max() for scores in moved.values())
