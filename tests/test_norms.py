"""Mean squares of what products sum over."""

from __future__ import annotations

import numpy as np

from graphprune.linears import find
from graphprune.model import load
from graphprune.norms import squares
from graphprune.run import exposing, run, session
from models.small import attention, residual


def test_they_are_those_of_the_activations() -> None:
    for proto, shape in ((residual(), (6, 3, 8, 8)), (attention(), (6, 5, 24))):
        model = load(proto)
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        linears = find(model)
        found = squares(model, linears, lambda x=x: [{"x": x[:2]}, {"x": x[2:]}])
        names = [n.input for n in linears if n.input != "x"]
        with session(exposing(model, names)) as active:
            values = {"x": x, **dict(zip(names, run(active, {"x": x}, names), strict=True))}
        for linear in linears:
            value = np.moveaxis(values[linear.input], 1 if linear.kernel else -1, 0)
            np.testing.assert_allclose(
                found[linear.output], (value.reshape(len(value), -1) ** 2).mean(1), rtol=1e-4, err_msg=linear.output
            )
