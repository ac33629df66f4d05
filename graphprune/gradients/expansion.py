"""A model as the walk takes it: no functions, one opset, and operators without a rule of their own laid open.

An operator is laid open by its body: the model's own function, the one that ONNX's schema defines it by, or, for
operators of other domains, one of :data:`BODIES`, written as an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import onnx.defs
import onnx.inliner
from onnx import ModelProto, NodeProto, helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.known import Known, apart, constants_of, infer
from graphprune.gradients.opsets import upgrade
from graphprune.gradients.table import FLAT, RULES, Back, domain_of
from graphprune.gradients.terms import Tape, Term
from graphprune.model.bodies import subgraphs

Body = Callable[[Back], "Sequence[Term] | None"]
"""Outputs of a node as expressions of its inputs (``Back.raw``); None where what is known does not suffice yet."""

BODIES: dict[tuple[str, str], Body] = {}
"""By domain and operator."""

_ROUNDS = 8
"""Bodies may hold operators that have bodies."""


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
    inlined = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    own = [t.name for t in weights] + constants_of(inlined)
    proto = upgrade(inlined)
    known = infer(proto)
    for _ in range(_ROUNDS):
        found = _opened(_defined(proto, known), known)
        if found is proto:
            break
        refused = known.refused
        proto, known = found, infer(found)
        known.refused.update(refused)
    held = {t.name for t in weights}
    inputs = [i for i in proto.graph.input if i.name not in held]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(weights)
    known.constants.update((t.name, t) for t in weights)
    known.own = [name for name in own if name in known.constants]
    return proto, known


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
    _fill(typed.graph.node, names, _version(model))
    declared = {v.name for v in (*model.graph.input, *model.graph.output)}
    typed.graph.value_info.extend(
        helper.make_tensor_value_info(name, kind, known.dims.get(name))
        for name, kind in known.kinds.items()
        if name not in declared
    )
    typed.graph.value_info.append(helper.make_tensor_value_info("", 1, None))  # asked for inputs that are left out
    inner = onnx.inliner.inline_selected_functions(typed, [("", name) for name in names], inline_schema_functions=True)
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


def _version(model: ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def _has_body(node: NodeProto, model: ModelProto) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, _version(model))
    except onnx.defs.SchemaError:
        return False
    return bool(getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False))


def _opened(model: ModelProto, known: Known) -> ModelProto:
    """Operators of other domains, laid open by their bodies here."""
    if not any((domain_of(n), n.op_type) in BODIES for n in _lacking(model.graph.node)):
        return model
    proto = ModelProto()
    proto.CopyFrom(model)
    tape = Tape(_names(proto))
    del proto.graph.node[:]
    for node in model.graph.node:
        found = _expression(node, tape, known)
        if found is None:
            tape.nodes.append(node)
    proto.graph.node.extend(tape.nodes)
    proto.graph.initializer.extend(tape.constants.values())
    return proto


def _expression(node: NodeProto, tape: Tape, known: Known) -> Sequence[Term] | None:
    """A node's body written on the tape, its results under the names that the node gave them."""
    opens = BODIES.get((domain_of(node), node.op_type))
    if opens is None or (domain_of(node), node.op_type) in RULES:
        return None
    none = (None,) * len(node.output)
    try:
        found = opens(Back(tape, node, known, none, (False,) * len(node.input)))
    except NoGradientError as error:
        known.refused[node.output[0]] = str(error)
        return None
    if found is None:
        return None
    for name, term in zip(node.output, found, strict=False):
        if name:
            tape.nodes.append(helper.make_node("Identity", [term.name], [name], tape.fresh(f"{name}_node")))
    return found


def _names(model: ModelProto) -> set[str]:
    graph = model.graph
    names = {n for node in graph.node for n in (*node.input, *node.output, node.name)}
    return names | {t.name for t in graph.initializer} | {v.name for v in (*graph.input, *graph.output)}
