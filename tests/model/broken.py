"""A small valid model that has a bit of everything, and what can be broken in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
Break = Callable[[ModelProto], object]


def model(folder: Path) -> ModelProto:
    """Two convolutions around an If and the call of a function, and two products, the weights of one outside."""
    rng = np.random.default_rng(0)
    node, value = helper.make_node, helper.make_tensor_value_info
    bodies = {
        f"{side}_branch": helper.make_graph(
            [node(kind, ["hidden"], [f"{side}_made"], f"{side}_{kind}")],
            side,
            [],
            [value(f"{side}_made", FLOAT, ["batch", 8, 8, 8])],
        )
        for side, kind in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        node("Conv", ["x", "conv_w", "conv_b"], ["first"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["first"], ["hidden"], "relu"),
        node("If", ["flag"], ["chosen"], "branch", **bodies),
        node("Twice", ["chosen"], ["doubled"], "call", domain="local"),
        node("GlobalAveragePool", ["doubled"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("MatMul", ["flat", "fc_w"], ["fc"], "fc"),
        node("Relu", ["fc"], ["act"], "act"),
        node("MatMul", ["act", "out_w"], ["y"], "out"),
    ]
    twice = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [node("Relu", ["a"], ["r"], "inner"), node("Add", ["r", "r"], ["b"], "sum")],
        [helper.make_opsetid("", 17)],
    )
    shapes = {"conv_w": (8, 3, 3, 3), "conv_b": (8,), "fc_w": (8, 16), "out_w": (16, 4)}
    weights = [numpy_helper.from_array(rng.random(s, np.float32) - np.float32(0.5), n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.array(True), "flag"))
    ends = [value("x", FLOAT, ["batch", 3, 8, 8])], [value("y", FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "small", *ends, weights, value_info=[value("first", FLOAT, ["batch", 8, 8, 8])])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made = helper.make_model(graph, functions=[twice], opset_imports=sets, ir_version=9, producer_name="test")
    _outside(weight(made, "fc_w"), folder)
    return made


def _outside(tensor: TensorProto, folder: Path) -> None:
    (folder / "m.data").write_bytes(tensor.raw_data)
    for key, entry in (("location", "m.data"), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
        tensor.external_data.add(key=key, value=entry)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL


def node(m: ModelProto, name: str) -> NodeProto:
    return next(n for n in m.graph.node if n.name == name)


def weight(m: ModelProto, name: str) -> TensorProto:
    return next(t for t in m.graph.initializer if t.name == name)


def attribute(m: ModelProto, of: str, name: str) -> AttributeProto:
    return next(a for a in node(m, of).attribute if a.name == name)


def body(m: ModelProto) -> GraphProto:
    return attribute(m, "branch", "then_branch").g


def entry(key: str, value: str) -> Break:
    """Sets what is said of the place of the weights outside."""

    def change(m: ModelProto) -> None:
        next(e for e in weight(m, "fc_w").external_data if e.key == key).value = value

    return change


def again(key: str, value: str) -> Break:
    return lambda m: weight(m, "fc_w").external_data.add(key=key, value=value)


def typed(field: str, count: int) -> Break:
    def change(m: ModelProto) -> None:
        weight(m, "conv_b").ClearField("raw_data")
        getattr(weight(m, "conv_b"), field).extend([1] * count)

    return change


def reads(name: str, *inputs: str) -> Break:
    def change(m: ModelProto) -> None:
        del node(m, name).input[:]
        node(m, name).input.extend(inputs)

    return change


def gives(name: str, *outputs: str) -> Break:
    def change(m: ModelProto) -> None:
        del node(m, name).output[:]
        node(m, name).output.extend(outputs)

    return change


def becomes(name: str, kind: str, domain: str = "") -> Break:
    def change(m: ModelProto) -> None:
        node(m, name).op_type, node(m, name).domain = kind, domain

    return change


def more(*nodes: NodeProto, **values: TensorProto) -> Break:
    """Adds nodes, and initializers by name."""

    def change(m: ModelProto) -> None:
        m.graph.node.extend(nodes)
        for name, value in values.items():
            m.graph.initializer.append(value)
            m.graph.initializer[-1].name = name

    return change


def attributes(name: str, *given: AttributeProto) -> Break:
    return lambda m: node(m, name).attribute.extend(given)


def imports(*pairs: tuple[str, int]) -> Break:
    def change(m: ModelProto) -> None:
        del m.opset_import[:]
        m.opset_import.extend(helper.make_opsetid(*pair) for pair in pairs)

    return change


def nested(depth: int) -> Break:
    def change(m: ModelProto) -> None:
        other = attribute(m, "branch", "else_branch").g
        for k in range(depth):
            inner = GraphProto()
            inner.CopyFrom(body(m))
            holder = helper.make_node("If", ["flag"], [f"d{k}"], then_branch=inner, else_branch=other)
            value = helper.make_tensor_value_info(f"d{k}", FLOAT, ["batch", 8, 8, 8])
            body(m).CopyFrom(helper.make_graph([holder], "deeper", [], [value]))

    return change


def sparse(places: list[int], dims: list[int] = [8], kind: int = FLOAT) -> Break:  # noqa: B006 -- never changed
    def change(m: ModelProto) -> None:
        node(m, "conv").input[2] = "sp"
        one = m.graph.sparse_initializer.add(dims=dims)
        one.values.CopyFrom(helper.make_tensor("sp", kind, [2], [b"a", b"b"] if kind == TensorProto.STRING else [1, 2]))
        one.indices.CopyFrom(helper.make_tensor("", INT, [len(places)], places))

    return change


def function(change: Callable[..., object]) -> Break:
    return lambda m: change(m.functions[0])


def both(*changes: Break) -> Break:
    return lambda m: [change(m) for change in changes]


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Of the bytes of a file; both are of one length."""
    assert len(old) == len(new)
    return lambda data: data.replace(old, new)


