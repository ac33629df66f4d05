"""Training: the steps of Adam, gradients over micro-batches, weights that are one, zeros that stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphprune.gradients.adam import Adam
from graphprune.gradients.training import LOSS, judged, tied, trainer

RNG = np.random.default_rng(0)


def loss_model(weights: dict[str, np.ndarray], samples: int | str = "n", half: bool = False) -> ModelProto:
    """The mean square of ``(x @ a) @ b``, where ``b`` is what is called so, else ``a`` again."""
    second = "b" if "b" in weights else "a"
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", second], ["y"]),
        helper.make_node("Mul", ["y", "y"], ["q"]),
        helper.make_node("Cast", ["q"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["s"], [LOSS], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [samples, 4])],
        [helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, ())],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def square(dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal((4, 4)).astype(dtype)


def gradient(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By hand: of the mean square of ``x @ a @ b`` by both."""
    y = x @ a @ b
    seed = 2 * y / y.size
    return x.T @ seed @ b.T, (x @ a).T @ seed


def test_adam_is_the_papers() -> None:
    weights = {"one": RNG.standard_normal((5, 3)), "two": RNG.standard_normal(70_000)}  # more than one part
    own = Adam(weights)
    pace = {n: np.sqrt(np.mean(v**2)) for n, v in weights.items()}
    held, first, second = dict(weights), dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    for step in range(1, 6):
        found = {n: RNG.standard_normal(v.shape).astype(np.float32) for n, v in weights.items()}
        own.add(found)
        own.step(0.01)
        for name, g in found.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g.astype(np.float64) ** 2
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            held[name] = held[name] - 0.01 * pace[name] * mean / (np.sqrt(square) + 1e-8)
    for name, value in held.items():
        np.testing.assert_allclose(own.weights[name], value, rtol=1e-4, atol=1e-5)
    assert own.steps == 5 and not own.gradient.any()
    own.reset()
    assert own.steps == 0 and not own.moments.any()


def test_micro_batches_sum_to_the_whole() -> None:
    weights = {"a": square(), "b": square()}
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    whole, parts = (trainer(loss_model(weights), ["a", "b"]) for _ in range(2))
    losses = whole.step([{"x": x}], 0.0), parts.step([{"x": x[k : k + 2]} for k in range(0, 8, 2)], 0.0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    np.testing.assert_allclose(whole.adam.moments, parts.adam.moments, rtol=1e-4, atol=1e-7)
    wanted = np.concatenate([g.reshape(-1) for g in gradient(x, weights["a"], weights["b"])])
    np.testing.assert_allclose(whole.adam.moments[0], 0.1 * wanted, rtol=1e-3, atol=1e-5)
    assert whole.loss([{"x": x}]) == pytest.approx(losses[0], rel=1e-5)


def test_one_weight_that_is_read_twice_has_the_sum_of_both_gradients() -> None:
    a, x = square(), RNG.standard_normal((8, 4)).astype(np.float32)
    made = trainer(loss_model({"a": a}), ["a"])
    made.step([{"x": x}], 0.0)
    np.testing.assert_allclose(made.adam.moments[0].reshape(4, 4), 0.1 * sum(gradient(x, a, a)), rtol=1e-3, atol=1e-5)


def test_weights_that_were_one_stay_one() -> None:
    a, x = square(), RNG.standard_normal((8, 4)).astype(np.float32)
    made = trainer(loss_model({"a": a, "b": a.copy()}), ["a", "b"])
    once = trainer(loss_model({"a": a}), ["a"])
    for _ in range(3):
        made.step([{"x": x}], 0.01)
        once.step([{"x": x}], 0.01)
    held = made.weights()
    np.testing.assert_array_equal(held["a"], held["b"])
    np.testing.assert_allclose(held["a"], once.weights()["a"], rtol=1e-4, atol=1e-6)
    assert not np.array_equal(held["a"], a)


def test_what_is_one_value_throughout_is_equal_by_chance() -> None:
    a = square()
    same = {"scale": np.ones(8, np.float32), "other": np.ones(8, np.float32), "a": a, "b": a.copy(), "c": a.T.copy()}
    assert tied(same) == [["a", "b"]]


@pytest.mark.parametrize("half", [False, True])
def test_zeros_stay_zero_but_where_they_are_free(half: bool) -> None:
    kind = np.float16 if half else np.float32
    a, b = (square(kind) * (RNG.random((4, 4)) < 0.5) for _ in range(2))
    made = trainer(loss_model({"a": a, "b": b}, half=half), ["a", "b"], free=["b"])
    for _ in range(4):
        made.step([{"x": RNG.standard_normal((8, 4)).astype(kind)}], 0.05)
    held = made.weights()
    assert held["a"].dtype == kind == held["b"].dtype
    np.testing.assert_array_equal(held["a"] == 0, a == 0)
    assert (held["b"] != 0).sum() > (b != 0).sum()


def test_zeros_of_weights_that_are_one_stay_where_either_stays() -> None:
    a = square() * (RNG.random((4, 4)) < 0.5)
    made = trainer(loss_model({"a": a, "b": a.copy()}), ["a", "b"], free=["b"])
    for _ in range(4):
        made.step([{"x": RNG.standard_normal((8, 4)).astype(np.float32)}], 0.05)
    held = made.weights()
    np.testing.assert_array_equal(held["a"] == 0, a == 0)
    np.testing.assert_array_equal(held["a"], held["b"])


def test_a_loss_outside_of_the_model() -> None:
    weights = {"a": square(), "b": square()}
    x = RNG.standard_normal((8, 4)).astype(np.float32)
    inside = trainer(loss_model(weights), ["a", "b"])
    bare = loss_model(weights)
    del bare.graph.node[2:], bare.graph.output[:]
    bare.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]))
    outside = judged(bare, ["a", "b"], ["y"], lambda feeds, y: (float((y["y"] ** 2).mean()), {"y": 2 * y["y"] / 32}))
    for _ in range(3):
        loss = outside.step([{"x": x, "teacher:y": x}], 0.01)  # what only the loss reads is passed over
        assert loss == pytest.approx(inside.step([{"x": x}], 0.01), rel=1e-5)
    for name, value in inside.weights().items():
        np.testing.assert_allclose(outside.weights()[name], value, rtol=1e-4, atol=1e-6)
