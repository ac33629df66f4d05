from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check

_GRIDS = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    x = rng.standard_normal((1, 2, data.draw(st.integers(2, 5)), data.draw(st.integers(2, 5))))
    held: dict[str, object] = {"mode": mode}
    crop = mode != "cubic" and data.draw(st.integers(0, 4)) == 0
    held["coordinate_transformation_mode"] = "tf_crop_and_resize" if crop else data.draw(st.sampled_from(_GRIDS))
    roi = np.asarray([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.2], np.float32) if crop else None
    if crop:
        held["extrapolation_value"] = 3.0
    if mode == "nearest":
        held["nearest_mode"] = data.draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    elif not crop and data.draw(st.booleans()):
        held["antialias"] = 1
    if mode == "cubic":
        held |= {"cubic_coeff_a": -0.5, "exclude_outside": data.draw(st.integers(0, 1))}
    if data.draw(st.booleans()):
        sizes = np.asarray([1, 2, *(data.draw(st.integers(1, 7)) for _ in range(2))])
        inputs = [x, roi, None, sizes]
    else:
        scales = [1, 1, *(data.draw(st.sampled_from([0.6, 1, 1.5, 2, 2.7])) for _ in range(2))]
        inputs = [x, roi, np.asarray(scales, np.float32)]
    unknown = len(inputs) == 4  # ONNX infers nothing of sizes that are as many as shows at run time
    check("Resize", *inputs, wrt=[0], exact=False, tolerance=1e-2, static_only=unknown, **held)


def test_older_forms() -> None:
    x, scales = np.random.default_rng(0).standard_normal((1, 2, 3, 2)), np.asarray([1, 1, 2, 1.5], np.float32)
    for mode in ("nearest", "linear"):
        known = {"scales": scales.tolist(), "mode": mode}
        check("Upsample", x, exact=False, tolerance=1e-2, opset=8, **known)
        check("Upsample", x, scales, wrt=[0], exact=False, tolerance=1e-2, opset=9, mode=mode)
        check("Resize", x, scales, wrt=[0], exact=False, tolerance=1e-2, opset=10, mode=mode)
