"""Float16: rounding that is seen on any machine, and the file that engines are built of."""

import numpy as np
from onnx import TensorProto, helper

import models
from graphprune.analysis import shapes
from graphprune.model import load
from graphprune.model.canonical import canonicalize
from graphprune.run.runtime import generate, run, session
from graphprune.verdict.half import converted, rounded
from models.small import Net, residual
from tests import helpers


def rounds(model: object) -> np.ndarray:
    loaded = load(model)  # type: ignore[arg-type]
    witness = shapes.find_witness(canonicalize(loaded)).first
    with session(rounded(loaded, witness.types)) as active:
        return np.asarray(run(active, generate(loaded, witness.inputs))[0])


def by_numpy(x: np.ndarray, *weights: np.ndarray) -> np.ndarray:
    """Two products with a ReLU between, every tensor rounded."""

    def r(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float16).astype(np.float32)

    first, second = weights
    return r(r(np.maximum(r(r(first).T @ x.T), 0)).T @ r(second))


def test_every_tensor_is_rounded_and_nothing_else() -> None:
    net = Net()
    x = net.input("x", [3, 16])
    y = net.op("Relu", net.linear(x, 16, 16, bias=False))
    model = net.model(net.linear(y, 16, 16, bias=False), rank=2)
    loaded = load(model)
    feeds = generate(loaded, {"x": (3, 16)})
    weights = list(helpers.constants(model).values())
    with session(rounded(loaded, shapes.find_witness(loaded).first.types)) as active:
        (found,) = run(active, feeds)
    expected = by_numpy(feeds["x"], *weights)
    (whole,) = helpers.run(model, feeds)
    assert np.abs(found - expected).max() < 0.2 * np.abs(whole - expected).max()
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT


def test_what_exceeds_it_is_infinite() -> None:
    net = Net()
    x = net.input("x", [2, 4])
    y = net.op("Mul", net.op("Abs", x), net.constant(np.float32(6e4)))
    model = net.model(net.op("Mul", y, net.constant(np.float32(1e-4))), rank=2)
    assert np.isinf(rounds(model)).any()


def test_bodies_are_rounded_too() -> None:
    """What an If takes from outside, and what is computed inside."""
    net = Net()
    x = net.input("x", [2, 4])
    outer = net.op("Mul", x, net.constant(np.float32(2)))
    bodies = {}
    for name, kind in (("then_branch", "Sin"), ("else_branch", "Cos")):
        node = helper.make_node(kind, [outer], [f"out_{name}"])
        result = helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, None)
        bodies[name] = helper.make_graph([node], name, [], [result])
    flag = net.input("flag", [], TensorProto.BOOL)
    model = net.model(net.op("If", flag, **bodies), rank=2)
    found = rounds(model)
    assert np.array_equal(found, found.astype(np.float16).astype(np.float32))


def test_the_converted_file_runs_and_keeps_its_interface() -> None:
    model = load(residual())
    half = converted(model)
    assert {t.data_type for t in half.graph.initializer} == {TensorProto.FLOAT16}
    assert half.inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
    feeds = generate(model, {"x": (2, 3, 8, 8)})
    with session(model) as left, session(half) as right:
        assert helpers.relative(run(left, feeds)[0], run(right, feeds)[0]) < 1e-2
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT


def test_most_architectures_stand_rounding() -> None:
    for name in ("vit-ts16", "llama-dynamo18", "unet-ts10", "moe-ts12", "mamba-like-dynamo23"):
        loaded = load(models.export(name))
        witness = shapes.find_witness(canonicalize(loaded)).first
        feeds = generate(loaded, witness.inputs)
        with session(loaded) as left, session(rounded(loaded, witness.types)) as right:
            error = helpers.relative(run(left, feeds)[0], run(right, feeds)[0])
        assert 0 < error < 2e-2, name
