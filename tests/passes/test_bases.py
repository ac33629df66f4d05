"""Changes of basis are exact, and put what goes first last: on graphs by hand, and on exports."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.analysis import analyze
from graphprune.analysis.mixing import NotLinear, find_mixing
from graphprune.errors import InputError
from graphprune.passes.basis.centre import Centre
from graphprune.passes.basis.directions import CONDITION, balanced, principal
from graphprune.passes.basis.rotate import Rotate
from graphprune.passes.choose.select import Select
from graphprune.passes.cut import Cut
from graphprune.passes.recipe import Recipe
from graphprune.passes.state import Job
from tests import helpers

HEADS, SIZE, WIDTH = 3, 4, 8
FEEDS = {"x": np.random.default_rng(5).standard_normal((2, 6, WIDTH)).astype(np.float32)}


class Graph:
    """A model written node by node, with weights that are drawn."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"node{len(self.nodes)}", **attributes))
        return names[0]

    def constant(self, value: Any) -> str:
        name = f"w{len(self.held)}"
        self.held.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def linear(self, x: str, before: int, after: int, bias: bool = True) -> str:
        y = self.op("MatMul", x, self.weight(before, after))
        return self.op("Add", y, self.weight(after)) if bias else y

    def norm(self, x: str, width: int = WIDTH) -> str:
        gain = self.constant(self.rng.uniform(0.3, 2, width).astype(np.float32))
        return self.op("LayerNormalization", x, gain, self.weight(width), axis=-1)

    def model(self, y: str, width: int, opset: int = 17) -> ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "s", WIDTH])
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["b", "s", width])
        graph = helper.make_graph(self.nodes, "made", [x], [out], self.held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def attention(net: Graph, x: str, values: str | None = None) -> str:
    """Heads in one tensor, as exporters write them."""
    to = net.constant(np.array([0, 0, HEADS, SIZE], np.int64))
    back = net.constant(np.array([0, 0, HEADS * SIZE], np.int64))

    def split(name: str, perm: list[int]) -> str:
        return net.op("Transpose", net.op("Reshape", name, to), perm=perm)

    wide = HEADS * SIZE
    q, k = (split(net.linear(x, WIDTH, wide), perm) for perm in ([0, 2, 1, 3], [0, 2, 3, 1]))
    v = split(values or net.linear(x, WIDTH, wide), [0, 2, 1, 3])
    scores = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    return net.op("Reshape", net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3]), back)


def layers(seed: int = 0) -> Graph:
    """A stream with an attention and a feed-forward layer, each behind a layer norm."""
    net = Graph(seed)
    x = net.linear("x", WIDTH, WIDTH)
    x = net.op("Add", x, net.linear(attention(net, net.norm(x)), HEADS * SIZE, WIDTH))
    inner = net.op("Relu", net.linear(net.norm(x), WIDTH, 16))
    x = net.op("Add", x, net.linear(inner, 16, WIDTH))
    net.last = net.linear(net.norm(x), WIDTH, 3)  # type: ignore[attr-defined]
    return net


def pruned(model: ModelProto, *passes: Any, **job: Any) -> Any:
    return graphprune.run_recipe(Recipe(passes, Job(**job)), model)


def test_a_direction_that_nothing_needs_is_found() -> None:
    """Values of rank 2 in heads of 4: in their own basis half of them go for nothing, as they stand they do not."""
    net = Graph()
    low = np.concatenate(
        [net.rng.standard_normal((WIDTH, 2)) @ net.rng.standard_normal((2, SIZE)) for _ in range(HEADS)], axis=1
    )
    values = net.op("MatMul", "x", net.constant(low.astype(np.float32)))
    y = net.linear(attention(net, "x", values), HEADS * SIZE, 3)
    model = net.model(y, 3)
    wanted = helpers.run(model, FEEDS)[0]
    group = next(g.id for g in analyze(model).groups if g.kind == "head_dim" and len(analyze(model).weights(g)) == 2)
    select = Select(0.5, include=[group], align=1)
    found, plain = (pruned(model, *first, select, Cut()) for first in ([Rotate()], []))
    assert [len(g.removed) for g in found.plan.groups] == [2]
    assert helpers.relative(wanted, helpers.run(found.proto, FEEDS)[0]) < 1e-5
    assert helpers.relative(wanted, helpers.run(plain.proto, FEEDS)[0]) > 1e-2


