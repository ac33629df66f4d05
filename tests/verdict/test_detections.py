"""Detectors judged as detectors: precision, suppression, forms of outputs, and the level of a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import models
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.schema import schema
from graphprune.verdict.detections import FORMS, Found, agreement, find
from graphprune.verdict.detections import boxes as own
from graphprune.verdict.detections.precision import THRESHOLDS, average_precisions
from models.shapes import drawn
from tests.helpers import command


def some(rng: np.random.Generator, count: int) -> Found:
    """Boxes on a grid so coarse that many overlap, some by the same."""
    corners = rng.integers(0, 6, (count, 2)).astype(float)
    boxes = np.concatenate([corners, corners + rng.integers(1, 5, (count, 2))], 1)
    return own.ranked(boxes, rng.permutation(np.linspace(0.05, 0.95, count)), rng.integers(0, 2, count))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    w, h = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    both = max(w, 0) * max(h, 0)
    return both / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - both)


def by_hand(truth: Sequence[Found], found: Sequence[Found], kind: int, threshold: float) -> float:
    """Average precision of one class as COCO's text says it: one detection after the other."""
    every = [(s, k, b) for k, one in enumerate(found) for b, s, c in zip(*parts(one), strict=True) if c == kind]
    left = {k: [b for b, _, c in zip(*parts(one), strict=True) if c == kind] for k, one in enumerate(truth)}
    count, hits = sum(map(len, left.values())), []
    for _, image, box in sorted(every, key=lambda one: -one[0]):
        best = max(left[image], key=lambda other: iou(box, other), default=None)
        hits.append(best is not None and iou(box, best) >= threshold - 1e-10)
        if hits[-1]:
            left[image] = [other for other in left[image] if other is not best]
    points = [(sum(hits[: n + 1]) / count, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return float(np.mean([max([p for r, p in points if r >= level], default=0) for level in np.linspace(0, 1, 101)]))


def parts(one: Found) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return one.boxes, one.scores, one.classes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=4))
def test_precision_is_what_one_counts_by_hand(seed: int, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(some(rng, n), some(rng, m)) for n, m in sizes]
    truth = [Found(np.unique(t.boxes, axis=0), np.ones(0), t.classes) for t, _ in pairs]  # two of one place are a tie
    truth = [Found(t.boxes, np.ones(len(t.boxes)), t.classes[: len(t.boxes)]) for t in truth]
    # scores of several images are apart, so that their order is that of one list
    found = [Found(f.boxes, f.scores - 1e-4 * k, f.classes) for k, (_, f) in enumerate(pairs)]
    made = average_precisions(truth, found)
    kinds = np.unique(np.concatenate([t.classes for t in truth]))
    assert made.shape == (len(kinds), 10)
    for row, kind in zip(made, kinds, strict=True):
        for place in (0, 3, 9):
            assert row[place] == pytest.approx(by_hand(truth, found, kind, THRESHOLDS[place]))


def test_precision_is_that_of_pycocotools() -> None:
    """Thirty images of up to twelve boxes, moved, of another class, or new; the number is pycocotools 2.0's."""
    rng, truth, found = np.random.default_rng(0), [], []
    for _ in range(30):
        n = rng.integers(0, 12)
        boxes, kinds = _spread(rng, n), rng.integers(0, 3, n)
        truth.append(own.ranked(boxes, np.ones(n), kinds))
        m = rng.integers(0, 15)
        moved = np.concatenate([boxes + rng.normal(0, 2, boxes.shape), _spread(rng, m)])
        other = np.concatenate([np.where(rng.random(n) < 0.9, kinds, 0), rng.integers(0, 3, m)])
        found.append(own.ranked(moved, rng.uniform(0.02, 1, n + m), other))
    made = average_precisions(truth, found)
    assert made.mean() == pytest.approx(0.1751654, abs=1e-7)
    assert made[:, 0].mean() == pytest.approx(0.42214666, abs=1e-7)


