"""Blocks: what is found is what the architecture is made of, and what is taken out leaves what it should."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import models
from graphprune.analysis import Analysis, analyze, blocks
from graphprune.analysis.blocks import Block, Blocks
from graphprune.analysis.dataflow import DataFlow
from graphprune.errors import InputError, ProofError
from graphprune.proof import bypass_proof
from graphprune.rewrite import bypass
from graphprune.rewrite.plan import BlockPlan
from graphprune.run import sizing
from models.small import Net, attention, chain, residual
from tests import helpers, rotation


@cache
def analysed(name: str) -> Analysis:
    return analyze(models.export(name) if name in models.exported() else models.packaged(name))


@cache
def found(name: str) -> Blocks:
    return blocks.find_blocks(analysed(name))


def counts(name: str) -> dict[tuple[str, int], int]:
    """How many blocks there are of each kind and number of parts."""
    return dict(Counter((b.kind, len(b.parts)) for b in found(name).blocks))


def transformer(layers: int, sublayers: int = 2, post: bool = False) -> dict[tuple[str, int], int]:
    """What a transformer is made of: a branch a sublayer, a layer of all of them, and the whole stack.

    With post-norm, a sublayer with its norm is a layer of its own beside the branch.
    """
    parts = {("branch", 0): layers * sublayers, ("layer", sublayers): layers, ("layer", layers * sublayers): 1}
    return parts | ({("layer", 0): layers * sublayers} if post else {})


KNOWN = {
    "vit-b16-ts": transformer(12),
    "vit-b16-dynamo": transformer(12),
    "vit-dynamo23": transformer(2),
    "bert-base-ts": transformer(12, post=True),
    "bert-base-dynamo": transformer(12, post=True),
    "bert-ts11": transformer(2, post=True),
    "bert-dynamo23": transformer(2, post=True),
    "gpt2-small-dynamo": transformer(12),
    "gpt2-dynamo23": transformer(2),
    "llama-gqa-dynamo": transformer(4),
    "llama-dynamo23": transformer(2),
    "gemma-dynamo18": transformer(2),
    "opt-dynamo18": transformer(2),
    "bloom-dynamo18": transformer(2),
    "deit-ts13": transformer(2),
    "mixer-ts13": transformer(2),
    "mixer-dynamo18": transformer(2),
    "t5-encoder-ts14": transformer(2, post=True),  # a Cast behind each sum plays the part of the norm
    # two stages of two layers
    "swin-ts14": {("branch", 0): 8, ("layer", 2): 4, ("layer", 4): 2},
    # an encoder of two layers and a decoder of two with cross-attention
    "t5-decoder-ts14": transformer(2, 2, True) | transformer(2, 3, True) | {("branch", 0): 10, ("layer", 0): 10},
    "bart-dynamo18": transformer(2, 2, True) | transformer(2, 3, True) | {("branch", 0): 10, ("layer", 0): 10},
    # attention and feed-forward side by side, and both of them together
    "phi-dynamo18": {("branch", 0): 6, ("layer", 2): 1},
    "falcon-dynamo18": {("branch", 0): 6, ("layer", 2): 1},
    # stages of 2, 3, 5 and 2 blocks behind the one that changes the width, each with its rectifier and without
    "resnet50-ts": {("branch", 0): 12, ("layer", 0): 12, ("layer", 2): 2, ("layer", 3): 1, ("layer", 5): 1},
    "resnet50-dynamo": {("branch", 0): 12, ("layer", 0): 12, ("layer", 2): 2, ("layer", 3): 1, ("layer", 5): 1},
    # depths 1, 1, 2, 1; the norm before the first downsampling ends a layer that starts with the stem's
    "convnext-ts14": {("branch", 0): 5, ("layer", 0): 1, ("layer", 2): 1},
    "convnext-dynamo18": {("branch", 0): 5, ("layer", 0): 1, ("layer", 2): 1},
    # six bottlenecks in cross-stage blocks with a skip; convolutions and cross-stage blocks of equal width
    "yolo-ts12": {("branch", 0): 6, ("layer", 0): 8, ("layer", 2): 1, ("layer", 3): 1},
    "yolo-dynamo18": {("branch", 0): 6, ("layer", 0): 8, ("layer", 2): 1, ("layer", 3): 1},
    # one recurrent layer whose input is as wide as its state
    "lstm-tagger-ts9": {("layer", 0): 1},
    "squeezenet-ts9": {},
}
TWICE = ("vit-b16-ts", "bert-base-ts", "resnet50-dynamo", "gpt2-small-dynamo")
"""Of full size, and known by another exporter's or a smaller one."""


