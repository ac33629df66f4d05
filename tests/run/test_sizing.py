"""Sizes that a model with a cache is tried at."""

from __future__ import annotations

from onnx import TensorProto, helper

import graphprune
from graphprune.model.model import Model
from graphprune.run import sizing
from models.small import Net


def _decoder(mask: str) -> Model:
    declared = {"ids": ["batch", "length"], "mask": ["batch", mask], "past": ["batch", 2, "before", 4]}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in declared.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["ids"], ["y"])], "decoder", inputs, [])
    return Model(helper.make_model(graph))


def test_a_size_that_is_a_sum_follows_its_parts() -> None:
    for mask, more in (("before + length", 0), ("before + 1", 1)):
        for sizes in list(sizing.alternatives(_decoder(mask)))[:2]:
            length = sizes["ids"][1] if more == 0 else more
            assert sizes["mask"][1] == sizes["past"][2] + length and sizes["ids"][1] != sizes["past"][2]
    free = next(sizing.alternatives(_decoder("whole - length")))
    assert free["mask"][1] not in (free["ids"][1], free["past"][2]), "what is no sum is free"
    given = next(sizing.alternatives(_decoder("before + length"), {"past": (3, 2, 6, 4)}))
    assert given["past"] == (3, 2, 6, 4) and given["mask"][1] == 6 + given["ids"][1]


def test_a_cache_is_tried_empty_and_with_one_token_on_top() -> None:
    model = _decoder("before + length")
    usual = next(sizing.alternatives(model))
    start, step = sizing.edges(model, usual, {"past": (2,)})
    assert start == {**usual, "past": (*usual["past"][:2], 0, 4), "mask": (usual["ids"][0], usual["ids"][1])}
    assert step == {**usual, "ids": (usual["ids"][0], 1), "mask": (usual["ids"][0], 1 + usual["past"][2])}
    assert sizing.edges(model, usual, {}) == [], "nothing grows"


def test_no_size_is_taken_for_fixed_because_one_alone_runs() -> None:
    """Two inputs that are added, of which one says that its two sizes are the same: they are 1 or 2 then."""
    net = Net()
    x = net.op("Add", net.input("x", ["n", "n"]), net.input("y", ["n", "m"]))
    rows = net.op("Slice", net.weight(40, 6), net.ints(0), net.op("Shape", x, start=1, end=2), net.ints(0))
    model = net.model(net.linear(net.op("MatMul", x, rows), 6, 2), rank=2)
    witness = graphprune.analyze(model).witness
    assert witness.first.inputs == {"x": (1, 1), "y": (1, 1)} and witness.second.inputs == {"x": (2, 2), "y": (2, 2)}
