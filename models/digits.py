"""scikit-learn's digits, split once and for all, and how many a model gets right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

HELD_OUT = 450
"""Images that no training sees; the other 1,347 are for training and calibration."""


def images(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images ``[n, 1, 8, 8]`` in [0, 1] and labels ``[n]`` of a part: ``train`` or ``held out``."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    chosen = order[HELD_OUT:] if part == "train" else order[:HELD_OUT]
    return (data.images[chosen, None] / 16).astype(np.float32), data.target[chosen].astype(np.int64)


def accuracy(model: ModelProto) -> float:
    """The share of held-out images that a model gets right."""
    x, y = images("held out")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    active = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (logits,) = active.run(None, {active.get_inputs()[0].name: x})
    return float((np.asarray(logits).argmax(1) == y).mean())