@pytest.mark.parametrize("name", [n for n in KNOWN if rotation.ALL or n not in TWICE])
def test_what_is_found_is_what_there_is(name: str) -> None:
    assert counts(name) == KNOWN[name]


@pytest.mark.parametrize("name", ["vit-ts16", "bert-ts11"])
def test_layers_are_those_of_the_module(name: str) -> None:
    """The TorchScript exporter names tensors by modules: every branch lies in the layer that it is of, and is whole."""
    analysis = analysed(name)
    for number in range(2):
        inside = {
            i for i, node in enumerate(analysis.model.nodes)
            if f"/layers.{number}/" in node.name or f"/layer.{number}/" in node.name
        }  # fmt: skip
        (layer,) = [b for b in found(name).blocks if len(b.parts) == 2 and set(b.nodes) & inside]
        data = {
            i for i in inside if not all(o in analysis.witness.first.values for o in analysis.model.nodes[i].output)
        }
        weights = {i for i in data if any(n in analysis.model.sources for n in analysis.model.nodes[i].input)}
        assert weights - set(layer.nodes) <= {i for i in inside if analysis.model.nodes[i].op_type == "Constant"}
        assert layer.parameters == max(b.parameters for b in found(name).blocks if len(b.parts) == 2)


def test_what_changes_the_width_stays_and_says_why() -> None:
    reasons = [f.text for f in found("resnet50-ts").fixed]
    assert len(reasons) == 4 and all("a projection would be needed" in r for r in reasons)
    assert "of 5x64x56x56 to 5x256x56x56" in reasons[0]


def test_what_is_used_elsewhere_is_not_offered() -> None:
    net = Net()
    x = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8)
    inner = net.conv(net.op("Relu", x), 8, 8)
    y = net.op("Add", x, inner)
    model = net.model(net.conv(y, 8, 4), net.op("Neg", inner))
    assert not [b for b in blocks.find_blocks(analyze(model)).blocks if b.kind == "branch"]
    assert "as well, which is inside" in blocks.find_blocks(analyze(model)).fixed[0].text


def test_side_inputs_are_no_hindrance() -> None:
    """A mask, and a table of rotations, reach into every layer."""
    for name in ("bert-ts11", "llama-dynamo18"):
        flow = DataFlow(analysed(name))
        for layer in (b for b in found(name).blocks if len(b.parts) == 2):
            read = [t for t in flow.frontier(dict.fromkeys(layer.nodes)) if not flow.size(t) and t != layer.by]
            assert read, "something besides what the layer starts from"
            assert not any(flow.leads(layer.by, t) for t in read), "and none of it is made of that"


def test_blocks_that_share_weights_keep_them_for_the_others() -> None:
    layers = [b for b in found("albert-ts14").blocks if len(b.parts) == 2]
    (whole,) = [b for b in found("albert-ts14").blocks if len(b.parts) == 4]
    assert len(layers) == 2 and whole.parameters > sum(b.parameters for b in layers)
    analysis = analysed("albert-ts14")
    one = taken(analysis, layers[:1]).graph.initializer
    names = {t.name for t in analysis.model.graph.initializer if len(t.dims) == 2}
    assert names <= {t.name for t in one}


def test_depth_parts_and_likeness() -> None:
    every = found("vit-ts16")
    (stage,) = [b for b in every.blocks if len(b.parts) == 4]
    layers = [b for b in every.blocks if len(b.parts) == 2]
    branches = [b for b in every.blocks if b.kind == "branch"]
    assert stage.depth == 0 and {b.depth for b in layers} == {1} and {b.depth for b in branches} == {2}
    assert set(stage.parts) == {b.id for b in branches} and set(layers[0].like) == {b.id for b in layers}
    assert sum(b.macs for b in branches) == stage.macs
    assert every.holding(branches[0].nodes[0])[0] == branches[0] and every.get(stage.id) is stage


