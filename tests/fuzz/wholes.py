"""Mutations of a model as a whole: versions, functions, bodies, and nodes that ask for much."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.fuzz.nodes import NUMBERS, Mutation, graphs, some_node, some_tensor


def versions(model: ModelProto, random: Random) -> bool:
    """Another version of an operator set, of the format, none, or one twice."""
    opsets, way = model.opset_import, random.randrange(6)
    if way == 0:
        model.ir_version = random.choice([0, 1, 3, 4, 8, 10, 13, 99, -1, 2**62])
    elif way == 1 and len(opsets):
        del opsets[random.randrange(len(opsets))]
    elif way == 2 and len(opsets):
        opsets.append(random.choice(opsets))
        opsets[-1].version = random.randint(1, 25)
    elif way == 3 and len(opsets):
        random.choice(opsets).domain = random.choice(["", "ai.onnx", "com.microsoft", "x"])
    elif len(opsets):
        random.choice(opsets).version = random.choice([*range(1, 27), 0, -1, 1000, 2**62])
    return True


def function(model: ModelProto, random: Random) -> bool:
    """A node becomes a call of a function that holds it; the function may call itself, or have an operator's name."""
    node = some_node(model, random)
    if node is None or not node.output:
        return False
    inner = NodeProto()
    inner.CopyFrom(node)
    wrong = random.random()
    name, own = ("Relu", "") if wrong < 0.15 else (f"{node.op_type}_held", random.choice(["held", "com.microsoft"]))
    inputs, results = (dict.fromkeys(n for n in names if n) for names in (node.input, node.output))
    if 0.15 < wrong < 0.3:
        inner.CopyFrom(helper.make_node(name, list(inputs), list(results), domain=own))
    made = FunctionProto(name=name, domain=own)
    made.input.extend(inputs)
    made.output.extend(results)
    made.node.append(inner)
    opsets = list(model.opset_import)
    made.opset_import.extend(opsets[:1] if wrong > 0.4 else [])
    if own not in {o.domain for o in opsets}:
        model.opset_import.append(helper.make_opsetid(own, 1))
    if wrong > 0.9:
        made.attribute.append("alpha")
    model.functions.append(made)
    if wrong > 0.95:
        model.functions.append(made)
    model.ir_version = max(min(model.ir_version, 2**31), 8)
    kept = list(inputs), list(results)
    node.CopyFrom(helper.make_node(name, *kept, name=node.name, domain=own))
    return True


def branch(model: ModelProto, random: Random) -> bool:
    """A node moves into both branches of an If, whose condition is constant, an input, or not boolean."""
    nodes = model.graph.node
    able = [k for k, n in enumerate(nodes) if n.output and n.output[0]]
    if not able:
        return False
    at = random.choice(able)
    inner, condition = NodeProto(), f"condition_{random.randrange(1000)}"
    inner.CopyFrom(nodes[at])
    results = [o for o in inner.output if o]
    bodies = []
    for k in range(2):
        body = GraphProto(name=f"branch_{k}")
        body.node.append(inner)
        for j, name in enumerate(inner.output):
            body.node[0].output[j] = f"{name}_in_{k}" if name else ""
        body.output.extend(helper.make_tensor_value_info(f"{name}_in_{k}", TensorProto.FLOAT, None) for name in results)
        bodies.append(body)
    made = helper.make_node("If", [condition], results, then_branch=bodies[0], else_branch=bodies[1])
    nodes[at].CopyFrom(made)
    if random.random() < 0.3:
        model.graph.input.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    else:
        value = np.array(random.choice([True, False, 1.0]))
        model.graph.initializer.append(numpy_helper.from_array(value, condition))
    return True


