from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import models
from graphprune import Analysis, Group, analyze
from models.small import Net, attention, chain, residual


def sizes(model: ModelProto, exact: bool = True) -> list[int]:
    return sorted(g.size for g in analyze(model).groups if not (exact and g.statistical))


def kinds(analysis: Analysis) -> Counter[tuple[str, int]]:
    return Counter((g.kind, g.size) for g in analysis.groups if not g.statistical)


def weights(analysis: Analysis, group: Group) -> set[tuple[str, int]]:
    return {(analysis.root(use), axis) for use, axis in analysis.weights(group)}


def test_a_chain_has_one_group_and_its_interface_is_pinned() -> None:
    analysis = analyze(chain())
    (group,) = analysis.groups
    assert (group.kind, group.size, group.statistical) == ("channel", 8, False)
    first, second = (n for n in analysis.model.nodes if n.op_type == "Conv")
    assert weights(analysis, group) == {(first.input[1], 0), (first.input[2], 0), (second.input[1], 1)}
    reasons = {g.size: g.reasons[0].text for g in analysis.fixed if not g.reasons[0].node}
    assert set(reasons) == {3, 4} and "input 'x'" in reasons[3] and "output" in reasons[4]


def test_parameters_and_macs_that_a_class_is_worth() -> None:
    (group,) = analyze(chain()).groups
    assert group.parameters.tolist() == [3 * 9 + 1 + 4 * 9] * 8
    batch = analyze(chain()).witness.inputs["x"][0]
    assert group.macs.tolist() == [batch * 64 * 9 * (3 + 4)] * 8


def test_a_residual_stream_is_one_group() -> None:
    assert sizes(residual()) == [12, 12, 16]


def test_equal_constants_that_an_exporter_merged_tie_nothing() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 8, 8])
    zero = net.constant(np.zeros(6, np.float32))
    y = net.op("Conv", x, net.weight(6, 3, 1, 1), zero)
    z = net.op("Conv", net.op("Relu", y), net.weight(6, 6, 1, 1), net.op("Identity", zero))
    assert sizes(net.model(net.conv(net.op("Relu", z), 6, 2))) == [6, 6]


def test_concatenated_groups_stay_apart() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    y = net.op("Concat", net.conv(x, 3, 5), net.conv(x, 3, 7), axis=1)
    assert sizes(net.model(net.conv(net.batch_norm(y, 12), 12, 2))) == [5, 7]


def test_grouped_convolutions_offer_whole_groups_and_positions_in_every_group() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    y = net.conv(net.conv(x, 3, 12), 12, 20, group=4)
    found = sizes(net.model(net.conv(y, 20, 2)))
    assert found == [3, 4, 5]  # positions in, groups, positions out


def test_depthwise_convolutions_pass_channels_through() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    y = net.conv(net.conv(x, 3, 6), 6, 12, group=6)  # with a multiplier of 2
    found = sizes(net.model(net.conv(y, 12, 2)))
    assert found == [2, 6]


def test_a_channel_shuffle_leaves_what_suits_both_sides() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    y = net.conv(net.conv(x, 3, 16), 16, 16, group=2)
    y = net.op("Reshape", y, net.ints(0, 2, 8, 4, 4))
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), net.ints(0, 16, 4, 4))
    y = net.conv(y, 16, 16, group=2)
    found = sizes(net.model(net.conv(y, 16, 2)))
    # whole groups of either convolution; 8 positions of the first one's input and of the second one's output; and of
    # the 8 positions between, 4 pairs: the shuffle deals them out to both groups of the second
    assert found == [2, 2, 4, 8, 8]


def test_flatten_makes_a_channel_many_features() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    y = net.op("Flatten", net.conv(x, 3, 6))
    analysis = analyze(net.model(net.op("MatMul", y, net.weight(96, 5))))
    (group,) = analysis.groups
    assert group.size == 6
    assert group.parameters.tolist() == [3 * 9 + 1 + 16 * 5] * 6


def test_heads_and_head_dims_of_separate_projections() -> None:
    analysis = analyze(attention(heads=4, size=8))
    # query and key share their head dims; values have their own
    assert kinds(analysis) == {("head", 4): 1, ("head_dim", 8): 2}


def test_value_dims_of_a_fused_projection_are_their_own_classes() -> None:
    net = Net()
    x = net.input("x", ["batch", "length", 6])
    q, k, v = net.op("Split", net.linear(x, 6, 24), outputs=3, axis=2)
    q, k, v = (net.op("Reshape", t, net.ints(0, 0, 2, 4)) for t in (q, k, v))
    q, k, v = (net.op("Transpose", t, perm=p) for t, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    y = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=-1), v)
    y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 8))
    assert kinds(analyze(net.model(net.linear(y, 8, 6)))) == {("head", 2): 1, ("head_dim", 4): 2}


def test_padding_stays() -> None:
    net = Net()
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 6)
    y = net.op("Pad", y, net.ints(0, 1, 0, 0, 0, 2, 0, 0))
    analysis = analyze(net.model(net.conv(y, 9, 2)))
    assert [g.size for g in analysis.groups] == [6]
    assert any("makes some of its elements" in r.text for g in analysis.fixed for r in g.reasons)


def test_what_a_branch_passes_on_is_coupled() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["outer"], ["y"])], "then", [], [helper.make_empty_tensor_value_info("y")]
    )
    net = Net()
    y = net.linear(net.input("x", [2, 3]), 3, 6)
    net.nodes.append(helper.make_node("Relu", [y], ["outer"]))
    net.nodes.append(
        helper.make_node(
            "If", [net.constant(np.array(True))], ["z"], name="branch", then_branch=inner, else_branch=inner
        )
    )
    analysis = analyze(net.model(net.op("MatMul", "z", net.weight(6, 2))))
    assert [g.size for g in analysis.groups] == [6] and not analysis.notes