def test_ids_are_unique_everywhere() -> None:
    for name in rotation.some(models.zoo(), 3):
        ids = [b.id for b in found(name).blocks]
        assert len(ids) == len(set(ids)), name
        assert all(part in ids for b in found(name).blocks for part in b.parts), name


# --- removal ---------------------------------------------------------------------------------------------------------


def sizes(analysis: Analysis) -> list[dict[str, tuple[int, ...]]]:
    return [analysis.witness.first.inputs, analysis.witness.second.inputs, *sizing.alternatives(analysis.model)]


def taken(analysis: Analysis, chosen: list[Block], states: dict[str, str] | None = None) -> ModelProto:
    """Blocks taken out and proven."""
    entries = bypass.resolve(analysis, chosen)
    done = bypass.remove(analysis, entries, states)
    assert bypass_proof.prove(analysis, done.model, entries, sizes(analysis)).worst < 1e-4
    return done.model.proto


@pytest.mark.parametrize("name", rotation.some(models.zoo(), 7))
def test_each_alone_pairs_and_half_of_all(name: str) -> None:
    analysis, every = analysed(name), found(name).blocks
    rng = random.Random(name)
    sets = [[b] for b in every] + [rng.sample(every, 2) for _ in range(4 if len(every) > 1 else 0)]
    sets += [rng.sample(every, len(every) // 2) for _ in range(2 if len(every) > 1 else 0)]
    original = {t.name: tuple(t.dims) for t in analysis.model.graph.initializer}
    for chosen in sets:
        try:
            proto = taken(analysis, chosen)
        except InputError as error:
            assert "overlap" in str(error) or "both operands" in str(error)
            continue
        if analysis.model.opsets[""] < 28:
            helpers.check(proto)
        kept = {t.name: tuple(t.dims) for t in proto.graph.initializer}
        assert all(kept[n] == original[n] for n in kept if n in original) and len(proto.graph.node) < len(
            analysis.model.nodes
        )
        assert [i.name for i in proto.graph.input] == [i.name for i in analysis.model.source.graph.input]


@pytest.mark.parametrize("name", rotation.some(["ppocr-v4-rec", "ppocr-v4-det", "ppocr-v4-cls", "ppocr-v5-rec"]))
def test_real_models(name: str) -> None:
    analysis, every = analysed(name), found(name).blocks
    assert len(every) > 10
    rng = random.Random(name)
    apart: list[Block] = []
    for block in rng.sample(every, len(every)):
        if not any(set(block.nodes) & set(other.nodes) for other in apart):
            apart.append(block)
    for chosen in [*([b] for b in rng.sample(every, 8)), apart]:
        taken(analysis, chosen)


def test_both_operands_of_a_sum() -> None:
    """In a parallel block the sum of attention and feed-forward goes out of the sum with the skip."""
    analysis = analysed("phi-dynamo18")
    pair = [b for b in found("phi-dynamo18").blocks if b.depth == 2][:2]
    (entry,) = bypass.resolve(analysis, pair)
    whole = next(b for b in found("phi-dynamo18").blocks if b.depth == 1)
    assert (entry.output, entry.by) == (whole.output, whole.by) and " + " in entry.id
    assert len(taken(analysis, pair).graph.node) == len(taken(analysis, [whole]).graph.node)
    net = Net()
    x = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8)
    y = net.op("Mul", net.op("Add", net.conv(x, 8, 8), net.conv(x, 8, 8)), net.constant(np.float32(2)))
    analysis = analyze(net.model(net.conv(y, 8, 4)))
    with pytest.raises(InputError, match="nothing would be left of it"):
        bypass.resolve(analysis, [b for b in blocks.find_blocks(analysis).blocks if b.kind == "branch"])


def test_overlapping_layers_are_refused() -> None:
    analysis = analysed("bert-ts11")
    layers = [b for b in found("bert-ts11").blocks if b.kind == "layer" and not b.parts]
    whole = [b for b in found("bert-ts11").blocks if len(b.parts) == 2]
    assert len(bypass.resolve(analysis, [layers[0], whole[0]])) == 1, "what lies within needs no entry of its own"
    shifted = Block("x", "layer", layers[2].output, layers[0].output, "", layers[1].nodes + layers[2].nodes, 0, 0)
    with pytest.raises(InputError, match="overlap"):
        bypass.resolve(analysis, [whole[0], shifted])


def test_sizes_that_were_measured_inside_are_measured_elsewhere() -> None:
    """T5's first layer measures keys to make the position bias that all layers share."""
    analysis = analysed("t5-encoder-ts14")
    first = min((b for b in found("t5-encoder-ts14").blocks if b.kind == "branch"), key=lambda b: b.nodes)
    proto = taken(analysis, [first])
    assert "/model/encoder/block.0/layer.0/SelfAttention/k/MatMul_output_0" not in {
        o for n in proto.graph.node for o in n.output
    }
    bias = "/model/encoder/block.0/layer.0/SelfAttention/Where_1_output_0"
    assert bias in {o for n in proto.graph.node for o in n.output}


def test_an_exit_that_is_an_output_of_the_graph() -> None:
    net = Net()
    x = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8)
    y = net.op("Add", net.conv(net.op("Relu", x), 8, 8), x)
    model = net.model(y, net.op("Neg", y))
    analysis = analyze(model)
    (block,) = blocks.find_blocks(analysis).blocks
    proto = taken(analysis, [block])
    feeds = helpers.random_feeds(model, {"batch": 2})
    first, second = helpers.run(proto, feeds)
    assert np.array_equal(first, -second)
    assert [o.name for o in proto.graph.output] == [o.name for o in model.graph.output]


