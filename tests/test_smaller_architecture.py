"""What a mask cannot prove: hidden sizes through norms that take off a mean, against the architecture built smaller.

The architecture is written once, in numpy, over a table of weights. With the weights of the original it is the
original; with the slices that the plan names (and the gains and epsilons that it says) it must be what the pruned model
is. Beside that, the error against the masked original is compared with what norms would leave that are not corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import graphprune
from graphprune.rewrite import corrections
from models.small import Net
from tests import helpers

Weights = dict[str, np.ndarray]
WIDTH, HEADS, SIZE, INNER = 24, 3, 8, 32


class Built:
    """A model, and the names of its weights by what they are in the architecture."""

    def __init__(self, make: Callable[[Net, Any], str], opset: int = 17) -> None:
        self.net = Net(6, opset=opset, ir_version=10)
        self.names: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.model: ModelProto = self.net.model(make(self.net, self), rank=2)

    def weight(self, label: str, *shape: int) -> str:
        self.names[label] = self.net.weight(*shape)
        return self.names[label]

    def linear(self, label: str, x: str, i: int, o: int) -> str:
        y = self.net.op("MatMul", x, self.weight(f"{label}.w", i, o))
        return str(self.net.op("Add", y, self.weight(f"{label}.b", o)))

    def norm(self, label: str, op: str, x: str, width: int, **settings: Any) -> str:
        y = str(self.net.op(op, x, self.weight(f"{label}.g", width), self.weight(f"{label}.s", width), **settings))
        self.nodes[y] = label
        return y


def transformer(before: bool) -> Callable[[Net, Built], str]:
    """Two blocks with the norms before (ViT) or behind (BERT) the residual sums, and a classifier."""

    def make(net: Net, built: Built) -> str:
        x = built.linear("embed", net.input("x", ["batch", 5, 6]), 6, WIDTH)
        for k in range(2):
            y = built.norm(f"{k}.a", "LayerNormalization", x, WIDTH) if before else x
            q, k_, v = (net.op("Reshape", built.linear(f"{k}.{n}", y, WIDTH, HEADS * SIZE), net.ints(0, 5, HEADS, SIZE))
                        for n in "qkv")  # fmt: skip
            q, v = (net.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
            scores = net.op("MatMul", q, net.op("Transpose", k_, perm=[0, 2, 3, 1]))
            y = net.op("MatMul", net.op("Softmax", net.op("Mul", scores, net.constant(np.float32(0.3))), axis=-1), v)
            y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 5, HEADS * SIZE))
            x = net.op("Add", x, built.linear(f"{k}.o", y, HEADS * SIZE, WIDTH))
            x = x if before else built.norm(f"{k}.a", "LayerNormalization", x, WIDTH)
            y = built.norm(f"{k}.f", "LayerNormalization", x, WIDTH) if before else x
            y = built.linear(f"{k}.down", net.op("Relu", built.linear(f"{k}.up", y, WIDTH, INNER)), INNER, WIDTH)
            x = net.op("Add", x, y)
            x = x if before else built.norm(f"{k}.f", "LayerNormalization", x, WIDTH)
        if before:
            x = built.norm("last", "LayerNormalization", x, WIDTH)
        return built.linear("head", net.op("ReduceMax", x, axes=[1], keepdims=0), WIDTH, 4)

    return make


def layer_norm(x: np.ndarray, w: Weights, label: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + w.get(f"{label}.epsilon", 1e-5))
    return centred / spread * w[f"{label}.g"] + w[f"{label}.s"]


def numpy_transformer(x: np.ndarray, w: Weights, before: bool) -> np.ndarray:
    def linear(label: str, value: np.ndarray) -> np.ndarray:
        return value @ w[f"{label}.w"] + w[f"{label}.b"]

    x = linear("embed", x)
    for k in range(2):
        y = layer_norm(x, w, f"{k}.a") if before else x
        q, k_, v = (linear(f"{k}.{n}", y) for n in "qkv")
        heads = w[f"{k}.heads"]
        q, k_, v = (t.reshape(*t.shape[:2], heads, -1).transpose(0, 2, 1, 3) for t in (q, k_, v))
        scores = q @ k_.transpose(0, 1, 3, 2) * 0.3
        share = np.exp(scores - scores.max(-1, keepdims=True))
        y = (share / share.sum(-1, keepdims=True)) @ v
        x = x + linear(f"{k}.o", y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1))
        x = x if before else layer_norm(x, w, f"{k}.a")
        y = layer_norm(x, w, f"{k}.f") if before else x
        x = x + linear(f"{k}.down", np.maximum(linear(f"{k}.up", y), 0))
        x = x if before else layer_norm(x, w, f"{k}.f")
    return linear("head", (layer_norm(x, w, "last") if before else x).max(1))


def group_normed(net: Net, built: Built) -> str:
    """Pointwise convolutions on a residual stream, with group normalisation over it."""
    x = net.op("Conv", net.input("x", ["batch", 6, 3, 3]), built.weight("embed.w", WIDTH, 6, 1, 1))
    for k in range(2):
        y = built.norm(f"{k}.f", "GroupNormalization", x, WIDTH, num_groups=HEADS)
        y = net.op("Relu", net.op("Conv", y, built.weight(f"{k}.up.w", INNER, WIDTH, 1, 1)))
        x = net.op("Add", x, net.op("Conv", y, built.weight(f"{k}.down.w", WIDTH, INNER, 1, 1)))
    return built.linear("head", net.op("ReduceMax", x, net.ints(2, 3), keepdims=0), WIDTH, 4)


def numpy_group_normed(x: np.ndarray, w: Weights, _: bool) -> np.ndarray:
    def conv(label: str, value: np.ndarray) -> np.ndarray:
        return np.einsum("oi,bihw->bohw", w[f"{label}.w"][:, :, 0, 0], value)

    x = conv("embed", x)
    for k in range(2):
        apart = x.reshape(x.shape[0], int(w[f"{k}.f.groups"]), -1)
        centred = apart - apart.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + w.get(f"{k}.f.epsilon", 1e-5))
        y = (centred / spread).reshape(x.shape) * w[f"{k}.f.g"][:, None, None] + w[f"{k}.f.s"][:, None, None]
        x = x + conv(f"{k}.down", np.maximum(conv(f"{k}.up", y), 0))
    return x.max((2, 3)) @ w["head.w"] + w["head.b"]


ARCHITECTURES: dict[str, tuple[Callable[[Net, Built], str], Callable[..., np.ndarray], bool, int]] = {
    "norms before, as in ViT": (transformer(before=True), numpy_transformer, True, 17),
    "norms behind, as in BERT": (transformer(before=False), numpy_transformer, False, 17),
    "group norms": (group_normed, numpy_group_normed, True, 21),
}


def sliced(built: Built, plan: dict[str, Any] | None) -> Weights:
    """The weights of the architecture, cut as a plan says."""
    values = helpers.constants(built.model)
    found: Weights = {label: values[name] for label, name in built.names.items()}
    found |= {f"{k}.heads": np.array(HEADS) for k in range(2)} | {f"{k}.f.groups": np.array(HEADS) for k in range(2)}
    labels = {name: label for label, name in built.names.items()}
    for entry in plan["slices"] if plan else ():
        value = found.get(labels.get(entry["source"], ""))
        if value is None:
            continue
        for axis, gone in entry["removed"].items():
            value = np.delete(value, gone, int(axis))
        found[labels[entry["source"]]] = value * np.float32(entry.get("scaled", 1))
    for change in plan["attributes"] if plan else ():
        if change["consumer"] in built.nodes:
            kind = {"epsilon": "epsilon", "num_groups": "groups"}[change["name"]]
            found[f"{built.nodes[change['consumer']]}.{kind}"] = np.array(change["to"], np.float32)
    for k in range(2):  # a head that lost all its elements is gone
        if f"{k}.q.w" in found and plan:
            removed = next(g["removed"] for g in plan["groups"] if g["kind"] == "head")
            found[f"{k}.heads"] = np.array(HEADS - len(removed))
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_pruned_model_is_the_smaller_architecture(name: str) -> None:
    make, forward, before, opset = ARCHITECTURES[name]
    built = Built(make, opset)
    feeds = helpers.random_feeds(built.model, {"batch": 3})
    whole = forward(feeds["x"], sliced(built, None), before)
    assert helpers.relative(whole, helpers.run(built.model, feeds)[0]) < 1e-5
    result = graphprune.prune(built.model, ratio=0.34, allow_statistical=True)
    plan = result.plan.to_json()
    assert any(g["statistical"] and g["kind"] in ("hidden", "channel") for g in plan["groups"])
    smaller = forward(feeds["x"], sliced(built, plan), before)
    assert helpers.relative(smaller, helpers.run(result.model.proto, feeds)[0]) < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_error_is_less_than_without_the_corrections(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, _, _, opset = ARCHITECTURES[name]
    model = Built(make, opset).model
    feeds = helpers.random_feeds(model, {"batch": 3})
    errors = []
    for corrected in (True, False):
        if not corrected:
            monkeypatch.setattr(corrections, "apply", lambda *_: {})
        result = graphprune.prune(model, ratio=0.34, allow_statistical=True, prove=corrected)
        masked = helpers.run(helpers.mask_by_hand(model, result.plan.to_json()), feeds)[0]
        errors.append(helpers.relative(masked, helpers.run(result.model.proto, feeds)[0]))
    assert errors[0] < errors[1]
    print(f"{name}: {errors[0]:.3g} corrected, {errors[1]:.3g} not")
