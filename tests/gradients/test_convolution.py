from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.gradients.rules import convolution
from tests.gradients.checking import check, gradients


def _case(data: st.DataObject, transposed: bool) -> tuple[list[np.ndarray], dict[str, object]]:
    """Inputs and attributes of a convolution that has at least one position."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    axes = data.draw(st.sampled_from([1, 2, 2, 2, 3]))
    group, ins, outs = (data.draw(st.integers(1, 2)) for _ in range(3))
    kernel, strides, dilations = (
        [data.draw(st.integers(1, top)) for _ in range(axes)] for top in (3, 3 if axes < 3 else 2, 2)
    )
    begins, ends = ([data.draw(st.integers(0, 2)) for _ in range(axes)] for _ in range(2))
    reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    smallest = [1 if transposed else 1 + r for r in reach]
    sizes = [
        n + data.draw(st.integers(0, 3)) + (p + q if transposed else 0)
        for n, p, q in zip(smallest, begins, ends, strict=True)
    ]
    channels = [group * ins, outs] if transposed else [group * outs, ins]
    x = rng.standard_normal((data.draw(st.integers(1, 2)), group * ins, *sizes))
    w = rng.standard_normal((*channels, *kernel))
    bias = [rng.standard_normal(group * outs)] if data.draw(st.booleans()) else []
    held: dict[str, object] = {"group": group, "strides": strides, "dilations": dilations}
    auto = data.draw(st.sampled_from(["", "", "VALID", "SAME_UPPER", "SAME_LOWER"])) if not transposed else ""
    held |= {"auto_pad": auto} if auto else {"pads": [*begins, *ends]}
    if auto.startswith("SAME"):
        held["dilations"] = [1] * axes  # ONNX Runtime takes no other
    if data.draw(st.booleans()):
        held["kernel_shape"] = kernel
    return [x, w, *bias], held


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    inputs, held = _case(data, transposed=False)
    same = str(held.get("auto_pad", "")).startswith("SAME")
    limits = {"_AREA": data.draw(st.sampled_from([0, 400])), "_BAND": data.draw(st.sampled_from([0, 40]))}
    with patch.multiple(convolution, _CHANNELS=data.draw(st.sampled_from([1, 8])), **limits):  # all ways, at any size
        check("Conv", *inputs, exact=False, static_only=same, tolerance=5e-3, **held)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    inputs, held = _case(data, transposed=True)
    held["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in held["strides"]]  # type: ignore[attr-defined]
    check("ConvTranspose", *inputs, exact=False, tolerance=5e-3, **held)


@pytest.mark.parametrize("name", ["", "Relu", "LeakyRelu", "Clip", "Tanh"])
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(name: str, added: bool) -> None:
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(s) for s in ((1, 2, 4, 3), (3, 2, 2, 2), (3,)))
    more = [rng.standard_normal((1, 3, 3, 2))] if added else []
    held = {"activation": name} if name else {}
    values = {"LeakyRelu": [0.3], "Clip": [-0.7, 1.5]}.get(name, [])
    held |= {"activation_params": values} if values else {}
    inputs = [x, w, bias, *more]
    weights = rng.standard_normal((1, 3, 3, 2))
    wrt = list(range(len(inputs)))
    found = gradients("FusedConv", inputs, [weights], wrt, domain="com.microsoft", **held)
    plain = _by_hand(*inputs)
    slope = {"": 1, "Relu": plain > 0, "LeakyRelu": np.where(plain > 0, 1, 0.3), "Tanh": 1 - np.tanh(plain) ** 2}
    slope["Clip"] = (plain > -0.7) & (plain < 1.5)
    inner = gradients("Conv", inputs[:3], [weights * slope[name]], [0, 1, 2])
    for key, value in inner.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5)
    if added:
        np.testing.assert_allclose(found["d:x3"], weights * slope[name], rtol=1e-4, atol=1e-5)


def _by_hand(x: np.ndarray, w: np.ndarray, bias: np.ndarray, added: np.ndarray | float = 0.0) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, w) + bias[:, None, None] + added


_LAYERS = [
    # channels in and out, size, kernel, stride, padding, dilation, groups
    (16, 24, (30, 31), 3, 1, 1, 1, 1),
    (16, 24, (12, 13), 3, 1, 1, 1, 1),
    (16, 24, (29, 30), 3, 2, 1, 1, 1),
    (16, 16, (24, 24), 3, 1, 2, 2, 2),
    (12, 12, (14, 15), 5, 1, 2, 1, 12),
    (12, 12, (45, 46), 3, 2, 1, 1, 12),
    (12, 24, (14, 15), 3, 1, 1, 1, 12),
    (3, 16, (32, 33), 7, 2, 3, 1, 1),
    (16, 8, (14, 14), 1, 1, 0, 1, 1),
    (16, 8, (15, 14), 1, 2, 0, 1, 1),
    (8, 8, (16, 16), 8, 8, 0, 1, 1),
]


@pytest.mark.torch
@pytest.mark.parametrize("layer", _LAYERS, ids=str)
def test_conv_as_torch(layer: tuple[int, int, tuple[int, int], int, int, int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    ins, outs, size, kernel, stride, padding, dilation, group = layer
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(s) for s in ((2, ins, *size), (outs, ins // group, kernel, kernel), (outs,)))
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, w, bias)]
    y = torch.nn.functional.conv2d(*tensors, stride, padding, dilation, group)
    weights = rng.standard_normal(tuple(y.shape))
    y.backward(torch.tensor(weights))
    held = {"strides": [stride] * 2, "pads": [padding] * 4, "dilations": [dilation] * 2, "group": group}
    for dynamic in (False, True):
        found = gradients("Conv", [x, w, bias], [weights], [0, 1, 2], dynamic=dynamic, **held)
        for i, tensor in enumerate(tensors):
            expected = tensor.grad.numpy()
            assert np.abs(found[f"d:x{i}"] - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-5


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_columns(data: st.DataObject) -> None:
    block, strides, dilations = ([data.draw(st.integers(1, 2)) for _ in range(2)] for _ in range(3))
    size, pads = [4, 5], [data.draw(st.integers(0, 1)) for _ in range(4)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, block, strict=True)]
    count = [(n + pads[k] + pads[k + 2] - spans[k]) // strides[k] + 1 for k, n in enumerate(size)]
    x = np.random.default_rng(0).standard_normal((2, 3 * int(np.prod(block)), int(np.prod(count))))
    held = {"strides": strides, "dilations": dilations, "pads": pads}
    check("Col2Im", x, np.asarray(size), np.asarray(block), wrt=[0], opset=18, static_only=True, **held)
