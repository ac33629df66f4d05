"""A model as the walk takes it: no functions, one opset, and operators without a rule of their own laid open.

An operator is laid open by its body: the model's own function, the one that ONNX's schema defines it by, or one of
:data:`BODIES`, written as an expression. Operators that have a rule can have a body too, for forms that the rule does
not take.

Bodies of control flow stay, but what is constant in them moves to the main graph, under the name that it has in the
flat form of ``graphprune.model.control``: from there bodies capture it, as they do any other tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence

import onnx.defs
import onnx.inliner
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.gradients.errors import GradientError, NoGradientError
from graphprune.gradients.known import Known, apart, constant, constants_of, infer, is_large, version_of
from graphprune.gradients.opsets import upgrade
from graphprune.gradients.table import FLAT, RULES, Back, domain_of
from graphprune.gradients.terms import Array, Tape, Term
from graphprune.model import control
from graphprune.model.bodies import subgraphs
from graphprune.model.messages import copy_all_but

Body = Callable[[Back], "Sequence[Term] | None"]
"""Outputs of a node as expressions of its inputs (``Back.raw``); None where the node stays, or stays for now since
what is known does not suffice yet."""

BODIES: dict[tuple[str, str], Body] = {}
"""By domain and operator."""

_ROUNDS = 32
"""Bodies may hold operators that have bodies, and sizes that are found tell of others."""


def body(*ops: str, domain: str = "") -> Callable[[Body], Body]:
    """Enter a body for these operators."""

    def enter(function: Body) -> Body:
        for op in ops:
            assert (domain, op) not in BODIES, op
            BODIES[domain, op] = function
        return function

    return enter


def prepared(model: ModelProto, sizes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[ModelProto, Known]:
    """The model laid open, with all its weights, and what is known of it.

    Args:
        model: any model; it is not changed.
        sizes: shapes of inputs.
    """
    proto, weights = apart(model, sizes)
    proto = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    proto = _hoisted(proto, weights)
    own = [t.name for t in weights] + constants_of(proto)
    proto = upgrade(proto)
    known = infer(proto)
    for _ in range(_ROUNDS):
        found = _opened(_defined(_folded(proto, known), known), known)
        if found is proto:
            break
        refused = known.refused
        proto = _hoisted(found, weights)
        known = infer(proto)
        known.refused.update(refused)
    held = {t.name for t in weights}
    inputs = [i for i in proto.graph.input if i.name not in held]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(weights)
    known.constants.update((t.name, t) for t in weights)
    known.own = [name for name in own if name in known.constants]
    return proto, known


def _hoisted(model: ModelProto, weights: list[TensorProto]) -> ModelProto:
    """A model whose bodies hold no constants; large ones are set apart."""
    if not control.holds_bodies(model.graph):
        return model
    flat, proto = ModelProto(), ModelProto()
    for target in (flat, proto):
        copy_all_but(model, target, {"graph"})
        copy_all_but(model.graph, target.graph, {"node", "initializer"})
    flat.graph.initializer.extend(model.graph.initializer)
    layout = control.flatten(model, flat)
    layout.initializers.clear()
    held = {node.output[0]: value for node in flat.graph.node if layout.of(node) and (value := constant(node))}
    for name, tensor in held.items():
        flat.graph.initializer.append(tensor)
        flat.graph.initializer[-1].name = name
    nodes = [node for node in flat.graph.node if not (layout.of(node) and node.output[0] in held)]
    large = [t for t in flat.graph.initializer if is_large(t)]
    proto.graph.initializer.extend(t for t in flat.graph.initializer if not is_large(t))
    proto.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in large)
    weights.extend(large)
    control.restore(nodes, proto.graph, layout, frozenset())
    _return(proto.graph.node, Tape.beside(proto.graph))
    return proto


def _return(nodes: Sequence[NodeProto], tape: Tape) -> None:
    """Let bodies return what they make only: what they capture goes through an Identity."""
    for node in nodes:
        for graph in subgraphs(node):
            _return(graph.node, tape)
            made = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
            for value in graph.output:
                if value.name not in made:
                    outer, value.name = value.name, tape.fresh(f"{value.name}_returned")
                    graph.node.append(helper.make_node("Identity", [outer], [value.name]))


def _folded(model: ModelProto, known: Known) -> ModelProto:
    """A model in which what follows from sizes is constant; the model itself where nothing does."""
    proto = ModelProto()
    proto.CopyFrom(model)
    return proto if _fold(proto.graph.node, known.values) else model


def _fold(nodes: Sequence[NodeProto], values: Mapping[str, Array]) -> bool:
    changed = False
    for node in nodes:
        for graph in subgraphs(node):
            changed = _fold(graph.node, values) or changed
        if len(node.output) == 1 and node.output[0] in values and node.op_type != "Constant":
            value = numpy_helper.from_array(values[node.output[0]])
            node.CopyFrom(helper.make_node("Constant", [], node.output, node.name, value=value))
            changed = True
    return changed


def _lacking(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Nodes without a rule, in bodies too."""
    for node in nodes:
        key = (domain_of(node), node.op_type)
        if key not in RULES and node.op_type not in FLAT.get(key[0], ()):
            yield node
        for graph in subgraphs(node):
            yield from _lacking(graph.node)