def test_a_graph_input_can_stand_for_a_layer() -> None:
    net = Net()
    x = net.input("x", ["batch", 8, 8, 8])
    model = net.model(net.op("Relu", net.op("Add", net.conv(x, 8, 8), x)))
    analysis = analyze(model)
    for block in blocks.find_blocks(analysis).blocks:
        taken(analysis, [block])
    assert blocks.find_blocks(analysis).blocks


def test_states_go_only_where_they_may() -> None:
    name = "llama-cache-dynamo18"
    analysis = analysed(name)
    assert not [b for b in found(name).blocks if b.interface or len(b.parts)]
    reasons = [f.text for f in found(name).fixed]
    assert any("the graph gives out 'cat_8' as well" in r for r in reasons), reasons
    every = blocks.find_blocks(analysis, allow_io=True)
    with_state = [b for b in every.blocks if b.interface]
    assert {b.interface for b in with_state if b.kind == "branch"} == {
        ("past_key_0", "cat_7", "past_value_0", "cat_8"),
        ("past_key_1", "cat_11", "past_value_1", "cat_12"),
    }
    entries = bypass.resolve(analysis, [with_state[0]])
    done = bypass.remove(analysis, entries, blocks.carried(analysis))
    assert all(e["to"] == [] for e in done.interface)
    assert {e["name"] for e in done.interface} == {"past_key_0", "past_value_0", "cat_7", "cat_8"}
    names = [i.name for i in done.model.inputs]
    assert "past_key_0" not in names and "past_key_1" in names and "cat_11" in done.model.output_names
    assert bypass_proof.prove(analysis, done.model, entries, sizes(analysis)).worst < 1e-4


def test_bodies_of_control_flow_are_left_alone() -> None:
    net = Net()
    x = net.conv(net.input("x", [2, 3, 8, 8]), 3, 8)
    weight = net.weight(8, 8, 3, 3)
    conv = helper.make_node("Conv", [x, weight], ["c"], pads=[1] * 4)
    body = helper.make_graph(
        [conv, helper.make_node("Add", ["c", x], ["a"])], "t", [], [helper.make_empty_tensor_value_info("a")]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", [x], ["n"])], "e", [], [helper.make_empty_tensor_value_info("n")]
    )
    flag = net.constant(np.bool_(True))
    y = net.op("If", flag, then_branch=body, else_branch=other)
    analysis = analyze(net.model(net.conv(y, 8, 4), rank=4))
    assert all("a" not in (b.output, b.by) for b in blocks.find_blocks(analysis).blocks)


