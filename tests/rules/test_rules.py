"""The test of a rule is its line, at shapes that tell every dim apart."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphprune
from graphprune import rules
from graphprune.errors import FaultError
from graphprune.relation import Relation, pattern
from graphprune.relation.errors import NotationError
from graphprune.relation.zero import Zero
from graphprune.rules import NodeView, rule
from graphprune.rules.computing import elementwise
from graphprune.rules.table import TABLE
from graphprune.rules.table import line as one_line
from graphprune.rules.windows import convolution
from models.small import Net

Shapes = list[tuple[int, ...] | None]


def line(
    op: str, inputs: Shapes, outputs: Shapes, values: dict[int, Any] | None = None, opset: int = 17, **attributes: Any
) -> str:
    held = [None if values is None or i not in values else np.array(values[i]) for i in range(len(inputs))]
    return pattern(rule(NodeView(op, "", opset, attributes, tuple(inputs), tuple(outputs), tuple(held))))


CASES = [
    ("Add", [(2, 3, 5), (5,)], [(2, 3, 5)], {}, "a b c, c -> a b c"),
    ("Mul", [(2, 3, 5), (3, 1)], [(2, 3, 5)], {}, "a b c, b 1 -> a b c"),
    ("BatchNormalization", [(2, 3, 5), (3,), (3,), (3,), (3,)], [(2, 3, 5)], {}, "n c s0, c, c, c, c -> n c s0"),
    (
        "BatchNormalization",
        [(2, 3, 5), (3,), (3,), (3,), (3,)],
        [(2, 3, 5), (3,), (3,)],
        {"training_mode": 1},
        "!n c !s0, c, c, c, c -> !n c !s0, c, c",
    ),
    ("Conv", [(2, 6, 9, 9), (8, 3, 5, 5), (8,)], [(2, 8, 7, 7)], {"group": 2},
     "n (g i) !x0 !x1, (g o) i !k0 !k1, (g o) -> n (g o) !y0 !y1"),
    ("Conv", [(2, 6, 9), (6, 1, 5), None], [(2, 6, 7)], {"group": 6}, "n g !x0, g 1 !k0, _ -> n g !y0"),
    ("ConvTranspose", [(2, 6, 9), (6, 4, 5), (8,)], [(2, 8, 7)], {"group": 2},
     "n (g i) !x0, (g i) o !k0, (g o) -> n (g o) !y0"),
    ("DepthToSpace", [(2, 12, 3, 5)], [(2, 3, 6, 10)], {"blocksize": 2}, "n (!p !q c) h w -> n c (h !p) (w !q)"),
    ("DepthToSpace", [(2, 12, 3, 5)], [(2, 3, 6, 10)], {"blocksize": 2, "mode": b"CRD"},
     "n (c !p !q) h w -> n c (h !p) (w !q)"),
    ("SpaceToDepth", [(2, 3, 6, 10)], [(2, 12, 3, 5)], {"blocksize": 2}, "n c (h !p) (w !q) -> n (!p !q c) h w"),
    ("Einsum", [(2, 3, 5, 7), (2, 11, 5, 7)], [(2, 5, 3, 11)], {"equation": b"bqhd,bkhd->bhqk"},
     "b q h d, b k h d -> b h q k"),
    ("Einsum", [(2, 3), (3, 5)], [(2, 5)], {"equation": b"ij,jk"}, "i j, j k -> i k"),
    ("Flatten", [(2, 3, 5, 7)], [(2, 105)], {}, "a b c d -> a (b c d)"),
    ("GRU", [(7, 2, 3), (2, 15, 3), (2, 15, 5), (2, 30)], [(7, 2, 2, 5), (2, 2, 5)], {"hidden_size": 5},
     "!s b i, !d (!3 h) i, !d (!3 h) h, !d (!6 h) -> !s !d b h, !d b h"),
    ("Gemm", [(2, 3), (5, 3), (5,)], [(2, 5)], {"transB": 1}, "m k, o k, o -> m o"),
    ("Gemm", [(3, 2), (3, 5), (1, 5)], [(2, 5)], {"transA": 1}, "k m, k o, 1 o -> m o"),
    ("GlobalAveragePool", [(2, 3, 5, 5)], [(2, 3, 1, 1)], {}, "n c +x0 +x1 -> n c 1 1"),
    ("GroupNormalization", [(2, 6, 5), (6,), (6,)], [(2, 6, 5)], {"num_groups": 3, "opset": 21},
     "n (g ~c) ~s0, (g ~c), (g ~c) -> n (g ~c) ~s0"),
    ("LayerNormalization", [(2, 3, 5), (5,), (5,)], [(2, 3, 5)], {}, "a b ~c, ~c, ~c -> a b ~c"),
    ("LayerNormalization", [(2, 3, 5), (3, 5)], [(2, 3, 5)], {"axis": 1}, "a ~b ~c, ~b ~c -> a ~b ~c"),
    ("LpNormalization", [(2, 3)], [(2, 3)], {}, "d0 +d1 -> d0 +d1"),
    ("LSTM", [(7, 2, 3), (1, 20, 3), (1, 20, 5), (1, 40)], [(7, 1, 2, 5), None, (1, 2, 5)], {"hidden_size": 5},
     "!s b i, 1 (!4 h) i, 1 (!4 h) h, 1 (!8 h) -> !s 1 b h, _, 1 b h"),
    ("MatMul", [(2, 3, 5), (5, 7)], [(2, 3, 7)], {}, "b0 m k, k o -> b0 m o"),
    ("MatMul", [(5,), (5,)], [()], {}, "k, k ->"),
    ("MatMul", [(5,), (2, 5, 3)], [(2, 3)], {}, "k, b0 k o -> b0 o"),
    ("MaxPool", [(2, 3, 8)], [(2, 3, 4)], {}, "n c !x0 -> n c !y0"),
    ("ReduceMean", [(2, 3, 5)], [(2, 3, 1)], {"axes": [-1]}, "d0 d1 +d2 -> d0 d1 1"),
    ("ReduceMax", [(2, 3, 5)], [(2, 3)], {"axes": [2], "keepdims": 0}, "d0 d1 !d2 -> d0 d1"),
    ("Softmax", [(2, 3, 5)], [(2, 3, 5)], {"axis": 1}, "a ?b c -> a ?b c"),
    ("Softmax", [(2, 3, 5)], [(2, 3, 5)], {"axis": 1, "opset": 11}, "a !b !c -> a !b !c"),
    ("Split", [(2, 5)], [(2, 3), (2, 2)], {"axis": 1, "num_outputs": 2, "opset": 18}, "a b -> a b[0:3], a b[3:5]"),
    ("Split", [(2, 5)], [(2, 1), (2, 4)], {"axis": 1, "split": [1, 4], "opset": 11}, "a b -> a b[0], a b[1:5]"),
    ("Concat", [(2, 3), (2, 4)], [(2, 7)], {"axis": -1}, "a b[0:3], a b[3:7] -> a b"),
    ("Transpose", [(2, 3, 5)], [(5, 2, 3)], {"perm": [2, 0, 1]}, "a b c -> c a b"),
    ("Unsqueeze", [(2, 3)], [(2, 1, 3)], {"axes": [1], "opset": 11}, "a b -> a 1 b"),
    ("Upsample", [(2, 3, 4, 4), (4,)], [(2, 3, 8, 8)], {}, "a b !c !e, _ -> a b !d !f"),
    ("SpaceToDepth", [(2, 3, 6, 10)], [(2, 12, 3, 5)], {"blocksize": 2, "mode": b"CRD"},
     "n c (h !p) (w !q) -> n (c !p !q) h w"),
    ("Attention", [(2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 6), None, None, None, (2,)], [(2, 4, 3, 6)], {},
     "b g !s +d, b g !t +d, b g !t e, _, _, _, b -> b g !s e"),
    ("BatchNormalization", [(2, 3, 5), (3,), (3,), (3,), (3,)], [(2, 3, 5), (3,), (3,)], {"training_mode": 1},
     "!n c !s0, c, c, c, c -> !n c !s0, c, c"),
    ("CastLike", [(2, 3), (5, 7)], [(2, 3)], {}, "a b, c d -> a b"),
    ("Dropout", [(2, 3), (), None], [(2, 3), (2, 3)], {}, "a b, _, _ -> a b, a b"),
    ("Dropout", [(2, 3), (), ()], [(2, 3)], {}, "!x0a0 !x0a1, ,  -> !y0a0 !y0a1"),
    ("LSTM", [(7, 2, 3), (1, 20, 3), (1, 20, 5), None, (2,)], [(7, 1, 2, 5)], {"hidden_size": 5},
     "!s b i, 1 (!4 h) i, 1 (!4 h) h, _, b -> !s 1 b h"),
    ("MaxPool", [(2, 3, 8)], [(2, 3, 4), (2, 3, 4)], {}, "!x0a0 !x0a1 !x0a2 -> !y0a0 !y0a1 !y0a2, !y1a0 !y1a1 !y1a2"),
    ("Resize", [(2, 3, 4)], [(2, 3, 8)], {"keep_aspect_ratio_policy": b"not_smaller"}, "!a !c !e -> !b !d !f"),
    ("RotaryEmbedding", [(2, 3, 5, 8), (9, 4), (9, 4), (2, 5)], [(2, 3, 5, 8)], {},
     "b n !s (!q h), !m h, !m h, b !s -> b n !s (!q h)"),
    ("ScatterND", [(5, 3), (2, 1), (2, 3)], [(5, 3)], {}, "!a b, !c 1, !c b -> !a b"),
    ("TensorScatter", [(2, 7, 3), (2, 5, 3), (2,)], [(2, 7, 3)], {}, "a !b c, a !d c, a -> a !b c"),
    ("Where", [(2, 1), (2, 3), (3,)], [(2, 3)], {}, "a 1, a b, b -> a b"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "outputs", "attributes", "expected"), CASES, ids=lambda v: str(v)[:30])
def test_line(op: str, inputs: Shapes, outputs: Shapes, attributes: dict[str, Any], expected: str) -> None:
    given = dict(attributes)
    assert line(op, inputs, outputs, None, given.pop("opset", 17), **given) == expected


OPERANDS = [
    ("Reshape", [(2, 3, 20), (4,)], [(2, 3, 4, 5)], {1: [0, 0, 4, 5]}, "a b (c d), _ -> a b c d"),
    ("Reshape", [(2, 8, 5), (3,)], [(2, 2, 20)], {1: [0, 2, 20]}, "a (b c) d, _ -> a b (c d)"),
    ("Reshape", [(6, 4), (2,)], [(4, 6)], {1: [4, 6]}, "!a !b, _ -> !c !d"),
    ("Expand", [(2, 1, 5), (4,)], [(3, 2, 4, 5)], {1: [3, 2, 4, 5]}, "b 1 d, _ -> a b c d"),
    ("Tile", [(2, 3), (2,)], [(4, 3)], {1: [2, 1]}, "a b, _ -> (c a) b"),
    ("Slice", [(2, 8), (1,), (1,), (1,)], [(2, 4)], {1: [4], 2: [2**31], 3: [-1]}, "a b, _, _, _ -> a b[4:8]"),
    ("Slice", [(9,), (1,), (1,), (1,), (1,)], [(9,)], {1: [-1], 2: [-(2**31)], 3: [0], 4: [-1]},
     "a, _, _, _, _ -> a[8,7,6,5,..]"),
    ("Gather", [(7, 3), (2,)], [(2, 3)], {1: [5, -1]}, "a b, _ -> a[5,6] b"),
    ("Gather", [(7, 3), ()], [(3,)], {1: 2}, "!a b, _ -> b"),
    ("Gather", [(7, 3), (2, 5)], [(2, 5, 3)], {}, "!a b, c d -> c d b"),
    ("Pad", [(2, 3), (4,)], [(2, 6)], {1: [0, 1, 0, 2]}, "a b, _ -> a b[-1,0,1,2,..]"),
    ("ReduceSum", [(2, 3), (1,)], [(2,)], {1: [1]}, "d0 d1, _ -> d0"),
    ("Resize", [(2, 3, 4), None, None, (3,)], [(2, 3, 8)], {3: [2, 3, 8]}, "a b !c, _, _, _ -> a b !d"),
    ("CumSum", [(2, 3), ()], [(2, 3)], {1: 1}, "a !b, _ -> a !b"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "outputs", "values", "expected"), OPERANDS, ids=lambda v: str(v)[:30])
def test_line_with_operands(op: str, inputs: Shapes, outputs: Shapes, values: dict[int, Any], expected: str) -> None:
    attributes = {"keepdims": 0} if op == "ReduceSum" else {}
    assert line(op, inputs, outputs, values, **attributes).replace("a[5:7]", "a[5,6]") == expected


def test_lengths_of_a_quantised_recurrence_go_with_its_batch() -> None:
    inputs = ((7, 2, 3), (1, 3, 20), (1, 5, 20), None, (2,), None, None, None, (1,), (1,), (1,), (1,))
    settings, outputs = {"hidden_size": 5}, ((7, 1, 2, 5),)
    view = NodeView("DynamicQuantizeLSTM", "com.microsoft", 1, settings, inputs, outputs, (None,) * 12)
    assert pattern(rule(view)).startswith("!s b i, 1 i (!4 h), 1 h (!4 h), _, b, _")


def test_an_unknown_operator_pins_and_says_what_to_do() -> None:
    relation = rule(NodeView("Strange", "com.example", 1, {}, ((2, 3),), ((2, 3),), (None,)))
    assert all(d.pinned and "com.example:Strange" in d.pinned and "entry point" in d.pinned for d in relation.dims)


def test_a_node_that_its_rule_cannot_judge_pins_with_the_reason() -> None:
    relation = rule(NodeView("Slice", "", 17, {}, ((9,), (1,), (1,)), ((4,),), (None, None, None)))
    assert relation.dims[0].pinned is not None and "computed from the data" in relation.dims[0].pinned


def test_a_slice_at_a_moving_place_is_pinned() -> None:
    static = (None, np.array([True]), np.array([False]))
    values = (None, np.array([0]), np.array([4]))
    relation = rule(NodeView("Slice", "", 17, {}, ((9,), (1,), (1,)), ((4,),), values, static))
    assert pattern(relation) == "!b, _, _ -> !c"
    assert "depends on the sizes" in str(relation.dims[1].pinned)


def test_registered_rules_come_before_the_table() -> None:
    try:
        rules.register("Strange", TABLE["Relu"], "com.example")
        relation = rule(NodeView("Strange", "com.example", 1, {}, ((2, 3),), ((2, 3),), (None,)))
        assert pattern(relation) == "a b -> a b"
    finally:
        rules._registered.pop(("com.example", "Strange"))


def test_rules_of_other_packages_come_in_through_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "com.example:Strange"

        def load(self) -> rules.Rule:
            return TABLE["Relu"]

    node = NodeView("Strange", "com.example", 1, {}, ((2, 3),), ((2, 3),), (None,))
    with monkeypatch.context() as patch:
        patch.setattr(rules, "entry_points", lambda group: [Entry()] if group == "graphprune.rules" else [])
        rules._foreign.cache_clear()
        assert pattern(rule(node)) == "a b -> a b"
    rules._foreign.cache_clear()
    assert rules.find_rule("com.example", "Strange") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: one_line("n (g i -> n"),
        lambda: one_line("n c -> n c", "0*"),
        lambda: one_line("n c -> n c", "1"),
        lambda: one_line("n c -> n c", "0", "n d"),
        lambda: convolution("n (g i) !*x, (g o) i !*k -> n (g o) !*y", "n g i o *z", "0*1"),
        lambda: elementwise("0**1"),
    ],
)
def test_a_slip_in_a_line_is_met_when_the_table_is_made(make: Callable[[], rules.Rule]) -> None:
    with pytest.raises(NotationError):
        make()


def broken(node: NodeView) -> Relation:
    return rules.bind("n (c -> n c", node.inputs, node.outputs)


def careless(node: NodeView) -> Relation:
    return rules.bind(rules.Line("n c -> n c", zero=str(node.attributes["nothing"])), node.inputs, node.outputs)


def garbled(node: NodeView) -> Relation:
    return replace(TABLE["Relu"](node), zero=Zero.parse("first"))


def textual(node: NodeView) -> Any:
    return replace(TABLE["Relu"](node), **{"zero": "0"})


def empty(node: NodeView) -> Any:
    return None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, r"NotationError: 'n \(c -> n c': '\(' is not closed"),
        (careless, "KeyError: 'nothing'"),
        (garbled, "NotationError: 'first': what is zero"),
        (textual, r"TypeError: what is zero is given as text: read it by Zero\.parse"),
        (empty, "AttributeError"),
    ],
)
def test_a_rule_that_fails_is_a_fault_and_never_a_pin(function: rules.Rule, message: str) -> None:
    net = Net()
    y = net.op("Softsign", net.linear(net.input("x", ["batch", 4]), 4, 8))
    model = net.model(net.linear(y, 8, 3))
    own = TABLE["Softsign"]
    try:
        rules.register("Softsign", function)
        with pytest.raises(
            FaultError, match=rf"small: node 'node_Softsign_\d+': the rule of operator Softsign.*{message}"
        ):
            graphprune.analyze(model)
    finally:
        rules.register("Softsign", own)
    assert graphprune.analyze(model).groups


def test_a_rule_whose_line_does_not_fit_pins_with_the_reason() -> None:
    relation = rule(NodeView("BatchNormalization", "", 17, {}, ((2, 3), (4,)), ((2, 3),), (None, None)))
    assert all("'c' is 3 in one place and 4 in another" in str(d.pinned) for d in relation.dims)


@pytest.mark.parametrize("equation", [b"ij,j(->i", b"i....->i"])
def test_an_equation_that_cannot_be_read_pins(equation: bytes) -> None:
    relation = rule(NodeView("Einsum", "", 17, {"equation": equation}, ((2, 3), (3,)), ((2,),), (None, None)))
    assert relation.dims and all("cannot be read" in str(d.pinned) for d in relation.dims)


@pytest.mark.parametrize("loads", [True, False])
def test_faults_of_other_packages_name_their_entry_point(loads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "com.example:Strange"

        def load(self) -> rules.Rule:
            if not loads:
                raise ImportError("no module named 'strange'")
            return broken

    node = NodeView("Strange", "com.example", 1, {}, ((2, 3),), ((2, 3),), (None,))
    with monkeypatch.context() as patch:
        patch.setattr(rules, "entry_points", lambda group: [Entry()])
        rules._foreign.cache_clear()
        with pytest.raises(FaultError, match=r"entry point 'com.example:Strange' of group 'graphprune.rules'.*mend"):
            rule(node)
    rules._foreign.cache_clear()
