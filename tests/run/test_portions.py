"""A model in portions makes what it makes as a whole, and holds the weights of one portion."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
from onnx import ModelProto

import models
from graphprune.analysis import analyze
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.proof.difference import difference
from graphprune.run import portions
from graphprune.run.portions import Portions
from graphprune.run.runtime import RefusedError, exposing, generate, run, session
from models.small import Net


@pytest.fixture(autouse=True)
def no_weight_is_light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "_LIGHT", 64)


@pytest.mark.parametrize("room", [0, 100_000])
@pytest.mark.parametrize("name", ["unet-ts10", "moe-ts12", "lstm-dynamo18", "mixer-ts16"])
def test_portions_make_what_the_model_makes(name: str, room: int) -> None:
    analysis = analyze(models.export(next(n for n in models.zoo() if n.startswith(name.partition("-")[0]))))
    model = analysis.model.source
    feeds = [generate(model, shapes, 0) for shapes in (analysis.witness.first.inputs, analysis.witness.second.inputs)]
    with session(model) as active:
        expected = [run(active, one) for one in feeds]
    for ours, theirs in zip(expected, Portions(model, room)(feeds), strict=True):
        assert not isinstance(theirs, InputError)
        assert not any(difference(np.asarray(a), np.asarray(b))[2] for a, b in zip(ours, theirs, strict=True))


def test_weights_of_one_portion_are_there_at_once_and_each_is_made_once_for_all_inputs() -> None:
    net, alive, most = Net(), list[weakref.ref[np.ndarray]](), 0
    y = net.input("x", ["n", 64])
    for _ in range(8):
        y = net.op("Relu", net.linear(y, 64, 64, bias=False))
    model = load(net.model(y))

    def made(value: np.ndarray) -> np.ndarray:
        nonlocal most
        found = value.copy()
        alive.append(weakref.ref(found))
        most = max(most, sum(one() is not None for one in alive))
        return found

    model.lazy = {name: partial(made, model.array(name)) for name in model.initializers}
    feeds = [{"x": np.ones((n, 64), np.float32)} for n in (1, 2, 3)]
    found = Portions(model, 2 * 64 * 64 * 4)(feeds)
    assert [np.shape(one[0]) for one in found] == [(1, 64), (2, 64), (3, 64)]  # type: ignore[index]
    assert (len(alive), most) == (8, 2)


def sequences() -> ModelProto:
    net = Net()
    x = net.input("x", ["n", 8])
    parts = net.op("SplitToSequence", net.linear(x, 8, 8), net.constant(np.int64(4)), axis=1)
    first = net.op("SequenceAt", parts, net.constant(np.int64(0)))
    second = net.op("SequenceAt", parts, net.constant(np.int64(1)))
    return net.model(net.linear(net.op("Add", first, second), 4, 3))


def test_what_is_no_tensor_stays_within_a_portion() -> None:
    model = load(sequences())
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)}
    with session(model) as active:
        expected = run(active, feeds)
    (found,) = Portions(model, 0)([feeds])
    assert not isinstance(found, InputError)
    assert np.allclose(expected[0], found[0], atol=1e-6)


def test_tensors_inside_can_be_asked_for_and_constants_too() -> None:
    net = Net()
    turned = net.op("Transpose", net.weight(8, 8))
    inner = net.op("MatMul", net.input("x", ["n", 8]), turned)
    model = load(net.model(net.linear(net.op("Relu", inner), 8, 8)))
    feeds, names = {"x": np.ones((2, 8), np.float32)}, [inner, turned]
    with session(exposing(model, names)) as active:
        expected = run(active, feeds, names)
    (found,) = Portions(exposing(model, names), 0)([feeds], names)
    assert not isinstance(found, InputError)
    assert all(np.allclose(a, b) for a, b in zip(expected, found, strict=True))


def test_one_refusal_leaves_the_others_and_all_are_told_as_one() -> None:
    net = Net()
    x = net.input("x", ["n", "m"])
    model = load(net.model(net.linear(net.linear(x, 8, 8), 8, 8)))
    wrong, right = ({"x": np.ones((2, size), np.float32)} for size in (7, 8))
    one, other = Portions(model, 0)([wrong, right])
    assert isinstance(one, InputError) and not isinstance(other, InputError)
    with pytest.raises(RefusedError):
        Portions(model, 0)([wrong])