def _spread(rng: np.random.Generator, count: int) -> np.ndarray:
    corners, sizes = rng.uniform(0, 100, (count, 2)), rng.uniform(5, 40, (count, 2))
    return np.concatenate([corners, corners + sizes], 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_suppression_keeps_what_no_better_one_covers(seed: int, count: int) -> None:
    found = some(np.random.default_rng(seed), count)
    kept: list[int] = []
    for k in range(count):
        near = (j for j in kept if found.classes[j] == found.classes[k])
        if all(iou(found.boxes[j], found.boxes[k]) <= own.OVERLAP for j in near):
            kept.append(k)
    made = own.suppressed(found)
    assert made.scores.tolist() == found.scores[kept].tolist() and made.boxes.tolist() == found.boxes[kept].tolist()


def test_what_agrees_is_one_and_what_does_not_is_counted() -> None:
    rng = np.random.default_rng(3)
    first = [own.suppressed(some(rng, 8)) for _ in range(5)]
    same = agreement(first, first)
    assert (same.map, same.map50, same.lost, same.new) == (1, 1, 0, 0) and same.boxes < sum(map(len, first))
    away = [Found(one.boxes + 100 * (k == 0), one.scores, one.classes) for k, one in enumerate(first)]
    other = agreement(first, away)
    assert other.map < 1 and other.lost == other.new == len(first[0].above(0.25)) > 0
    assert np.isnan(agreement([first[0].above(2)], [first[0]]).map)


def test_as_many_boxes_count_on_either_side() -> None:
    corners = np.arange(own.MOST + 50.0)[:, None] * 10 + np.zeros(4)
    many = own.ranked(corners + np.array([0, 0, 5, 5]), np.linspace(0.99, 0.5, len(corners)), np.zeros(len(corners)))
    same = agreement([many], [many])
    assert (same.map, same.boxes, same.lost, same.new) == (1, own.MOST, 0, 0)


def model(outputs: dict[str, tuple[int, ...]], said: dict[str, str] | None = None) -> Model:
    """A file with such outputs; only its names and its metadata are looked at."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    proto = helper.make_model(helper.make_graph([], "g", [], values))
    helper.set_model_props(proto, said or {})
    return Model(proto)


NAMES = {"names": str({0: "a", 1: "b", 2: "c"}), "task": "detect"}
WANTED = own.ranked(
    np.array([[10, 10, 40, 50], [30, 60, 90, 95], [5, 70, 25, 90]]), np.array([0.9, 0.6, 0.3]), np.array([2, 0, 1])
)


def encoded(form: str, cells: int = 60) -> dict[str, np.ndarray]:
    """Outputs in which :data:`WANTED` stands among cells that find nothing; of some forms with its first twice."""
    sizes = np.concatenate(
        [(WANTED.boxes[:, :2] + WANTED.boxes[:, 2:]) / 2, WANTED.boxes[:, 2:] - WANTED.boxes[:, :2]], 1
    )
    scores = np.eye(3)[WANTED.classes] * WANTED.scores[:, None]
    if form in ("scores", "object"):
        rows = np.zeros((1, cells, 7), np.float32)
        rows[0, 7:10], rows[0, 20] = np.concatenate([sizes, scores], 1), rows[0, 7]
        rows[0, 20] = np.concatenate([sizes[0] + 0.5, scores[0] * 0.9])
        sure = np.full((1, cells, 1), 0.95, np.float32)
        return {"output0": rows if form == "scores" else np.concatenate([rows[..., :4], sure, rows[..., 4:] / 0.95], 2)}
    if form == "final":
        rows = np.zeros((1, cells, 6), np.float32)
        rows[0, :3] = np.concatenate([WANTED.boxes, WANTED.scores[:, None], WANTED.classes[:, None]], 1)
        return {"output0": rows}
    if form == "lists":
        return {"boxes": WANTED.boxes, "labels": WANTED.classes, "scores": WANTED.scores}
    logits = np.full((1, cells, 3), -9.0)
    logits[0, :3] = np.log(np.maximum(scores, 1e-4) / np.maximum(1 - scores, 1e-4))
    boxes = np.full((1, cells, 4), 0.5)
    boxes[0, :3] = sizes / 100
    if form == "softmax":
        shares = np.concatenate([scores, 1 - scores.sum(1, keepdims=True)], 1)
        logits = np.concatenate([np.full((1, cells, 3), -9.0), np.full((1, cells, 1), 3.0)], 2)
        logits[0, :3] = np.log(np.maximum(shares, 1e-6))
    return {"logits": logits, "pred_boxes": boxes}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_and_read(form: str, turned: bool) -> None:
    outputs = encoded(form)
    if turned and form in ("scores", "object"):
        outputs = {name: np.moveaxis(value, 1, 2) for name, value in outputs.items()}
    elif turned:
        outputs = dict(reversed(outputs.items()))
    said = NAMES | ({"end2end": "True"} if form == "final" else {})
    made = [[*outputs.values()]]
    found = find(model({name: value.shape for name, value in outputs.items()}, said), made)
    assert found.name == form
    assert found == find(model({name: value.shape for name, value in outputs.items()}, said), made, form)
    (one,) = found.read(made[0])
    unit = 100 if form in ("softmax", "sigmoid") else 1
    assert np.allclose(one.boxes[:3] * unit, WANTED.boxes, atol=1e-3) and np.allclose(
        one.scores[:3], WANTED.scores, atol=1e-3
    )
    assert one.classes[:3].tolist() == WANTED.classes.tolist() and len(one.above(0.02)) == 3


def test_what_cannot_be_told_is_one_line() -> None:
    rows = encoded("object")["output0"]
    with pytest.raises(InputError, match=r"'output0' may hold boxes as object or scores: .*--metric detections:object"):
        find(model({"output0": rows.shape}), [[rows]])
    assert find(model({"output0": rows.shape}), [[rows]], "object").name == "object"
    assert find(model({"y": (1, 7, 60)}), [[encoded("scores")["output0"].transpose(0, 2, 1)]]).name == "scores"
    assert find(model({"y": (1, 60, 6)}), [[encoded("final")["output0"]]]).name == "final"
    with pytest.raises(InputError, match="maps, no boxes"):
        find(model({"y": (1, 1, 8, 8)}), [[np.zeros((1, 1, 8, 8), np.float32)]])
    with pytest.raises(InputError, match="not decoded"):
        find(model({"y": (1, 3, 8, 8, 7)}), [[np.zeros((1, 3, 8, 8, 7), np.float32)]])
    with pytest.raises(InputError, match="task is 'obb'"):
        find(model({"y": (1, 60, 8)}, {"task": "obb"}), [[np.zeros((1, 60, 8), np.float32)]])
    with pytest.raises(InputError, match="detections:lists asks for corners"):
        find(model({"output0": rows.shape}), [[rows]], "lists")
    odd = {"names": "{[]: 1}", "args": "{" * 999, "end2end": "True" + " " * 99999}  # no one says anything
    assert find(model({"y": (1, 60, 6)}, odd), [[encoded("final")["output0"]]]).classes == 0
    with pytest.raises(InputError, match="no such form; there are scores"):
        find(model({"output0": rows.shape}), [[rows]], "boxes")


def shaken(spread: float) -> ModelProto:
    """The detector of drawn shapes with noise on its weights."""
    proto, rng = onnx.load(models.trained("shapes-detector")), np.random.default_rng(0)
    for tensor in (t for t in proto.graph.initializer if len(t.dims) == 4 and t.dims[1] > 3):
        value = numpy_helper.to_array(tensor)
        noise = spread * value.std() * rng.standard_normal(value.shape)
        tensor.CopyFrom(numpy_helper.from_array((value + noise).astype(np.float32), tensor.name))
    return proto


def test_a_verdict_tells_what_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(shaken(0.3), tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", images=drawn("held out", 6)[0])
    np.savez(tmp_path / "grey.npz", images=np.full((1, 3, 96, 96), 0.5, np.float32))
    asked = ["validate", str(tmp_path / "m.onnx"), "--min-map", "0.99"]
    both = [*asked, "--against", str(models.trained("shapes-detector"))]
    status, text, error = command(
        capsys, *both, "--inputs", str(tmp_path / "in.npz"), "--json", str(tmp_path / "v.json")
    )
    assert status == 1 and "less than 0.99" in error
    assert "mAP 0." in text and "are lost" in text
    data = json.loads((tmp_path / "v.json").read_text())
    jsonschema.validate(data, schema("verdict"))
    (level,) = (one for one in data["levels"] if one["name"] == "detections")
    assert level["details"]["form"] == "scores" and 0.05 < level["details"]["map"] < 0.95 and level["details"]["boxes"]
    status, _, error = command(capsys, *both, "--inputs", str(tmp_path / "grey.npz"))
    assert status == 1 and "detects nothing in these inputs; give images" in error
    status, _, error = command(capsys, *asked)
    assert status == 2 and "--against" in error