def _defined(model: ModelProto, known: Known) -> ModelProto:
    """Operators that ONNX defines by others, laid open."""
    names = sorted({n.op_type for n in _lacking(model.graph.node) if domain_of(n) == "" and _has_body(n, model)})
    if not names:
        return model
    typed = ModelProto()
    typed.CopyFrom(model)
    _fill(typed.graph.node, names, version_of(model))
    declared = {v.name for v in (*model.graph.input, *model.graph.output)}
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(name, kind, known.dims.get(name))
        for name, kind in known.kinds.items()
        if name not in declared
    )
    typed.graph.value_info.append(helper.make_tensor_value_info("", 1, None))  # asked for inputs that are left out
    try:
        inner = onnx.inliner.inline_selected_functions(
            typed, [("", name) for name in names], inline_schema_functions=True
        )
    except onnx.shape_inference.InferenceError as error:
        said = " ".join(str(error).split())
        raise GradientError(
            f"{', '.join(names)} cannot be laid open: its shapes contradict each other ({said})"
        ) from error
    proto = ModelProto()
    proto.CopyFrom(model)
    del proto.graph.node[:]
    proto.graph.node.extend(inner.graph.node)
    return proto


def _fill(nodes: Iterable[NodeProto], names: Sequence[str], version: int) -> None:
    """Attributes that are left out, which bodies refer to, at their defaults."""
    for node in nodes:
        for graph in subgraphs(node):
            _fill(graph.node, names, version)
        if node.op_type in names and domain_of(node) == "":
            held = {a.name for a in node.attribute}
            options = onnx.defs.get_schema(node.op_type, version).attributes.values()
            node.attribute.extend(o.default_value for o in options if o.name not in held and o.default_value.type)


def _has_body(node: NodeProto, model: ModelProto) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, version_of(model))
    except onnx.defs.SchemaError:
        return False
    return bool(getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False))


def _opened(model: ModelProto, known: Known) -> ModelProto:
    """Operators laid open by their bodies here; the model itself where there are none."""
    proto = ModelProto()
    proto.CopyFrom(model)
    tape = Tape.beside(proto.graph)
    if not _open(proto.graph.node, tape, known):
        return model
    proto.graph.initializer.extend(tape.constants.values())
    return proto


def _open(nodes: MutableSequence[NodeProto], tape: Tape, known: Known) -> bool:
    """Lay nodes open in place, bodies first; whether there were any to lay open."""
    changed = False
    for node in nodes:
        for graph in subgraphs(node):
            changed = _open(graph.node, tape.inner(), known) or changed
        found = _expression(node, tape, known)
        changed = found or changed
        if not found:
            tape.nodes.append(node)
    if changed:
        copies = list(tape.nodes)
        del nodes[:]
        nodes.extend(copies)
    return changed


def _expression(node: NodeProto, tape: Tape, known: Known) -> bool:
    """Write a node's body on the tape, its results under the names that the node gave them; whether it has one."""
    opens = BODIES.get((domain_of(node), node.op_type))
    if opens is None:
        return False
    try:
        found = opens(Back(tape, node, known, (None,) * len(node.output), (False,) * len(node.input)))
    except NoGradientError as error:
        known.refused[node.output[0]] = str(error)
        return False
    if found is None:
        return False
    for name, term in zip(node.output, found, strict=False):
        if name:
            tape.nodes.append(helper.make_node("Identity", [term.name], [name], tape.fresh(f"{name}_node")))
    return True
