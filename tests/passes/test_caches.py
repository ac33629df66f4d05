"""Decoders with a cache: split in two files, or merged by an If; cut by one plan, and proven as they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import InputError
from graphprune.model.canonical import canonicalize
from graphprune.model.model import Model
from graphprune.passes.results import Result
from graphprune.proof.masking import mask
from models.merged import SWITCH, merged

PLAIN, FIRST, FURTHER = (models.trained(f"tiny-lm{part}") for part in ("", "-decoder", "-decoder-with-past"))
PROMPTS = np.array([list(b"Return the number of "), list(b"If the file does not ")], np.int64)
Array = np.ndarray[Any, Any]


def session(model: ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def written(model: ModelProto, ids: Array, count: int = 32) -> Array:
    """What a model without a cache writes on, the likeliest token each time."""
    active = session(model)
    for _ in range(count):
        (logits,) = active.run(["logits"], {"input_ids": ids})
        ids = np.concatenate([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


def written_on(first: ModelProto, further: ModelProto, ids: Array, count: int = 32) -> Array:
    """The same of two files, one that starts and one that takes a token and the cache."""
    active, names = session(first), [o.name for o in first.graph.output]
    found = active.run(names, {"input_ids": ids})
    active = session(further)
    for _ in range(count):
        token = found[0][:, -1:].argmax(-1)
        ids = np.concatenate([ids, token], 1)
        past = {n.replace("present", "past_key_values"): v for n, v in zip(names[1:], found[1:], strict=True)}
        found = active.run(names, {"input_ids": token, **past})
    return ids


@pytest.fixture(scope="module")
def pruned() -> Result:
    return graphprune.prune(PLAIN, ratio=0.3)


def test_the_pair_writes_what_the_masked_original_writes(pruned: Result) -> None:
    masked = mask(canonicalize(Model(onnx.load(PLAIN))), pruned.plan)
    pair = [graphprune.apply(pruned.plan, one, original=PLAIN) for one in (FIRST, FURTHER)]
    assert all(one.after.parameters == pruned.after.parameters < 0.6 * one.before.parameters for one in pair)
    heads = {v.name: v.type.tensor_type.shape.dim[3].dim_value for v in pair[1].proto.graph.input if "past" in v.name}
    assert set(heads.values()) == {12}, "the cache is narrower"
    wanted = written(masked.proto, PROMPTS)
    assert len(np.unique(wanted[:, PROMPTS.shape[1] :])) > 2, "it says something"
    assert (written_on(pair[0].proto, pair[1].proto, PROMPTS) == wanted).all()


def test_the_proof_runs_where_a_cache_starts_and_where_it_goes_on() -> None:
    result = graphprune.prune(FURTHER, ratio=0.3, allow_io=True)
    assert result.proof is not None
    sizes = [(run["shapes"]["input_ids"][1], run["shapes"]["past_key_values.0.key"][2]) for run in result.proof.inputs]
    assert len(sizes) == 4 and sizes[2][0] > 1 and sizes[2][1] == 0 and sizes[3][0] == 1 and sizes[3][1] > 0


def test_both_branches_of_a_merged_decoder_are_cut_alike_and_proven(pruned: Result) -> None:
    both = merged(onnx.load(FIRST), onnx.load(FURTHER))
    onnx.checker.check_model(both)
    for result in (
        graphprune.prune(both, ratio=0.3, allow_io=True),
        graphprune.apply(pruned.plan, both, original=PLAIN),
    ):
        assert result.proof is not None
        assert [run.get("off") for run in result.proof.inputs].count([SWITCH]) == 1
        assert result.after.parameters < 0.6 * result.before.parameters, "weights are shared as before"
        active, names = session(result.proto), [o.name for o in result.proto.graph.output]
        shape = [2, 2, 0, 12]
        empty = {i.name: np.zeros(shape, np.float32) for i in active.get_inputs() if "past" in i.name}
        one, two = (active.run(names, {"input_ids": PROMPTS, **empty, SWITCH: np.array([on])}) for on in (True, False))
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def _perceptron(turned: bool, seed: int = 0) -> ModelProto:
    """Two products with a ReLU between; the weights as they are, or turned and under other names."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape, dtype=np.float32) for shape in ((6, 16), (16, 5))]
    names = ["v", "u"] if turned else ["a", "b"]
    make = {"op_type": "Gemm", "transB": 1} if turned else {"op_type": "MatMul"}
    nodes = [
        helper.make_node(inputs=["x", names[0]], outputs=[f"{names[0]}x"], **make),
        helper.make_node("Relu", [f"{names[0]}x"], ["h"]),
        helper.make_node(inputs=["h", names[1]], outputs=["y"], **make),
    ]
    tensors = [numpy_helper.from_array(w.T.copy() if turned else w, n) for n, w in zip(names, weights, strict=True)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 6), ("y", 5)))
    graph = helper.make_graph(nodes, "perceptron", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_weights_are_found_again_turned_and_fitted_values_go_along() -> None:
    plain, turned = _perceptron(False), _perceptron(True)
    x = np.random.default_rng(1).standard_normal((512, 6), dtype=np.float32) + 1
    first = graphprune.prune(plain, ratio=0.5, calibration={"x": x})
    assert [n.op_type for n in first.proto.graph.node].count("Add"), "a fit has added a bias"
    for fitted in (None, first.proto):
        other = graphprune.apply(first.plan, turned, original=plain, fitted=fitted)
        wanted = graphprune.apply(first.plan, plain).proto if fitted is None else fitted
        (a,), (b,) = (session(m).run(None, {"x": x}) for m in (wanted, other.proto))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert ("--fitted takes their values" in " ".join(other.notes)) == (fitted is None)
        assert [e["weight"] for e in other.plan.compensated] == ([] if fitted is None else ["u"])


def test_what_cannot_be_carried_over_is_told() -> None:
    plain = _perceptron(False)
    plan = graphprune.prune(plain, ratio=0.5).plan
    with pytest.raises(InputError, match=r"shares no weight with .* that the plan cuts"):
        graphprune.apply(plan, _perceptron(True, seed=3), original=plain)
    with pytest.raises(InputError, match=r"is not the file that the plan was made for .*--original"):
        graphprune.apply(plan, _perceptron(True), original=_perceptron(True))
    with pytest.raises(InputError, match="for another file of the same network give --original"):
        graphprune.apply(plan, _perceptron(True))
    with pytest.raises(InputError, match="--fitted is for another file"):
        graphprune.apply(plan, plain, fitted=plain)
    with pytest.raises(InputError, match="is not what the plan comes to"):
        graphprune.apply(plan, _perceptron(True), original=plain, fitted=plain)


def test_a_file_that_ties_more_together_says_so() -> None:
    """What one file parts another may tie: there the hidden features go by pairs."""
    plain, paired = _perceptron(False), _perceptron(True)
    nodes = paired.graph.node
    nodes[1].output[0] = "wide"
    pairs = numpy_helper.from_array(np.array([0, 8, 2], np.int64), "pairs")
    back = numpy_helper.from_array(np.array([0, 16], np.int64), "back")
    paired.graph.initializer.extend([pairs, back])
    nodes.insert(2, helper.make_node("Reshape", ["wide", "pairs"], ["split"]))
    nodes.insert(3, helper.make_node("ReduceMax", ["split"], ["most"], axes=[2], keepdims=1))
    nodes.insert(4, helper.make_node("Sub", ["split", "most"], ["less"]))
    nodes.insert(5, helper.make_node("Reshape", ["less", "back"], ["h"]))
    plan = graphprune.prune(plain, ratio=0.3).plan
    with pytest.raises(InputError, match="this file ties them to others; prune this file first"):
        graphprune.apply(plan, paired, original=plain)
