"""Mutations of nodes and their attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from random import Random

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

NUMBERS = (0, 1, -1, 2, 3, 7, -2, 64, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))
REALS = (0.0, 1.0, -1.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), float("-inf"), 0.5)
TEXTS = (
    "",
    "x",
    "valid",
    "same_upper",
    "SAME_UPPER",
    "VALID",
    "NOTSET",
    "linear",
    "reflect",
    "ij,jk->ik",
    "a" * 5000,
    "é\n",
)
ALIKE = (
    ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Sqrt", "Identity", "Erf", "Elu", "Softmax", "LeakyRelu",
    "Floor", "Sign",
     "HardSwish", "Gelu", "Not", "Shape", "Size", "Flatten", "Transpose", "NonZero", "IsNaN", "Log", "Reciprocal",
     "Cast",
     "GlobalAveragePool", "ReduceMean", "Dropout", "LogSoftmax", "Squeeze", "ConstantOfShape"),
    ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "MatMul", "Concat", "PRelu", "Mean", "Sum", "Mod", "Equal",
    "Less", "And",
     "Gather", "Expand", "Tile", "Reshape", "GatherElements", "GatherND", "Conv", "ConvTranspose", "Gemm", "Unsqueeze"),
    ("Conv", "ConvTranspose", "Gemm", "Where", "Slice", "Clip", "Pad", "Range", "ScatterElements", "ScatterND",
    "Loop", "If"),
)  # fmt: skip


def graphs(model: ModelProto) -> list[GraphProto]:
    """The main graph and all bodies."""
    found, left = [], [model.graph]
    while left:
        graph = left.pop()
        found.append(graph)
        left += [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
    return found


def lists(model: ModelProto) -> list[list[NodeProto]]:
    """All lists of nodes that hold one: of graphs, and of functions."""
    return [owner.node for owner in [*graphs(model), *model.functions] if len(owner.node)]


def any_list(model: ModelProto, random: Random) -> list[NodeProto] | None:
    """One of them, mostly the main graph's."""
    found = lists(model)
    return (found[0] if random.random() < 0.7 else random.choice(found)) if found else None


def some_node(model: ModelProto, random: Random) -> NodeProto | None:
    nodes = any_list(model, random)
    return random.choice(nodes) if nodes else None


def some_tensor(model: ModelProto, random: Random) -> str:
    """Any name of a tensor."""
    names = [o for nodes in lists(model) for n in nodes for o in n.output]
    names += [i.name for i in model.graph.input] + [t.name for t in model.graph.initializer]
    return random.choice(names) if names else "x"


def drop(model: ModelProto, random: Random) -> bool:
    nodes = any_list(model, random)
    if nodes:
        del nodes[random.randrange(len(nodes))]
    return bool(nodes)


def bypass(model: ModelProto, random: Random) -> bool:
    """What reads a node reads its first input instead."""
    nodes = any_list(model, random)
    node = random.choice(nodes) if nodes else None
    if nodes is None or node is None or not node.input or not node.output:
        return False
    for other in nodes:
        for k, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[k] = node.input[0]
    return True


def double(model: ModelProto, random: Random) -> bool:
    """A node twice: with the same outputs, or with outputs of its own that take some of the readers."""
    nodes = any_list(model, random)
    if not nodes:
        return False
    at = random.randrange(len(nodes))
    copy = NodeProto()
    copy.CopyFrom(nodes[at])
    if random.random() < 0.8:
        for k, name in enumerate(copy.output):
            copy.output[k] = f"{name}_again" if name else ""
        for other in nodes[at + 1 :]:
            for k, name in enumerate(other.input):
                if name and name in nodes[at].output and random.random() < 0.5:
                    other.input[k] = f"{name}_again"
    nodes.insert(at + 1, copy)
    return True


def shuffle(model: ModelProto, random: Random) -> bool:
    nodes = any_list(model, random)
    if not nodes:
        return False
    node = NodeProto()
    node.CopyFrom(nodes.pop(random.randrange(len(nodes))))
    nodes.insert(random.randint(0, len(nodes)), node)
    return True


def retype(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None:
        return False
    near = [kinds for kinds in ALIKE if node.op_type in kinds]
    if near and random.random() < 0.7:
        kinds = random.choice(near)
        node.op_type = random.choice(kinds[:13] if node.op_type in kinds[:13] else kinds)
    elif random.random() < 0.9:
        node.op_type = random.choice(_operators())
    else:
        node.op_type = random.choice(["", "NoSuchOp", "relu", "Conv\n"])
    return True


@cache
def _operators() -> list[str]:
    return sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})


