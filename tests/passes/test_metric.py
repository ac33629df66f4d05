"""Metrics: how good a model is beside the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import models
from graphprune.errors import InputError, UserCodeError
from graphprune.model import Model
from graphprune.passes import holding
from graphprune.passes.metric import metric
from graphprune.run.samples import held_out
from graphprune.verdict.detections import agreement, find
from models.shapes import drawn
from models.small import Net
from tests.helpers import run

X = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)


def net(noise: float = 0.0, softmax: bool = True, batch: int | str = "batch", second: bool = False) -> ModelProto:
    made = Net(0)
    y = made.linear(made.op("Relu", made.linear(made.input("x", [batch, 8]), 8, 16)), 16, 5)
    model = made.model(made.op("Softmax", y, axis=-1) if softmax else y, rank=2)
    rng = np.random.default_rng(1)
    for tensor in (t for t in model.graph.initializer if len(t.dims) > 1):
        value = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            numpy_helper.from_array(value + noise * rng.standard_normal(value.shape, np.float32), tensor.name)
        )
    return model


def batches(size: int = 8, values: np.ndarray = X, name: str = "x") -> Any:
    return lambda: ({name: values[k : k + size]} for k in range(0, len(values), size))


def both(**options: Any) -> tuple[np.ndarray, np.ndarray]:
    feeds = {"x": X[held_out(np.arange(len(X)))]}
    one, other = (run(net(noise, **options), feeds)[0].astype(np.float64) for noise in (0, 0.3))
    return one, other


def by_hand(name: str, a: np.ndarray, b: np.ndarray) -> float:
    match name:
        case "distance":
            return float(1 - np.linalg.norm(a - b) / np.linalg.norm(a))
        case "top1":
            return float((a.argmax(1) == b.argmax(1)).mean())
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("name", ["distance", "top1", "cosine"])
def test_held_out_samples_are_compared_whatever_the_batches(name: str, softmax: bool) -> None:
    wanted = by_hand(name, *both(softmax=softmax))
    assert wanted < 0.99
    for size in (8, 7, 50):
        made = metric(name, Model(net(softmax=softmax)), batches(size))
        assert made.whole == 1
        assert made(Model(net(softmax=softmax))) == pytest.approx(1, abs=1e-12)
        assert made(Model(net(0.3, softmax=softmax))) == pytest.approx(wanted, rel=1e-5)
        assert made.drop(Model(net(0.3, softmax=softmax))) == pytest.approx(1 - wanted, rel=1e-5)


def test_runs_of_a_fixed_size_are_held_out_whole() -> None:
    made = metric("distance", Model(net(batch=5)), batches(5))
    held = np.repeat(held_out(np.arange(10)), 5)
    a, b = (run(net(noise), {"x": X[held]})[0].astype(np.float64) for noise in (0, 0.3))
    assert made(Model(net(0.3, batch=5))) == pytest.approx(by_hand("distance", a, b), rel=1e-5)


def test_what_is_not_finite_is_worst() -> None:
    made = metric("cosine", Model(net(softmax=False)), batches())
    broken = net(softmax=False)
    value = numpy_helper.to_array(broken.graph.initializer[0]).copy()
    value[:] = np.inf
    broken.graph.initializer[0].CopyFrom(numpy_helper.from_array(value, broken.graph.initializer[0].name))
    assert made(Model(broken)) == -np.inf


def test_fewer_outputs_are_kept_where_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MEMORY", 200)  # a batch of 8 is 160 bytes
    made = metric("distance", Model(net()), batches())
    assert 0 < made(Model(net(0.3))) < 1
    assert len(made.notes) == 1 and "first 1 of 2" in made.notes[0]


def test_functions_of_ones_own() -> None:
    asked = []

    def size(model: ModelProto) -> int:
        asked.append(model)
        return len(model.graph.node) - 10

    made = metric(size, Model(net()), None)
    assert not asked and made.name == "size"
    assert made.drop(Model(net())) == 0 and made.whole == len(net().graph.node) - 10
    assert len(asked) == 2, "the original is judged once"

    def fails(model: ModelProto) -> float:
        raise ValueError("no data")

    with pytest.raises(UserCodeError, match="fails: raised ValueError: no data"):
        metric(fails, Model(net()), None)(Model(net()))
    with pytest.raises(InputError, match="gives NaN"):
        metric(lambda _: float("nan"), Model(net()), None)(Model(net()))
    with pytest.raises(InputError, match="one number"):
        metric(lambda _: "good", Model(net()), None)(Model(net()))


def test_what_cannot_be_told_is_an_error() -> None:
    with pytest.raises(InputError, match=r"--metric f1: .*distance, top1, cosine"):
        metric("f1", Model(net()), batches())
    with pytest.raises(InputError, match="--calibration"):
        metric("top1", Model(net()), None)
    with pytest.raises(InputError, match="at least 4"):
        metric("top1", Model(net()), batches(8, X[:3]))(Model(net()))
    image = Net(0)
    picture = image.model(image.conv(image.input("x", ["batch", 3, 8, 8]), 3, 4))
    values = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    with pytest.raises(InputError, match="class scores"):
        metric("top1", Model(picture), batches(8, values))(Model(picture, None, {}))


def test_boxes_of_held_out_images_are_compared() -> None:
    original = onnx.load(models.trained("shapes-detector"))
    images = drawn("train", 16)[0]
    made = metric("detections", Model(original), batches(8, images, "images"))
    assert made.whole == 1 and "boxes that the original finds in 4 images" in made.notes[0]
    other = onnx.load(models.trained("shapes-detector"))
    weight = max(other.graph.initializer, key=lambda t: np.prod(t.dims))
    weight.CopyFrom(numpy_helper.from_array(0.5 * numpy_helper.to_array(weight), weight.name))
    held = {"images": images[held_out(np.arange(16))]}
    form = find(Model(original), [run(original, held)])
    wanted = agreement(*(form.read(run(one, held)) for one in (original, other)))
    assert 0 < wanted.map < 1 and made(Model(other)) == pytest.approx(wanted.map, abs=1e-3)
    assert metric("detections:scores", Model(original), batches(8, images, "images")).whole == 1
    with pytest.raises(InputError, match="detects nothing in 4 held-out images"):
        metric("detections", Model(original), batches(8, 0 * images, "images"))(Model(other))
    with pytest.raises(InputError, match="--calibration"):
        metric("detections:scores", Model(original), None)
    with pytest.raises(InputError, match="holds boxes in a known form"):
        metric("detections", Model(net()), batches())(Model(net()))
