"""How large what products sum over is on given inputs: mean squares by channel, streamed, in memory of one batch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphprune.calibration import Batches
from graphprune.linear import Linear
from graphprune.model import Model
from graphprune.moments import FloatArray
from graphprune.staged import Staged, waves


def squares(model: Model, linears: Sequence[Linear], batches: Batches) -> dict[str, FloatArray]:
    """Mean squares of every channel that some operators read, by the name of the operator's output.

    Args:
        model: as it runs.
        linears: its operators.
        batches: gives the inputs.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    steps = waves(model, {n.node: n for n in linears})
    total: dict[str, FloatArray] = {}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        staged = Staged(model, {n.output: k for k, step in enumerate(steps) for n in step}, True, Path(folder))
        number = 0
        for feeds in batches():
            staged.start(number, feeds)
            number += 1
        for place, step in enumerate(steps):
            for values in staged.run(model, place, number, list(dict.fromkeys(n.input for n in step))):
                for linear in step:
                    x = np.moveaxis(values[linear.input], 1 if linear.kernel else -1, 0)
                    channels = x.reshape(len(x), -1).astype(np.float32)
                    own = np.einsum("ij,ij->i", channels, channels).astype(np.float64)
                    total[linear.output] = total.get(linear.output, 0.0) + own
                    counts[linear.output] = counts.get(linear.output, 0) + channels.shape[1]
    return {output: value / max(counts[output], 1) for output, value in total.items()}
