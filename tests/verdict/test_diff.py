"""What changed between two models: nodes are matched whatever is renamed, and only what was changed is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.model.files import plain
from graphprune.schema import schema
from graphprune.verdict.diff import diff

EXPORTS = ("resnext-ts9", "vit-ts16", "gru-tagger-ts13", "wavenet-dynamo18")


def renamed(model: ModelProto) -> ModelProto:
    """The same model with a number for each name."""
    names: dict[str, str] = {}
    found = ModelProto()
    found.CopyFrom(model)

    def new(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}") if name else ""

    def walk(graph: GraphProto) -> None:
        for value in [*graph.input, *graph.output, *graph.initializer]:
            value.name = new(value.name)
        for node in graph.node:
            node.name = new(f"node {node.name}")
            node.input[:] = map(new, node.input)
            node.output[:] = map(new, node.output)
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else []:
                    walk(inner)
        del graph.value_info[:]

    walk(found.graph)
    return found


def moved(model: ModelProto) -> ModelProto:
    """The same model with other weights everywhere."""
    found = ModelProto()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value * np.float32(0.99) + np.float32(0.001), tensor.name))
    return found


def told(a: Any, b: Any) -> dict[str, Any]:
    data = diff(a, b, run=False).to_json()
    jsonschema.validate(plain(data), schema("diff"))
    return data


@pytest.mark.parametrize("name", EXPORTS)
def test_names_do_not_matter(name: str) -> None:
    model = models.export(name)
    found = told(model, renamed(model))
    count = found["models"][0]["nodes"]
    assert found["matched"]["nodes"] == count == found["matched"]["by"]["identical"]
    assert found["same"] and not found["weights"]["entries"] and not found["attributes"]
    labels = [n.name for n in model.graph.node if n.op_type != "Constant" and n.name]
    assert set(labels) <= {before for before, _ in found["operators"]["renamed"]}


@pytest.mark.parametrize("change", [moved, lambda model: renamed(moved(model))], ids=["weights", "weights and names"])
@pytest.mark.parametrize("name", EXPORTS)
def test_nodes_are_found_by_what_is_around_them(name: str, change: Callable[[ModelProto], ModelProto]) -> None:
    model = models.export(name)
    found = told(model, change(model))
    operators = found["operators"]
    assert not (operators["added"] or operators["removed"] or operators["changed"] or found["wiring"])
    assert {e["state"] for e in found["weights"]["entries"]} == {"changed"}
    assert not found["same"]
    for entry in found["weights"]["entries"]:  # each beside its own: what was added is small beside the rest
        assert entry["kind"] == "number" or entry["relative"] is None or entry["relative"] < 0.5


def chain(*widths: int, names: str = "layer") -> ModelProto:
    """Products in a row, each with a bias and a rectifier."""
    random = np.random.default_rng(0)
    nodes, held, read = [], [], "x"
    for k in range(len(widths) - 1):
        held.append(numpy_helper.from_array(random.standard_normal(widths[k : k + 2], np.float32), f"{names}{k}.w"))
        held.append(numpy_helper.from_array(random.standard_normal(widths[k + 1], np.float32), f"{names}{k}.b"))
        for op, inputs, output in (
            ("MatMul", [read, f"{names}{k}.w"], f"{names}{k}/m"),
            ("Add", [f"{names}{k}/m", f"{names}{k}.b"], f"{names}{k}/a"),
            ("Relu", [f"{names}{k}/a"], f"{names}{k}/r"),
        ):
            nodes.append(helper.make_node(op, inputs, [output], f"{names}{k}/{op}"))
        read = nodes[-1].output[0]
    ends = (("x", widths[0]), (read, widths[-1]))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", w]) for n, w in ends)
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_what_pruning_did() -> None:
    model = chain(6, 32, 32, 5)
    small = graphprune.prune(model, ratio=0.25).proto
    found = diff(model, small).to_json()
    assert [(e["node"], e["before"], e["after"], e["state"]) for e in found["widths"]] == [
        ("layer0/MatMul", [6, 32], [6, 24], "cut"),
        ("layer1/MatMul", [32, 32], [24, 24], "cut"),
        ("layer2/MatMul", [32, 5], [24, 5], "cut"),
    ]
    assert found["weights"]["counts"]["cut"] == 5 and found["weights"]["counts"]["same"] == 1
    rows = 3  # of the sizes that it was run at
    assert [m["macs"] / rows for m in found["models"]] == [6 * 32 + 32 * 32 + 32 * 5, 6 * 24 + 24 * 24 + 24 * 5]
    assert {"graphprune.version", "graphprune.plan.sha256"} <= {e["key"] for e in found["metadata"]}
    assert not (found["operators"]["types"] or found["wiring"] or found["interface"]["inputs"])


def test_a_layer_that_went_among_renumbered_ones() -> None:
    """Every number behind it has moved on, so names would tell that the last went and all others changed."""
    model, less = chain(8, 8, 8, 8, 8), chain(8, 8, 8, 8, 8)
    gone = list(less.graph.node[3:6])
    for node in gone:
        less.graph.node.remove(node)
    for node in less.graph.node:
        node.input[:] = ["layer0/r" if n == "layer1/r" else n for n in node.input]
    for own in [n for n in less.graph.initializer if n.name.startswith("layer1.")]:
        less.graph.initializer.remove(own)
    names = {f"layer{k}": f"layer{k - 1}" for k in (2, 3)}
    for node in less.graph.node:
        for field in (node.input, node.output):
            field[:] = [n.replace(n[:6], names.get(n[:6], n[:6])) for n in field]
        node.name = node.name.replace(node.name[:6], names.get(node.name[:6], node.name[:6]))
    for own in [*less.graph.initializer, *less.graph.output]:
        own.name = own.name.replace(own.name[:6], names.get(own.name[:6], own.name[:6]))
    found = told(model, less)
    assert [e["node"] for e in found["operators"]["removed"]] == [n.name for n in gone]
    assert [(e["node"], e["before"], e["after"]) for e in found["wiring"]] == [
        ("layer2/MatMul", "layer1/r", "layer0/r")
    ]
    assert found["weights"]["counts"]["same"] == 6 and found["weights"]["counts"]["removed"] == 2


def test_a_norm_that_was_folded_is_bridged() -> None:
    model = chain(4, 4, 4, 4)
    folded = renamed(moved(model))
    for node in [n for n in folded.graph.node if n.op_type == "Add"]:
        for reader in folded.graph.node:
            reader.input[:] = [node.input[0] if n == node.output[0] else n for n in reader.input]
        folded.graph.node.remove(node)
    found = told(model, folded)
    assert [e["op"] for e in found["operators"]["removed"]] == ["Add"] * 3 and not found["operators"]["added"]
    assert found["matched"]["nodes"] == 6


def test_constants_nodes_identities_and_defaults_are_no_difference() -> None:
    model = chain(4, 8, 4)
    other = ModelProto()
    other.CopyFrom(model)
    weight = other.graph.initializer.pop(0)
    other.graph.node.insert(0, helper.make_node("Constant", [], [weight.name], value=weight))
    other.graph.node[1].input[0] = "passed"
    other.graph.node.insert(0, helper.make_node("Identity", ["x"], ["passed"]))
    assert told(model, other)["same"]
    gemm, explicit = (
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 13]> g (float[2,3] x, float[3,4] w) => (float[2,4] y) '
            f"{{ y = Gemm{attributes}(x, w) }}"
        )
        for attributes in ("", "<alpha = 1.0, transA = 0>")
    )
    assert told(gemm, explicit)["same"]
    explicit.graph.node[0].attribute[0].f = 2.0
    assert [(e["name"], e["before"], e["after"]) for e in told(gemm, explicit)["attributes"]] == [("alpha", 1.0, 2.0)]


def _changed(what: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """What is told of a weight that nothing computes with, so that any shape and type makes a model."""
    model, other = chain(4, 4), chain(4, 4)
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32), "apart")
    for proto in (model, other):
        proto.graph.initializer.append(weight)
    weight = other.graph.initializer[-1]
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(what(numpy_helper.to_array(weight))), weight.name))
    (entry,) = told(model, other)["weights"]["entries"]
    return entry


def test_what_became_of_a_weight() -> None:
    random = np.random.default_rng(1)
    rows, columns = np.sort(random.permutation(16)[:9]), np.sort(random.permutation(12)[:5])
    assert _changed(lambda w: w[np.ix_(rows, columns)])["state"] == "cut"
    assert _changed(lambda w: w[np.ix_(rows, columns)] * np.float32(2))["state"] == "cut and changed"
    assert _changed(lambda w: w[::-1])["state"] == "reordered"
    assert _changed(lambda w: w.reshape(8, 24))["state"] == "reshaped"
    assert _changed(lambda w: w.T)["state"] == "transposed"
    assert _changed(lambda w: np.concatenate([w, w]))["state"] == "resized"
    half = _changed(lambda w: w.astype(np.float16))
    assert half["state"] == "cast" and half["types"] == ["float", "float16"] and 0 < half["relative"] < 1e-3
    zeros = _changed(lambda w: np.where(np.arange(12) < 3, np.float32(0), w))
    assert zeros["state"] == "changed" and zeros["zeros"] == [0, 0.25] and zeros["elements"] == 48
    scaled = _changed(lambda w: w * np.float32(1.25))
    assert scaled["relative"] == pytest.approx(0.25) and scaled["elements"] == 192


def test_the_interface_and_operator_sets() -> None:
    model, other = chain(4, 4), chain(4, 4)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    other.graph.output[0].name = other.graph.node[-1].output[0] = "y"
    other.opset_import[0].version = 18
    found = told(model, other)
    assert [(e["before"]["shape"], e["after"]["shape"]) for e in found["interface"]["inputs"]] == [(["n", 4], [1, 4])]
    assert [e["names"] for e in found["interface"]["outputs"]] == [["layer0/r", "y"]]
    assert found["opsets"] == [{"domain": "", "before": 17, "after": 18}] and not found["wiring"]


def test_outputs_are_matched_by_name_wherever_they_stand() -> None:
    model, other = chain(4, 8, 4), chain(4, 8, 4)
    more = helper.make_tensor_value_info("layer0/r", TensorProto.FLOAT, ["n", 8])
    other.graph.output.insert(0, more)
    found = told(model, other)
    assert not found["wiring"] and [e["names"] for e in found["interface"]["outputs"]] == [[None, "layer0/r"]]
    model.graph.output.append(more)
    assert told(model, other)["same"]


def test_what_nobody_reads_is_no_difference() -> None:
    model, other = chain(4, 4), chain(4, 4)
    for k, own in enumerate((model, other)):
        own.graph.initializer.append(numpy_helper.from_array(np.full(3, k, np.float32), "idle"))
    other.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "more"))
    found = told(model, other)
    assert found["same"] and [e["state"] for e in found["weights"]["entries"]] == ["changed", "added"]
    for own in (model, other):
        own.graph.output.append(helper.make_tensor_value_info("idle", TensorProto.FLOAT, [3]))
    assert not told(model, other)["same"], "an output that is another constant now"


def test_bodies_and_functions() -> None:
    text = """
        <ir_version: 9, opset_import: ["": 17, "own": 1]>
        g (float[4] x, bool c) => (float[4] y) {
            t = own.Twice(x)
            y = If(c) <then_branch = th () => (float[4] p) { p = Relu(t) },
                       else_branch = el () => (float[4] q) { r = Neg(t) q = Exp(r) }>
        }
        <domain: "own", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }
    """
    model, other = onnx.parser.parse_model(text), onnx.parser.parse_model(text.replace("Exp", "Tanh"))
    found = told(model, other)["operators"]
    assert [(e["before"], e["after"]) for e in found["changed"]] == [("Exp", "Tanh")] or (
        [(e["op"], e["in"]) for e in found["removed"]] == [("Exp", "/If.else_branch")]
        and [(e["op"], e["in"]) for e in found["added"]] == [("Tanh", "/If.else_branch")]
    )
    assert told(model, renamed(model))["same"]
    inlined = onnx.inliner.inline_local_functions(model)
    laid = told(model, inlined)
    assert not laid["operators"]["types"] and not laid["wiring"] and "functions" in laid["notes"][0]
