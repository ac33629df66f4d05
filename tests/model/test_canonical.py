"""The canonical form: each reader of a computed constant has its own, as long as that stays in bounds."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.canonical import canonicalize
from models.small import Net


@pytest.mark.parametrize("steps", [2, 20])
def test_copies_that_double_at_every_step(steps: int) -> None:
    """Twenty pairs of a weight and itself would be a million copies."""
    net = Net()
    x, w = net.input("x", ["batch", 4]), net.weight(4, 4)
    for _ in range(steps):
        w = net.op("Concat", w, w, axis=1)
    model = Model(net.model(net.op("MatMul", x, w)))
    found = canonicalize(model)
    made = [o for node in found.nodes for o in node.output]
    assert len(set(made)) == len(made) < 2000
    if steps == 2:
        assert len(found.copies) == 1 and all(len(found.uses[o]) == 1 for o in made[:-1])


def test_a_shape_that_is_none() -> None:
    net = Net()
    made = net.op("ConstantOfShape", net.constant(np.array([-1], np.int64)))
    model = Model(net.model(net.op("Add", net.input("x", ["batch", 4]), made)))
    with pytest.raises(InputError, match="-1"):
        model.array(made)