# --- the proof -------------------------------------------------------------------------------------------------------


def test_the_proof_can_fail() -> None:
    analysis = analyze(residual())
    block = next(b for b in blocks.find_blocks(analysis).blocks if b.kind == "branch")
    entries = bypass.resolve(analysis, [block])
    done = bypass.remove(analysis, entries)
    tensor = next(t for t in done.model.graph.initializer if len(t.dims) == 4)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    with pytest.raises(ProofError, match="with the blocks cut off"):
        bypass_proof.prove(analysis, done.model, entries, sizes(analysis))
    other = [b for b in blocks.find_blocks(analysis).blocks if b.kind == "branch"][-1]
    assert other.output != block.output
    with pytest.raises(ProofError, match="is off by"):
        bypass_proof.prove(
            analysis, bypass.remove(analysis, bypass.resolve(analysis, [other])).model, entries, sizes(analysis)
        )


def test_outputs_of_one_value_are_not_taken_for_a_proof() -> None:
    """Behind a sigmoid that has run out, whatever was done to the blocks before it would pass."""
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8)
    for _ in range(2):
        y = net.op("Add", net.conv(net.op("Relu", y), 8, 8), y)
    model = net.model(net.op("Sigmoid", net.op("Sub", net.conv(y, 8, 4), net.constant(np.float32(1e4)))))
    analysis = analyze(model)
    entries = bypass.resolve(analysis, blocks.find_blocks(analysis).blocks[:1])
    done = bypass.remove(analysis, entries)
    (output,) = bypass_proof.prove(analysis, done.model, entries, sizes(analysis)).outputs
    assert output.compared_at is not None and output.constant is None and output.max_abs == 0
    tensor = next(t for t in done.model.graph.initializer if list(t.dims) == [4, 8, 3, 3])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    with pytest.raises(ProofError, match="is off by"):
        bypass_proof.prove(analysis, done.model, entries, sizes(analysis))


def test_a_branch_times_zero_by_hand() -> None:
    """The same as the proof, in a few lines of onnx."""
    model = residual()
    analysis = analyze(model)
    block = next(b for b in blocks.find_blocks(analysis).blocks if b.kind == "branch")
    done = bypass.remove(analysis, bypass.resolve(analysis, [block])).model.proto
    cut = ModelProto()
    cut.CopyFrom(model)
    at = next(i for i, n in enumerate(cut.graph.node) if block.exit in n.output)
    for node in cut.graph.node:
        for k, name in enumerate(node.input):
            if name == block.exit:
                node.input[k] = "nothing"
    cut.graph.initializer.append(helper.make_tensor("0", TensorProto.FLOAT, [], [0.0]))
    cut.graph.node.insert(at + 1, helper.make_node("Mul", [block.exit, "0"], ["nothing"]))
    feeds = helpers.random_feeds(model, {"batch": 3})
    assert helpers.relative(helpers.run(cut, feeds)[0], helpers.run(done, feeds)[0]) < 1e-6


def test_entries_that_do_not_fit() -> None:
    analysis = analyze(chain())
    with pytest.raises(InputError, match="has no tensor 'y'"):
        bypass.remove(analysis, [BlockPlan("b", "layer", "y", "x", "y")])
    first = analysis.model.nodes[0].output[0]
    with pytest.raises(InputError, match="cannot stand for"):
        bypass.remove(analysis, [BlockPlan("b", "layer", first, "x", first)])


def test_nothing_to_find() -> None:
    assert blocks.find_blocks(analyze(chain())) == Blocks([], [])


def test_a_layer_without_a_skip() -> None:
    """Attention from a width to the same width, with nothing beside it: all of it, and none of its projections."""
    analysis = analyze(attention())
    (block,) = blocks.find_blocks(analysis).blocks
    assert (block.kind, block.by) == ("layer", "x") and block.macs == sum(DataFlow(analysis).macs)
    taken(analysis, [block])
