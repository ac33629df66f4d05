"""Functions of a model's own, counted before they are laid open."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import load


def nested(calls: dict[str, list[str]], first: str) -> ModelProto:
    """A model that calls a function; each is a chain of calls, of others or of operators."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made = []
    for name, callees in calls.items():
        nodes = [
            helper.make_node(c, [f"v{i}"], [f"v{i + 1}"], domain="local" if c in calls else "")
            for i, c in enumerate(callees)
        ]
        made.append(helper.make_function("local", name, ["v0"], [f"v{len(callees)}"], nodes, sets))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node(first, ["x"], ["y"], domain="local")], "g", ends[:1], ends[1:])
    return helper.make_model(graph, functions=made, opset_imports=sets, ir_version=9)


def doubling(depth: int) -> dict[str, list[str]]:
    return {"f0": ["Relu"], **{f"f{i}": [f"f{i - 1}"] * 2 for i in range(1, depth + 1)}}


def test_what_unfolds_without_end_is_told_before_it_does() -> None:
    with pytest.raises(InputError, match=r"unfold to 1,099,511,627,776 nodes.*'f40'; at most 1,000,000"):
        graphprune.prune(nested(doubling(40), "f40"), ratio=0.3)
    assert len(graphprune.analyze(nested(doubling(5), "f5")).model.nodes) == 2**5


def test_functions_in_a_long_chain_are_no_recursion_of_ours() -> None:
    chain = {"f0": ["Relu"], **{f"f{i}": [f"f{i - 1}"] for i in range(1, 3000)}}
    assert len(load(nested(chain, "f2999")).nodes) == 1


@pytest.mark.parametrize(
    ("calls", "said"),
    [({"f": ["Relu", "f"]}, "'f' calls itself,"), ({"f": ["g"], "g": ["Relu", "f"]}, "calls itself by way of")],
)
def test_a_circle_of_calls_is_told(calls: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(nested(calls, "f"))
