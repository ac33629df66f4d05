"""A fit that holds at home alone is told, with its numbers."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

import graphprune
from graphprune.model import load
from graphprune.passes.fit.abroad import HOME, Abroad, Place, look
from graphprune.run.elsewhere import elsewhere
from models.small import Net


def clipped(most: float, factor: float = 1.0) -> ModelProto:
    """Inputs up to a bound, times a factor."""
    net = Net()
    x = net.input("x", ["batch", 6])
    bound = net.constant(np.float32(most))
    return net.model(net.op("MatMul", net.op("Min", x, bound), net.constant(np.eye(6, dtype=np.float32) * factor)))


def inputs() -> list[dict[str, np.ndarray]]:
    return [{"x": np.linspace(-1, 1, 48, dtype=np.float32).reshape(8, 6)}]


def test_what_is_right_at_home_and_wrong_elsewhere_is_told() -> None:
    models = load(clipped(9, 0.9)), load(clipped(1))
    found = look(load(clipped(9)), (models[0], models[1]), inputs, lambda value, _: value, 0)
    by_name = {place.inputs: place for place in found.places}
    assert list(by_name) == [HOME, "scaled", "noisy", "generated"]
    assert by_name[HOME].after < 1e-6 < by_name[HOME].before and not by_name[HOME].worse
    assert by_name["scaled"].worse and abs(by_name["scaled"].before - 0.1) < 1e-5
    (note,) = found.notes()
    assert "scaled 0.1, now" in note and "relative error of outputs on calibration inputs 0.1" in note
    assert not Abroad((Place(HOME, 0.5, 0.1), Place("scaled", 0.5, 0.6))).notes()


def test_masks_stay_and_tokens_change_places() -> None:
    net = Net()
    tokens, mask = (net.input(n, ["batch", "s"], 7) for n in ("tokens", "mask"))
    table = net.weight(50, 4)
    shown = net.op("Gather", table, tokens)
    wide = net.op("Unsqueeze", net.op("Cast", mask, to=1), net.ints(2))
    model = load(net.model(net.op("Mul", shown, wide)))
    given = {"tokens": np.arange(32).reshape(4, 8), "mask": np.tile(np.arange(8) < 6, (4, 1)).astype(np.int64)}
    made = dict(elsewhere(model, given))
    assert list(made) == ["shuffled", "generated"]
    assert all((one["mask"] == given["mask"]).all() for one in made.values())
    assert (made["shuffled"]["tokens"] != given["tokens"]).any() and made["generated"]["tokens"].max() < 50
    assert (np.sort(made["shuffled"]["tokens"]) == given["tokens"]).all()


def test_the_result_has_the_numbers() -> None:
    net = Net()
    model = net.model(net.linear(net.op("Relu", net.linear(net.input("x", ["batch", 6]), 6, 8)), 8, 3))
    data = {"x": np.random.default_rng(0).standard_normal((64, 6), dtype=np.float32)}
    result = graphprune.prune(model, ratio=0.5, align=1, calibration=data)
    assert {p.inputs for p in result.abroad} == {HOME, "scaled", "noisy", "generated"}
    home = result.abroad[0]
    assert home.inputs == HOME and home.after < home.before
