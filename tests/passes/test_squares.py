"""Mean squares of what products sum over."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphprune.analysis import analyze, sparsity
from graphprune.passes.sparse.squares import squares
from graphprune.run.runtime import exposing, run, session
from models.small import attention, residual
from tests.passes.test_sparsify import FORMS


@pytest.mark.parametrize(
    ("proto", "shape"),
    [(residual(), (6, 3, 8, 8)), (attention(), (6, 5, 24)), *((FORMS[n], (6, 5, 64)) for n in ("left", "batched")),
     (FORMS["quantised"], (6, 5, 64)), (FORMS["gemm, transposed"], (6, 64))],
)  # fmt: skip
def test_they_are_those_of_the_activations(proto: ModelProto, shape: tuple[int, ...]) -> None:
    analysis = analyze(proto)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    layers = list(sparsity.find_layers(analysis.model, analysis.witness, analysis.web))
    found = squares(analysis.model, analysis.web, layers, lambda: [{"x": x[:2]}, {"x": x[2:]}])
    assert len(found) == len(layers)
    for layer in layers:
        node = analysis.model.nodes[layer.index]
        name = node.input[1 - layer.position]
        with session(exposing(analysis.model, [name] if name != "x" else [])) as active:
            value = x if name == "x" else run(active, {"x": x}, [name])[0]
        axis = 1 if node.op_type == "Conv" else value.ndim - (2 if layer.position == 0 else 1)
        expected = (np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1) ** 2).mean(1)
        np.testing.assert_allclose(found[(layer.index, layer.position)], expected, rtol=1e-4, err_msg=layer.node)
