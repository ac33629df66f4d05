"""Control flow as the rules of its gradients take it: what is known before the run is laid open.

1. An If whose condition is a constant is the branch that it takes.
2. A Loop that ends by its count alone is the copies of its body where that is a small number, else a Scan over the
   numbers of its steps, where its states keep their shapes.
3. A short Scan is the copies of its body. Any other gives the states that each step began with, as further outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, helper, shape_inference

from graphprune.gradients.expansion import body
from graphprune.gradients.known import infer
from graphprune.gradients.rules.control import Scanned, declared, graph_of, returned
from graphprune.gradients.table import Back
from graphprune.gradients.terms import BOOL, INT, Tape, Term, same
from graphprune.model.bodies import free_names, reread, subgraphs

_STEPS = 64
"""Steps up to which a loop is unrolled."""
_NODES = 1024
"""Nodes that an unrolled loop may have."""


def copied(tape: Tape, graph: GraphProto, bound: Mapping[str, str]) -> list[Term]:
    """The nodes of a body written on a tape, with other names; what it returns.

    Args:
        tape: where they go.
        graph: the body.
        bound: what its inputs are outside.
    """
    names = dict(bound)
    for node in graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        reread(copy, names)
        for k, name in enumerate(copy.output):
            if name:
                copy.output[k] = names[name] = tape.fresh(name)
        copy.name = tape.fresh(node.name or f"{node.op_type}_node")
        tape.nodes.append(copy)
    return [Term(tape, names.get(o.name, o.name), o.type.tensor_type.elem_type) for o in graph.output]


def _short(graph: GraphProto, steps: int | None) -> bool:
    return steps is not None and 0 < steps <= _STEPS and steps * max(_count(graph), 1) <= _NODES


def _count(graph: GraphProto) -> int:
    return sum(1 + sum(map(_count, subgraphs(node))) for node in graph.node)


@body("If")
def _if(b: Back) -> Sequence[Term] | None:
    condition = b.value(0)
    if condition is None:
        return None
    return copied(b.tape, graph_of(b.node, "then_branch" if condition.item() else "else_branch"), {})


def _unrolled(
    b: Back, graph: GraphProto, begun: Sequence[Term], steps: int, enter: Callable[[int], Sequence[Term]], states: int
) -> tuple[list[Term], list[list[Term]]]:
    """The last states, and what each step gives besides.

    Args:
        b: the node.
        graph: its body, the outputs of which are states first.
        begun: states before the first step.
        steps: how many there are.
        enter: inputs of the body at a step that stand in front of states (of a Loop) or behind these (of a Scan).
        states: place of the first state among the inputs of the body.
    """
    held, given = list(begun), []
    for t in range(steps):
        more = list(enter(t))
        entered = [*more[:states], *held, *more[states:]]
        bound = {i.name: term.name for i, term in zip(graph.input, entered, strict=True)}
        found = copied(b.tape, graph, bound)
        held, rest = found[: len(held)], found[len(held) :]
        given.append(rest)
    return held, given


@body("Scan")
def _scan(b: Back) -> Sequence[Term] | None:
    s = Scanned.of(b)
    n, outputs = s.states, len(s.body.output) - s.states
    first = b.raw[n].dims
    steps = first[s.axes[0][0]] if first is not None else None
    if not isinstance(steps, int) or not _short(s.body, steps):
        return None if s.recorded() else _recording(b, s)
    length = steps

    def enter(t: int) -> list[Term]:
        places = (length - 1 - t if back else t for back in s.directions[0])
        return [x.take(k, a) for x, k, a in zip(b.raw[n:], places, s.axes[0], strict=True)]

    held, given = _unrolled(b, s.body, b.raw[:n], length, enter, 0)
    stacked = []
    for j in range(outputs):
        axis = s.axes[1][j]
        parts = [b.tape.op("Unsqueeze", step[j], b.tape.constant([axis])) for step in given]
        stacked.append(b.tape.join(parts[::-1] if s.directions[1][j] else parts, axis))
    return [*held, *stacked]


def _recording(b: Back, s: Scanned) -> list[Term]:
    graph = GraphProto()
    graph.CopyFrom(s.body)
    inner = b.tape.inner()
    states = [Term(inner, i.name, b.known.kinds[i.name], b.known.dims.get(i.name)) for i in s.body.input[: s.states]]
    ends = returned(inner, states)
    graph.node.extend(inner.nodes)
    graph.output.extend(declared(ends))
    none = [0] * s.states
    kept = {"num_scan_inputs": b.attr("num_scan_inputs"), "body": graph}
    kept.update(scan_input_axes=s.axes[0], scan_input_directions=s.directions[0])
    kept.update(scan_output_axes=[*s.axes[1], *none], scan_output_directions=[*s.directions[1], *none])
    kinds = [b.known.kinds.get(o.name, 0) for o in graph.output]
    return list(b.tape.ops("Scan", *b.raw, kinds=kinds, **kept))


@body("Loop")
def _loop(b: Back) -> Sequence[Term] | None:
    graph = graph_of(b.node, "body")
    if not b.has(0) or not _counted(b, graph):
        return None
    n = len(graph.input) - 2
    true = b.tape.constant(True, BOOL)
    bare = GraphProto()
    bare.CopyFrom(graph)
    del bare.output[0]  # the condition
    trips = b.value(0)
    if trips is not None and _short(bare, int(trips.item())):
        held, given = _unrolled(b, bare, b.raw[2:], int(trips.item()), lambda t: (b.tape.constant(t), true), 2)
        return [
            *held,
            *(b.tape.join([step[j].unsqueeze([0]) for step in given]) for j in range(len(graph.output) - 1 - n)),
        ]
    return _scanned(b, bare, true) if _keeps_shapes(b, bare) else None


def _counted(b: Back, graph: GraphProto) -> bool:
    """Whether a Loop runs as often as its count says: its condition is true, and stays."""
    by = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
    name = graph.output[0].name
    while name in by:
        name = by[name]
    start, stay = b.value(1), b.known.value(name)
    begins = not b.has(1) or (start is not None and bool(start.item()))
    return begins and (name == graph.input[1].name or (stay is not None and bool(stay.item())))


def _keeps_shapes(b: Back, graph: GraphProto) -> bool:
    """Whether the states of a Loop have the shapes after a step that they had before."""
    known = b.known
    states = [i.name for i in graph.input[2:]]
    proto = ModelProto(ir_version=10)
    proto.opset_import.append(helper.make_opsetid("", known.opset))
    proto.graph.CopyFrom(graph)
    del proto.graph.input[:], proto.graph.value_info[:]
    held = dict(zip(states, b.raw[2:], strict=True))
    outer = {name: Term(b.tape, name, known.kinds.get(name, 0), known.dims.get(name)) for name in free_names(graph)}
    for name, term in {**held, **outer}.items():
        if known.value(name) is not None:
            proto.graph.initializer.append(known.constants[name])
        else:
            proto.graph.input.append(helper.make_tensor_value_info(name, term.kind, term.dims))
    proto.graph.input.append(helper.make_tensor_value_info(graph.input[0].name, INT, []))
    proto.graph.input.append(helper.make_tensor_value_info(graph.input[1].name, BOOL, []))
    try:
        found = infer(proto).dims
    except shape_inference.InferenceError:
        return False
    ends = [o.name for o in graph.output[: len(states)]]
    return all(same(found.get(end), term.dims) for end, term in zip(ends, held.values(), strict=True))


def _scanned(b: Back, bare: GraphProto, true: Term) -> Sequence[Term]:
    """A Scan over the numbers of the steps."""
    number, condition, states = bare.input[0], bare.input[1].name, list(bare.input[2:])
    for node in bare.node:
        reread(node, {condition: true.name})
    value = helper.make_tensor_value_info(number.name, INT, [])
    del bare.input[:]
    for state, term in zip(states, b.raw[2:], strict=True):
        bare.input.append(helper.make_tensor_value_info(state.name, term.kind, term.dims))
    bare.input.append(value)
    steps = b.tape.op("Range", b.tape.constant(0), b.raw[0].reshape([]), b.tape.constant(1), kind=INT)
    kinds = [b.known.kinds.get(o.name, 0) for o in bare.output]
    return b.tape.ops("Scan", *b.raw[2:], steps, kinds=kinds, body=bare, num_scan_inputs=1)