def test_layer_norms_lose_their_means_and_hidden_sizes_go_exactly() -> None:
    net = layers()
    model = net.model(net.last, 3)  # type: ignore[attr-defined]
    before = {g.id: g for g in analyze(model).groups}
    hidden = next(g for g in before.values() if g.statistical)
    with pytest.raises(InputError, match="nothing"):
        pruned(model, Select(0.5, include=[hidden.id]), Cut())
    found = pruned(model, Centre(), Rotate(), Select(0.5, include=[hidden.id], align=1), Cut())
    assert found.centred.groups == {hidden.id: 3} and hidden.id in found.rotated.groups
    assert [len(g.removed) for g in found.plan.groups] == [WIDTH // 2]
    assert not any(node.op_type == "LayerNormalization" for node in found.model.graph.node)
    assert found.proof.worst < 1e-5 and not found.proof.statistical
    for key in ("centred", "bases"):
        assert max(one["max_rel"] for one in found.plan.proof[key]["outputs"]) < 1e-5


@pytest.mark.parametrize("opset", [17, 18, 23])
@pytest.mark.parametrize("half", [False, True])
def test_what_stands_for_a_layer_norm_does_the_same(opset: int, half: bool) -> None:
    """In parts, or as one operator where the opset has it; half precision is widened for the squares."""
    net = layers(3)
    model = net.model(net.last, 3, opset)  # type: ignore[attr-defined]
    feeds = FEEDS
    if half:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
        for value in [*model.graph.input, *model.graph.output]:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        feeds = {"x": FEEDS["x"].astype(np.float16)}
    found = pruned(model, Centre(), Rotate(), Select(0.3), Cut())
    kinds = {node.op_type for node in found.model.graph.node}
    assert ("RMSNormalization" in kinds) == (opset >= 23) and found.centred.groups
    made = helpers.run(found.proto, feeds)[0]
    assert made.dtype == feeds["x"].dtype and np.isfinite(made).all()
    for key in ("centred", "bases"):
        assert max(one["max_rel"] for one in found.plan.proof[key]["outputs"]) < (1e-2 if half else 1e-5)


def test_a_norm_behind_a_sum_with_a_norm_keeps_its_mean() -> None:
    """Post-norm: what a norm makes is added to what is normed next, and its gain gives it a mean."""
    net = Graph()
    x = net.norm(net.linear("x", WIDTH, WIDTH))
    x = net.norm(net.op("Add", x, net.linear(net.op("Relu", net.linear(x, WIDTH, 16)), 16, WIDTH)))
    model = net.model(net.linear(x, WIDTH, 3), 3)
    found = pruned(model, Centre(), Rotate(), Select(0.5), Cut())
    (why,) = found.centred.stayed.values()
    assert not found.centred.groups and "post-norm" in str(why)


def test_a_function_in_between_is_named() -> None:
    net = Graph()
    model = net.model(net.linear(net.op("Relu", net.linear("x", WIDTH, 16)), 16, 3), 3)
    analysis = analyze(model)
    with pytest.raises(NotLinear, match="Relu") as no:
        find_mixing(analysis, analysis.groups[0])
    assert no.value.reason.node == "node2"


def test_weights_that_others_read_stay() -> None:
    """One weight in two places would have to be in two bases; a bias that exporters share is copied."""
    net = Graph()
    shared = net.weight(WIDTH, WIDTH)
    bias = net.weight(WIDTH)
    first = net.op("Add", net.op("MatMul", "x", shared), bias)
    second = net.op("Add", net.op("MatMul", net.op("Relu", first), net.weight(WIDTH, WIDTH)), bias)
    third = net.op("MatMul", net.op("MatMul", net.op("Relu", second), shared), net.weight(WIDTH, WIDTH))
    model = net.model(net.linear(net.op("MatMul", third, net.weight(WIDTH, WIDTH)), WIDTH, 3), 3)
    found = pruned(model, Rotate(), Select(0.3), Cut())
    assert any("is read by" in str(why) for why in found.rotated.stayed.values())
    assert len(found.rotated.groups) == 2


def test_a_plan_changes_bases_again(tmp_path: Path) -> None:
    """With the matrices that lie beside it; other matrices, or none, are refused."""
    net = layers(1)
    onnx.save(net.model(net.last, 3), tmp_path / "m.onnx")  # type: ignore[attr-defined]
    inputs = {"x": np.random.default_rng(1).standard_normal((8, 6, WIDTH)).astype(np.float32)}
    options: dict[str, Any] = {"ratio": 0.4, "calibration": inputs, "compensate": "none"}
    made = graphprune.prune(tmp_path / "m.onnx", tmp_path / "a.onnx", **options)
    assert hashlib.sha256((tmp_path / "a.plan.npz").read_bytes()).hexdigest() == made.plan.bases["sha256"]
    again = graphprune.apply(tmp_path / "a.plan.json", tmp_path / "m.onnx", tmp_path / "b.onnx")
    assert again.proof is not None
    assert helpers.bare(tmp_path / "a.onnx") == helpers.bare(tmp_path / "b.onnx")
    assert (tmp_path / "a.plan.npz").read_bytes() == (tmp_path / "b.plan.npz").read_bytes()
    np.savez(tmp_path / "a.plan.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="other matrices"):
        graphprune.apply(tmp_path / "a.plan.json", tmp_path / "m.onnx")
    (tmp_path / "a.plan.npz").unlink()
    with pytest.raises(InputError, match="keep the two together"):
        graphprune.apply(tmp_path / "a.plan.json", tmp_path / "m.onnx")


def test_only_what_was_changed_is_changed_again(tmp_path: Path) -> None:
    """Groups that were left out keep their norms and their weights, bit for bit."""
    net = layers(1)
    onnx.save(net.model(net.last, 3), tmp_path / "m.onnx")  # type: ignore[attr-defined]
    hidden = next(g.id for g in analyze(tmp_path / "m.onnx").groups if g.statistical)
    made = graphprune.prune(tmp_path / "m.onnx", tmp_path / "a.onnx", ratio=0.4, rotate=True, exclude=[hidden])
    assert "centred" not in made.plan.bases and hidden not in made.plan.bases["rotated"]
    assert sum(node.op_type == "LayerNormalization" for node in made.model.graph.node) == 3
    graphprune.apply(tmp_path / "a.plan.json", tmp_path / "m.onnx", tmp_path / "b.onnx")
    assert helpers.bare(tmp_path / "a.onnx") == helpers.bare(tmp_path / "b.onnx")


def test_a_norm_whose_mean_is_read_stays() -> None:
    net = layers()
    model = net.model(net.last, 3)  # type: ignore[attr-defined]
    norm = next(node for node in model.graph.node if node.op_type == "LayerNormalization")
    norm.output.extend(["mean", "deviation"])
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["b", "s", 1]))
    found = pruned(model, Centre(), Rotate(), Select(0.3), Cut())
    assert not found.centred.groups and "used too" in str(*found.centred.stayed.values())