def setting(of: Callable[[ModelProto], object], name: str, value: object) -> Break:
    return lambda m: setattr(of(m), name, value)


def cleared(of: Callable[[ModelProto], object], name: str) -> Break:
    return lambda m: of(m).ClearField(name)  # type: ignore[attr-defined]


def loop(**changes: Break) -> Break:
    """Puts a Loop in front of the last product, whose body is then changed."""

    def change(m: ModelProto) -> None:
        value = helper.make_tensor_value_info
        inside = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["v"], ["v2"])],
            "inside",
            [value("i", INT, []), value("c", TensorProto.BOOL, []), value("v", FLOAT, None)],
            [value("c2", TensorProto.BOOL, []), value("v2", FLOAT, None)],
        )
        m.graph.initializer.append(helper.make_tensor("trips", INT, [], [2]))
        m.graph.node.insert(8, helper.make_node("Loop", ["trips", "flag", "act"], ["looped"], "loop", body=inside))
        node(m, "out").input[0] = "looped"
        for one in changes.values():
            one(m)

    return change


def inside(m: ModelProto) -> GraphProto:
    return attribute(m, "loop", "body").g


def scan(change_of: Break) -> Break:
    def change(m: ModelProto) -> None:
        value = helper.make_tensor_value_info
        step = helper.make_graph(
            [helper.make_node("Add", ["s", "e"], ["s2"]), helper.make_node("Identity", ["s2"], ["o2"])],
            "step",
            [value("s", FLOAT, [16]), value("e", FLOAT, [16])],
            [value("s2", FLOAT, [16]), value("o2", FLOAT, [16])],
        )
        m.graph.initializer.append(helper.make_tensor("start", FLOAT, [16], [0.0] * 16))
        m.graph.node.insert(
            8, helper.make_node("Scan", ["start", "act"], ["last", "all"], "scan", body=step, num_scan_inputs=1)
        )
        node(m, "out").input[0] = "all"
        change_of(m)

    return change
