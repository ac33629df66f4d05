from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from graphprune.gradients import GradientError, differentiate, vjp
from tests.gradients.checking import check, evaluate, one_node

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTS = ("Tanh", "Sigmoid", "Softsign", "Affine", "LeakyRelu", "ScaledTanh", "Softplus", "Elu", "HardSigmoid")


def _inputs(
    op: str, rng: np.random.Generator, steps: int, both: bool, given: set[str], samples: int = 2, hidden: int = 3
) -> list[np.ndarray | None]:
    d, g, features = 1 + both, GATES[op], 2
    lengths = rng.integers(1, steps + 1, samples).astype(np.int32)
    found: list[np.ndarray | None] = [
        rng.standard_normal((steps, samples, features)),
        rng.standard_normal((d, g * hidden, features)) * 0.7,
        rng.standard_normal((d, g * hidden, hidden)) * 0.7,
        rng.standard_normal((d, 2 * g * hidden)) if "bias" in given else None,
        lengths if "lengths" in given else None,
        rng.standard_normal((d, samples, hidden)) if "state" in given else None,
    ]
    if op == "LSTM":
        found.append(rng.standard_normal((d, samples, hidden)) if "cell" in given else None)
        found.append(rng.standard_normal((d, 3 * hidden)) if "peep" in given else None)
    while found[-1] is None:
        found.pop()
    return found


@settings(max_examples=14, deadline=None)
@given(st.data())
def test_against_differences(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(sorted(GATES)))
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    present = data.draw(st.sets(st.sampled_from(["bias", "lengths", "state", "cell", "peep"])))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    both = direction == "bidirectional"
    attributes: dict[str, Any] = {"hidden_size": 3, "direction": direction}
    if op == "GRU":
        attributes["linear_before_reset"] = data.draw(st.integers(0, 1))
    if op == "LSTM":
        attributes["input_forget"] = data.draw(st.integers(0, 1))
    inputs = _inputs(op, rng, data.draw(st.integers(1, 4)), both, present)
    check(op, *inputs, outputs=3 if op == "LSTM" else 2, exact=False, tolerance=4e-3, opset=14, **attributes)


@pytest.mark.parametrize("name", ACTS)
def test_activations(name: str) -> None:
    inputs = _inputs("RNN", np.random.default_rng(1), 2, False, {"bias"}, samples=1, hidden=2)
    more: dict[str, Any] = {}
    if name in ("Affine", "LeakyRelu", "ScaledTanh", "Elu", "HardSigmoid"):
        more["activation_alpha"] = [0.5]
    if name in ("Affine", "ScaledTanh", "HardSigmoid"):
        more["activation_beta"] = [0.3]
    options = {"wrt": [0, 2], "exact": False, "tolerance": 2e-2, "opset": 14, "hidden_size": 2}
    check("RNN", *inputs, outputs=2, activations=[name], **options, **more)


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_each_its_own_activation(op: str) -> None:
    inputs = _inputs(op, np.random.default_rng(1), 2, True, {"bias", "cell"}, samples=1, hidden=2)
    names = ["Sigmoid", "Tanh", "Softsign"] if op == "LSTM" else ["Sigmoid", "Softsign"]
    other = ["LeakyRelu", "Softsign", "ScaledTanh"] if op == "LSTM" else ["HardSigmoid", "ScaledTanh"]
    given: dict[str, Any] = {
        "activation_alpha": [0.4, 0.6],
        "activation_beta": [0.5, 0.7][2 - (2 if op == "GRU" else 1) :],
    }
    check(
        op,
        *inputs,
        outputs=2,
        exact=False,
        tolerance=2e-2,
        opset=14,
        hidden_size=2,
        direction="bidirectional",
        activations=[*names, *other],
        **given,
    )