def test_gains_go_together_or_not_at_all() -> None:
    """One of two norms is read by a function of each channel: then the other keeps its gain too."""
    net = Graph()
    x = net.linear("x", WIDTH, WIDTH)
    first = net.op("RMSNormalization", x, net.constant(net.rng.uniform(0.3, 2, WIDTH).astype(np.float32)))
    x = net.op("Add", x, net.linear(first, WIDTH, WIDTH))
    x = net.op("RMSNormalization", x, net.constant(net.rng.uniform(0.3, 2, WIDTH).astype(np.float32)))
    x = net.op("RMSNormalization", x, net.constant(np.ones(WIDTH, np.float32)))
    found = pruned(net.model(net.linear(x, WIDTH, 3), 3, 23), Rotate(), Select(0.5, align=1), Cut())
    (why,) = found.rotated.stayed.values()
    assert not found.rotated.groups and "post-norm" in str(why) and found.proof.worst < 1e-5


def test_no_basis_without_inputs_unless_asked_for() -> None:
    net = layers(2)
    model = net.model(net.last, 3)  # type: ignore[attr-defined]
    plain, asked = (graphprune.prune(model, ratio=0.4, rotate=rotate) for rotate in (None, True))
    assert plain.rotated is None and not plain.plan.bases
    assert asked.rotated is not None and asked.after.parameters < plain.after.parameters