def test_single_elements_that_are_picked_cannot_go() -> None:
    net = Net()
    y = net.linear(net.input("x", ["batch", 4]), 4, 6)
    first = net.op("Slice", y, net.ints(0), net.ints(1), net.ints(1))
    rest = net.op("Slice", y, net.ints(1), net.ints(6), net.ints(1))
    analysis = analyze(net.model(net.op("MatMul", net.op("Mul", first, rest), net.weight(5, 2))))
    (group,) = analysis.groups
    assert group.pinned.tolist() == [True, False, False, False, False, False]


def test_a_tied_weight_belongs_to_both_of_its_readers() -> None:
    net = Net()
    table = net.weight(20, 6)
    ids = net.input("ids", ["batch", "length"], kind=7)
    y = net.op("Relu", net.linear(net.op("Gather", table, ids), 6, 10))
    y = net.linear(y, 10, 6, bias=False)
    analysis = analyze(net.model(net.op("MatMul", y, net.op("Transpose", table))))
    assert kinds(analysis) == {("feature", 10): 1, ("feature", 6): 2}
    first, last = (weights(analysis, g) for g in analysis.groups if g.size == 6)
    assert (table, 1) in first and (table, 1) in last


def test_the_chain_leads_from_a_weight_to_the_reason() -> None:
    analysis = analyze(chain())
    group = next(g for g in analysis.fixed if "output" in g.reasons[0].text)
    assert analysis.chain(group, group.reasons[0]) == [analysis.model.nodes[-1].name]


@pytest.mark.parametrize("exporter", ["ts", "dynamo"])
def test_resnet50(exporter: str) -> None:
    analysis = analyze(models.export(f"resnet50-{exporter}"))
    assert len(analysis.groups) == 37
    assert not any(g.statistical or g.pinned.any() for g in analysis.groups)


def test_light_models_whose_weights_are_fills() -> None:
    assert len(analyze(models.packaged("resnet50-light")).groups) == 37
    assert len(analyze(models.packaged("densenet121-light")).groups) >= 120
    # every unit that keeps its resolution and whose width divides by the number of groups twice
    assert len(analyze(models.packaged("shufflenet-light")).groups) >= 13


def test_gpt2_has_heads_query_key_dims_and_value_dims() -> None:
    analysis = analyze(models.export("gpt2-small-dynamo"))
    assert kinds(analysis) == {("head", 12): 12, ("head_dim", 64): 24, ("feature", 3072): 12}
    fused = [g for g in analysis.groups if g.kind == "head_dim" and not g.statistical]
    for query_key, value in zip(fused[::2], fused[1::2], strict=True):
        (a,), (b,) = ({n for n, axis in weights(analysis, g) if axis == 1} for g in (query_key, value))
        assert a == b  # one fused projection holds both, as separate classes
    assert [g.kind for g in analysis.groups if g.statistical] == ["hidden"]


def test_llama_has_kv_heads_query_heads_within_and_rotary_pairs() -> None:
    analysis = analyze(models.export("llama-gqa-dynamo"))
    # the rotary tables are shared by all layers, and so are the pairs
    expected = {("head", 2): 4, ("head", 4): 4, ("head_dim", 32): 1, ("head_dim", 64): 4, ("feature", 1376): 4}
    expected[("hidden", 512)] = 1
    assert kinds(analysis) == expected
    pairs = next(g for g in analysis.groups if g.size == 32)
    query = next(use for use, _ in analysis.weights(pairs) if "val" in analysis.root(use))
    labels = pairs.labels[analysis.web.axis_of[query] + 1]
    assert (labels[:32] == labels[32:64]).all() and len(set(labels[:32])) == 32


def test_ids_are_unique_and_stable() -> None:
    first, second = (analyze(models.export("llama-gqa-dynamo")) for _ in range(2))
    ids = [g.id for g in [*first.groups, *first.fixed]]
    assert len(set(ids)) == len(ids)
    assert ids == [g.id for g in [*second.groups, *second.fixed]]


def test_constant_nodes_are_weights() -> None:
    net = Net()
    x = net.input("x", ["batch", 3, 4, 4])
    weight = net.op("Constant", value=numpy_helper.from_array(np.ones((8, 3, 1, 1), np.float32)))
    (group,) = (analysis := analyze(net.model(net.conv(net.op("Conv", x, weight), 8, 2)))).groups
    assert group.size == 8 and (weight, 0) in weights(analysis, group)


@pytest.mark.parametrize("op", ["Reshape", "Expand", "Tile"])
def test_what_an_operand_computed_from_the_data_sizes_stays(op: str) -> None:
    net = Net()
    x = net.input("x", [2, 4])
    target = net.input("target", [2], kind=7)
    sizes = net.op("Mul", target, net.ints(0, 0))
    if op != "Reshape":  # there a zero copies the size
        sizes = net.op("Add", sizes, net.ints(1, 1))
    y = net.op(op, net.linear(x, 4, 6), sizes)
    analysis = analyze(
        net.model(net.op("ReduceSum", net.op("Mul", y, net.weight(1, 6)))), {"x": (2, 4), "target": (2,)}
    )
    assert not analysis.groups
    assert any("computed from the data" in r.text for g in analysis.fixed for r in g.reasons)
