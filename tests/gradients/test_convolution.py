from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.gradients.rules import convolution
from tests.gradients.checking import check


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