@pytest.mark.parametrize("size", [1, 5, 16])
def test_directions_are_in_order_and_undo_each_other(size: int) -> None:
    rng = np.random.default_rng(size)
    left, right = (m @ m.transpose(0, 2, 1) for m in rng.standard_normal((2, 3, size, 2 * size + 8)))
    forth, back = balanced(left, right)
    assert np.allclose(forth.transpose(0, 2, 1) @ back, np.eye(size), atol=1e-8)
    seen = forth.transpose(0, 2, 1) @ left @ forth
    sizes = np.diagonal(seen, axis1=1, axis2=2)
    assert np.allclose(seen, sizes[:, :, None] * np.eye(size), atol=1e-4 * sizes.max())
    assert (np.diff(sizes) <= 1e-9).all() and np.allclose(sizes.sum(1), np.trace(left, axis1=1, axis2=2))
    steep = left * np.outer(10.0 ** -np.arange(size), 10.0 ** -np.arange(size))
    forth, back = balanced(steep, right)
    assert np.linalg.cond(forth).max() <= CONDITION and np.allclose(forth.transpose(0, 2, 1) @ back, np.eye(size))
    turned, _ = principal(left)
    assert (np.diff(np.diagonal(turned.transpose(0, 2, 1) @ left @ turned, axis1=1, axis2=2)) <= 1e-9).all()


EXPORTS = {
    # norms that lose their means; whether the hidden size is turned; groups of heads that are
    "gpt2-dynamo18": (5, True, 4),
    "vit-ts16": (5, True, 4),
    "deit-dynamo18": (5, True, 4),
    "swin-ts14": (5, True, 8),
    "opt-dynamo18": (5, True, 4),
    "phi-dynamo18": (3, True, 2),
    "llama-dynamo23": (0, True, 2),
    "gemma-dynamo18": (0, True, 2),
    "t5-decoder-ts14": (0, False, 12),
    "bert-ts11": (0, False, 4),
    "deberta-dynamo18": (0, False, 4),
    "mobilenet-v2-ts10": (0, False, 0),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_the_same_in_other_bases(name: str) -> None:
    """Each proof runs the model in other bases beside the original; gains and shifts of norms are not 1 and 0."""
    norms, hidden, heads = EXPORTS[name]
    found = graphprune.run_recipe(Recipe((Centre(), Rotate(), Select(0.3), Cut()), Job()), models.export(name))
    assert found.centred is not None and found.rotated is not None and found.proof is not None
    assert sum(found.centred.groups.values()) == norms
    kinds = [g.kind for g in found.analysis.groups if g.id in found.rotated.groups]
    assert kinds.count("head_dim") == heads
    assert (kinds.count("hidden") + kinds.count("channel") > 0) == (hidden or name.startswith("mobilenet"))
    assert found.after.parameters < found.before.parameters