@pytest.mark.parametrize("op", sorted(GATES))
def test_of_some_outputs(op: str) -> None:
    """Outputs that the model leaves out, and layouts, change nothing of the gradients of others."""
    rng = np.random.default_rng(0)
    inputs = _inputs(op, rng, 3, True, {"bias", "state", "cell"})
    count = 3 if op == "LSTM" else 2
    model = one_node(op, inputs, TensorProto.FLOAT, outputs=count, opset=14, hidden_size=3, direction="bidirectional")
    feeds = {f"x{i}": np.asarray(x, np.float32) for i, x in enumerate(inputs) if x is not None and x.dtype.kind == "f"}
    shapes = [v.shape for v in evaluate(model, feeds, False)]
    names = sorted(feeds)
    whole = differentiate(model, None, names).model
    batched = with_layout(model)
    for k in range(count):
        seed = rng.standard_normal(shapes[k]).astype(np.float32)
        seeds = {f"d:y{j}": seed if j == k else np.zeros(shapes[j], np.float32) for j in range(count)}
        expected = dict(zip(names, evaluate(whole, {**feeds, **seeds}, False), strict=True))
        for other in (model, batched):
            alone = ModelProto()
            alone.CopyFrom(other)
            alone.graph.node[0].output[:] = [y if j == k else "" for j, y in enumerate(other.graph.node[0].output)]
            del alone.graph.output[:]
            alone.graph.output.append(ValueInfoProto(name=f"y{k}"))
            swapped = {n: SWAPS.get(n, ()) if other is batched else () for n in [*names, f"y{k}"]}
            given = {n: _swap(v, swapped[n]) for n, v in {**feeds}.items()}
            given[f"d:y{k}"] = _swap(seed, (Y_SWAP if k == 0 else (1, 0, 2)) if other is batched else ())
            found = evaluate(differentiate(alone, None, names).model, given, False)
            for name, value in zip(names, found, strict=True):
                np.testing.assert_allclose(_swap(value, swapped[name]), expected[name], rtol=1e-4, atol=1e-5)


Y_SWAP = (2, 0, 1, 3)
SWAPS = {"x0": (1, 0, 2), "x5": (1, 0, 2), "x6": (1, 0, 2)}


def _swap(value: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(order)) if order else value


def with_layout(model: ModelProto) -> ModelProto:
    """The node with samples first."""
    found = ModelProto()
    found.CopyFrom(model)
    found.graph.node[0].attribute.append(helper.make_attribute("layout", 1))
    for value in found.graph.input:
        if value.name in SWAPS:
            dims = value.type.tensor_type.shape.dim
            one, two = dims[0].dim_value, dims[1].dim_value
            dims[0].dim_value, dims[1].dim_value = two, one
    return found


def test_stops() -> None:
    inputs = _inputs("GRU", np.random.default_rng(0), 2, False, set())
    for attributes, reason in (({"clip": 1.0}, "clipped"), ({"activations": ["Sigmoid", "Sinh"]}, "activation Sinh")):
        model = one_node("GRU", inputs, TensorProto.FLOAT, opset=14, hidden_size=3, **attributes)
        with pytest.raises(GradientError, match=f"GRU node 'node' stops it .*{reason}"):
            vjp(model, wrt=["x1"])


@pytest.mark.torch
@pytest.mark.parametrize("op", sorted(GATES))
def test_against_torch(op: str) -> None:
    torch = pytest.importorskip("torch")
    net = getattr(torch.nn, op)(4, 5, bidirectional=True)
    x = torch.randn(7, 3, 4, requires_grad=True)
    y = net(x)[0]
    seed = torch.randn_like(y)
    y.backward(seed)
    order = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[op]

    def weights(kind: str, of: str = "") -> np.ndarray:
        parts = []
        for end in ("", "_reverse"):
            tensor = getattr(net, f"{kind}_l0{end}")
            value = (tensor.grad if of else tensor).detach().numpy()
            parts.append(np.concatenate([np.split(value, len(order))[k] for k in order]))
        return np.stack(parts)

    def inputs(of: str = "") -> list[np.ndarray]:
        w, r, p, q = (weights(k, of) for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        return [(x.grad if of else x).detach().numpy(), w, r, np.concatenate([p, q], 1)]

    more = {"linear_before_reset": 1} if op == "GRU" else {}
    model = one_node(op, inputs(), TensorProto.FLOAT, opset=14, hidden_size=5, direction="bidirectional", **more)
    names = ["x0", "x1", "x2", "x3"]
    found = differentiate(model, None, names).model
    dy = seed.numpy().reshape(7, 3, 2, 5).transpose(0, 2, 1, 3)
    results = evaluate(found, {**dict(zip(names, inputs(), strict=True)), "d:y0": np.ascontiguousarray(dy)}, False)
    for one, two in zip(results, inputs("grad"), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
