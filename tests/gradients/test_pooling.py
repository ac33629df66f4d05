from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check, gradients


def _case(data: st.DataObject) -> tuple[np.ndarray, dict[str, object]]:
    """An input of values far apart, and attributes of a pool."""
    axes = data.draw(st.sampled_from([1, 2, 2, 3]))
    kernel, strides = ([data.draw(st.integers(1, 3)) for _ in range(axes)] for _ in range(2))
    dilations = [data.draw(st.integers(1, 2)) for _ in range(axes)]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    sizes = [1 + d * (k - 1) + data.draw(st.integers(0, 3)) for k, d in zip(kernel, dilations, strict=True)]
    shape = [data.draw(st.integers(1, 2)), 2, *sizes]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1 + 0.2
    held: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "ceil_mode": data.draw(st.integers(0, 1))}
    auto = data.draw(st.sampled_from(["", "", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto.startswith("SAME"):  # ONNX Runtime takes no window that is smaller than its step
        held["strides"] = [min(k, s) for k, s in zip(kernel, strides, strict=True)]
    held |= {"auto_pad": auto} if auto else {"pads": pads, "dilations": dilations}
    return x, held


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_max_pool(data: st.DataObject) -> None:
    x, held = _case(data)
    check("MaxPool", x, exact=False, tolerance=1e-2, opset=22, **held)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_average_pool(data: st.DataObject) -> None:
    x, held = _case(data)
    check(
        "AveragePool", x, exact=False, tolerance=1e-2, opset=22, count_include_pad=data.draw(st.integers(0, 1)), **held
    )


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_norm_pool(data: st.DataObject) -> None:
    x, held = _case(data)
    held["ceil_mode"] = 0  # ONNX and ONNX Runtime do not agree on how many windows there are
    signs = np.random.default_rng(0).choice([-1, 1], x.shape)
    check(
        "LpPool",
        signs * (x / x.max() + 0.2),
        exact=False,
        tolerance=2e-2,
        opset=18,
        p=data.draw(st.integers(1, 3)),
        **held,
    )


def test_equal_elements_of_a_window_get_it_once() -> None:
    found = gradients("MaxPool", [np.ones((1, 1, 4))], [np.ones((1, 1, 2))], [0], kernel_shape=[2], strides=[2])
    assert found["d:x0"].sum() == 2 and set(np.unique(found["d:x0"])) == {0, 1}


@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool"])
def test_global(op: str) -> None:
    check(op, np.random.default_rng(0).permutation(24).reshape(1, 2, 3, 4) * 0.1)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_global_norm(power: int) -> None:
    x = np.random.default_rng(0).permutation(24).reshape(1, 2, 3, 4) * 0.1 - 1.15
    check("GlobalLpPool", x, exact=False, tolerance=1e-2, opset=21, p=power)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 2, 2))
    check("LRN", x, exact=False, tolerance=1e-2, size=size, alpha=0.3, beta=0.6, bias=1.2)


def test_what_was_pooled_goes_back() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 2))
    at = np.asarray([[[[0, 3], [8, 11]], [[17, 19], [24, 30]]]])
    check("MaxUnpool", x, at, wrt=[0], exact=False, tolerance=1e-2, opset=22, kernel_shape=[2, 2], strides=[2, 2])