def rewire(model: ModelProto, random: Random) -> bool:
    """An input becomes another tensor: an earlier one, a later one (a cycle), the node's own, or one of no node."""
    node = some_node(model, random)
    if node is None or not node.input:
        return False
    other = random.choices(
        [some_tensor(model, random), node.output[0] if node.output else "", "", "nowhere"], [8, 1, 2, 1]
    )[0]
    node.input[random.randrange(len(node.input))] = other
    return True


def swap_inputs(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None or len(node.input) < 2:
        return False
    i, j = random.sample(range(len(node.input)), 2)
    node.input[i], node.input[j] = node.input[j], node.input[i]
    return True


def fewer_inputs(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None or not node.input:
        return False
    if random.random() < 0.2:
        del node.input[:]
    else:
        del node.input[random.randrange(len(node.input))]
    return True


def more_inputs(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None:
        return False
    node.input.extend(random.choice(["", some_tensor(model, random)]) for _ in range(random.choice([1, 1, 2, 9])))
    return True


def outputs(model: ModelProto, random: Random) -> bool:
    """An output more, fewer, without a name, or with another's."""
    node = some_node(model, random)
    if node is None:
        return False
    way = random.randrange(4)
    if way == 0 or not node.output:
        node.output.append(random.choice(["", "more", some_tensor(model, random)]))
    elif way == 1:
        del node.output[random.randrange(len(node.output))]
    else:
        node.output[random.randrange(len(node.output))] = "" if way == 2 else some_tensor(model, random)
    return True


def rename(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None:
        return False
    node.name = random.choice(["", "same", "a/b/../c", "é\n\x1b[31m", "x" * 3000])
    if random.random() < 0.3:
        for other in model.graph.node:
            other.name = node.name
    return True


def domain(model: ModelProto, random: Random) -> bool:
    node = some_node(model, random)
    if node is None:
        return False
    node.domain = random.choice(["", "ai.onnx", "com.microsoft", "ai.onnx.ml", "nowhere", "ai.onnx.training"])
    if random.random() < 0.5 and node.domain not in {o.domain for o in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(node.domain, random.choice([1, 2, 3])))
    return True


def _attributed(model: ModelProto, random: Random) -> NodeProto | None:
    found = [n for nodes in lists(model) for n in nodes if n.attribute]
    return random.choice(found) if found else None


def drop_attribute(model: ModelProto, random: Random) -> bool:
    node = _attributed(model, random)
    if node is not None:
        del node.attribute[random.randrange(len(node.attribute))]
    return node is not None


def change_attribute(model: ModelProto, random: Random) -> bool:
    """Another value of the same type."""
    node = _attributed(model, random)
    if node is None:
        return False
    one = random.choice(node.attribute)
    kind = AttributeProto
    if one.type == kind.INT:
        one.i = random.choice([*NUMBERS, max(min(one.i + random.choice([-1, 1]), 2**63 - 1), -(2**63))])
    elif one.type == kind.FLOAT:
        one.f = random.choice(REALS)
    elif one.type == kind.STRING:
        one.s = random.choice(TEXTS).encode() if random.random() < 0.9 else b"\xff\xfe"
    elif one.type == kind.INTS:
        _change_list(one.ints, NUMBERS, random)
    elif one.type == kind.FLOATS:
        _change_list(one.floats, REALS, random)
    elif one.type == kind.STRINGS:
        _change_list(one.strings, [t.encode() for t in TEXTS], random)
    elif one.type == kind.TENSOR:
        from tests.fuzz.tensors import disturb

        disturb(one.t, random)
    else:
        one.type = random.randrange(16)
    return True


def _change_list(values: list, others: object, random: Random) -> None:  # type: ignore[type-arg]
    way = random.randrange(5)
    if way == 0 or not len(values):
        values.append(random.choice(others))  # type: ignore[arg-type]
    elif way == 1:
        del values[random.randrange(len(values))]
    elif way == 2:
        old = list(values)
        random.shuffle(old)
        values[:] = old
    elif way == 3:
        del values[:]
    else:
        values[random.randrange(len(values))] = random.choice(others)  # type: ignore[arg-type]


def mistype_attribute(model: ModelProto, random: Random) -> bool:
    """The value of another type, or the tag of another."""
    node = _attributed(model, random)
    if node is None:
        return False
    one = random.choice(node.attribute)
    if random.random() < 0.5:
        one.type = random.randrange(16)
        return True
    value = random.choice([random.choice(NUMBERS), random.choice(REALS), "text", [1, 2], [0.5], ["a"]])
    one.CopyFrom(helper.make_attribute(one.name, value))
    return True


def more_attributes(model: ModelProto, random: Random) -> bool:
    """One that the operator has, with any value; one that it has not; one twice; one that refers to a function's."""
    node = some_node(model, random)
    if node is None:
        return False
    way = random.randrange(5)
    if way == 0 and node.attribute:
        node.attribute.append(random.choice(node.attribute))
    elif way == 1 and node.attribute:
        random.choice(node.attribute).ref_attr_name = "alpha"
    elif way == 2:
        node.attribute.append(helper.make_attribute(random.choice(["axis", "perm", "to", "nothing", ""]), 1))
    elif onnx.defs.has(node.op_type):
        return _own_attribute(node, random)
    return True


def _own_attribute(node: NodeProto, random: Random) -> bool:
    schema = onnx.defs.get_schema(node.op_type)
    if not schema.attributes:
        return False
    name = random.choice(sorted(schema.attributes))
    kind = schema.attributes[name].type
    kinds = onnx.defs.OpSchema.AttrType
    values = {
        kinds.INT: random.choice(NUMBERS[:8]),
        kinds.FLOAT: random.choice(REALS),
        kinds.STRING: random.choice(TEXTS),
        kinds.INTS: [random.choice(NUMBERS[:7]) for _ in range(random.randint(1, 4))],
        kinds.FLOATS: [random.choice(REALS) for _ in range(random.randint(1, 4))],
    }
    if kind not in values:
        return False
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, values[kind])])
    return True


def insert(model: ModelProto, random: Random) -> bool:
    """A node on the way from a tensor to one of its readers, mostly one that is valid there."""
    nodes = model.graph.node
    readers = [(k, i) for k, n in enumerate(nodes) for i, name in enumerate(n.input) if name]
    if not readers:
        return False
    at, place = random.choice(readers)
    made = list(_between(nodes[at].input[place], random))
    nodes[at].input[place] = made[-1].output[0]
    for node in reversed(made):
        nodes.insert(at, node)
    return True


def _between(name: str, random: Random) -> Iterator[NodeProto]:
    fresh = f"{name}_between_{random.randrange(1000)}"
    way = random.randrange(8)
    if way < 3:
        yield helper.make_node(random.choice(["Identity", "Relu", "Neg", "Sigmoid", "Abs", "Tanh"]), [name], [fresh])
    elif way == 3:
        yield helper.make_node(random.choice(["Add", "Mul", "Sub", "Max", "Min"]), [name, name], [fresh])
    elif way == 4:
        yield helper.make_node("Concat", [name, name], [fresh], axis=random.choice([0, 1, -1]))
    elif way == 5:
        yield helper.make_node("Shape", [name], [f"{fresh}_s"])
        yield helper.make_node("Reshape", [name, f"{fresh}_s"], [fresh])
    elif way == 6:
        axes = random.choice([[0, 1], [1, 0], [0, 2, 1], [0, 2, 3, 1], [0, 3, 1, 2], [1, 0, 2]])
        yield helper.make_node("Transpose", [name], [f"{fresh}_t"], perm=axes)
        yield helper.make_node("Transpose", [f"{fresh}_t"], [fresh], perm=[axes.index(k) for k in range(len(axes))])
    else:
        value = numpy_helper.from_array(random_numbers(random), "")
        yield helper.make_node("Constant", [], [f"{fresh}_c"], value=value)
        yield helper.make_node(random.choice(["Add", "Mul", "Div"]), [name, f"{fresh}_c"], [fresh])


def random_numbers(random: Random) -> object:
    shape = random.choice([(), (1,), (1, 1), (8,), (0,), (1, 8, 1, 1)])
    return np.asarray([random.choice(REALS[:6]) for _ in range(int(np.prod(shape)))], np.float32).reshape(shape)


Mutation = Callable[[ModelProto, Random], bool]
MUTATIONS: tuple[Mutation, ...] = (
    drop, bypass, bypass, double, shuffle, retype, retype, rewire, rewire, swap_inputs, fewer_inputs, more_inputs,
    outputs, rename, domain, drop_attribute, change_attribute, change_attribute, mistype_attribute, more_attributes,
    insert, insert, insert,
)  # fmt: skip