def repeat(model: ModelProto, random: Random) -> bool:
    """A Loop around an Identity on the way to a reader, with few or very many steps."""
    nodes = model.graph.node
    readers = [(k, i) for k, n in enumerate(nodes) for i, name in enumerate(n.input) if name]
    if not readers:
        return False
    at, place = random.choice(readers)
    name, own = nodes[at].input[place], f"loop_{random.randrange(1000)}"
    values = [("step", TensorProto.INT64), ("go", TensorProto.BOOL), ("held", TensorProto.FLOAT)]
    body = GraphProto(name=own)
    body.input.extend(helper.make_tensor_value_info(f"{own}_{n}", kind, None) for n, kind in values)
    doubling = random.random() < 0.2
    inner = ["Concat", [f"{own}_held", f"{own}_held"]] if doubling else ["Identity", [f"{own}_held"]]
    body.node.append(helper.make_node("Identity", [f"{own}_go"], [f"{own}_on"]))
    body.node.append(helper.make_node(*inner, [f"{own}_next"], **({"axis": 0} if doubling else {})))
    body.output.append(helper.make_tensor_value_info(f"{own}_on", TensorProto.BOOL, None))
    body.output.append(helper.make_tensor_value_info(f"{own}_next", TensorProto.FLOAT, None))
    steps = random.choice([1, 2, 3, 40, 2**31, 2**62, -1])
    model.graph.initializer.append(numpy_helper.from_array(np.array(steps), f"{own}_count"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), f"{own}_true"))
    nodes[at].input[place] = f"{own}_out"
    made = helper.make_node("Loop", [f"{own}_count", f"{own}_true", name], [f"{own}_out"], body=body)
    nodes.insert(at, made)
    return True


def body(model: ModelProto, random: Random) -> bool:
    """One body in place of another, or the main graph as a body of its own node."""
    holders = [a for g in graphs(model) for n in g.node for a in n.attribute if a.HasField("g")]
    if not holders:
        return branch(model, random)
    other = GraphProto()
    other.CopyFrom(random.choice(holders).g if random.random() < 0.7 else model.graph)
    random.choice(holders).g.CopyFrom(other)
    return True


def huge(model: ModelProto, random: Random) -> bool:
    """Nodes that make much of a few bytes, where something reads it."""
    nodes, own = model.graph.node, f"huge_{random.randrange(1000)}"
    readers = [(k, i) for k, n in enumerate(nodes) for i, name in enumerate(n.input) if name]
    if not readers:
        return False
    at, place = random.choice(readers)
    size = random.choice([2**20, 2**28, 2**31, 2**33, 2**40, 2**62])
    name = nodes[at].input[place]

    def ints(values: object, k: int) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"{own}_{k}"))
        return f"{own}_{k}"

    way = random.randrange(6)
    if way == 0:
        made = [helper.make_node("ConstantOfShape", [ints([size], 0)], [own])]
    elif way == 1:
        made = [helper.make_node("Range", [ints(0, 0), ints(size, 1), ints(1, 2)], [own])]
    elif way == 2:
        made = [helper.make_node("Expand", [name, ints([size, 1, 1, 1], 0)], [own])]
    elif way == 3:
        made = [helper.make_node("Tile", [name, ints([size], 0)], [own])]
    elif way == 4:
        made = [helper.make_node("Pad", [name, ints([0, size], 0)], [own])]
    else:
        chain = [name, *(f"{own}_{k}" for k in range(random.choice([12, 24, 32])))]
        made = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(chain)]
        made[-1].output[0] = own
    nodes[at].input[place] = own
    for node in reversed(made):
        nodes.insert(at, node)
    return True


def words(model: ModelProto, random: Random) -> bool:
    """Metadata, names and texts that nobody expects."""
    model.graph.name = random.choice(["", "g", "\x1b[2J", "é" * 2000])
    for _ in range(random.randint(0, 3)):
        key = random.choice(["", "graphprune.plan", "graphprune.version", "names", "stride", "imgsz", "task", "author"])
        model.metadata_props.add(
            key=key, value=random.choice(["", "{}", "[", "null", "{'a': 1}", "9" * 400, "[1e999]"])
        )
    model.producer_name = random.choice(["", "pytorch", "graphprune", "\n"])
    return True


def quantised(model: ModelProto, random: Random) -> bool:
    """What says how tensors were quantised, of tensors that may not be there."""
    made = model.graph.quantization_annotation.add(tensor_name=some_tensor(model, random))
    made.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=random.choice(["", some_tensor(model, random)]))
    return True


def devices(model: ModelProto, random: Random) -> bool:
    """Fields of later versions of the format."""
    node = some_node(model, random)
    if node is None:
        return False
    node.metadata_props.add(key="namespace", value=random.choice(["", "a: b", "x/y: z"]))
    node.overload = random.choice(["", "o"])
    model.graph.metadata_props.add(key="x", value=str(random.choice(NUMBERS)))
    return True


MUTATIONS: tuple[Mutation, ...] = (
    versions, versions, function, function, branch, repeat, body, huge, words, quantised, devices,
)  # fmt: skip
