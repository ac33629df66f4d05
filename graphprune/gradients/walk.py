"""Reverse mode over a list of nodes; knows no operator.

Griewank and Walther, Evaluating Derivatives (2008), chapter 3: each node adds to the gradients of its inputs what its
rule makes of the gradients of its outputs, the last node first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import NodeProto, TensorProto

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.known import Known
from graphprune.gradients.table import FLAT, GRADIENT, RULES, STEEP, Back, Barred, domain_of
from graphprune.gradients.terms import Tape, Term
from graphprune.model.bodies import free_names, subgraphs

_COUNTING = {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING}
"""Types that carry no gradient; smaller integers may stand for quantised floats."""


@dataclass(frozen=True)
class Blame:
    """Where a gradient stops, and why."""

    node: NodeProto
    reason: str


@dataclass
class Reverse:
    """What the walk found.

    Attributes:
        gradients: of each tensor asked for that reaches a seed.
        stopped: for each tensor asked for whose gradient is not all there, where it stops first.
    """

    gradients: dict[str, Term] = field(default_factory=dict)
    stopped: dict[str, Blame] = field(default_factory=dict)


def reverse(
    nodes: Sequence[NodeProto], known: Known, tape: Tape, seeds: Mapping[str, Term], wrt: Iterable[str]
) -> Reverse:
    """Gradients of tensors, given those of others.

    Args:
        nodes: in an order in which they can run.
        known: of their tensors.
        tape: where the backward is written.
        seeds: gradients of tensors that the nodes make.
        wrt: tensors whose gradients are asked for.
    """
    wanted = dict.fromkeys(wrt)
    active = depending(nodes, known, wanted)
    parts: dict[str, list[Term]] = {name: [term] for name, term in seeds.items()}
    stopped: dict[str, Blame] = {}
    for node in reversed(nodes):
        captured = captures(node)
        read = reads(node)
        needs = tuple(name in active for name in read)
        blame = next((stopped[o] for o in node.output if o in stopped), None)
        if not any(needs) or (blame is None and not any(o in parts for o in node.output)):
            continue
        parts.update((o, [tape.total(parts[o])]) for o in node.output if o in parts)
        grads = tuple(parts[o][0] if o in parts else None for o in node.output)
        if blame is None:
            blame = _apply(Back(tape, node, known, grads, needs, captured), parts, stopped)
        if blame is not None:
            for name in (n for n in read if n in active):
                stopped.setdefault(name, blame)
    found = {name: tape.total(parts[name]) for name in wanted if name in parts and name not in stopped}
    return Reverse(found, {name: stopped[name] for name in wanted if name in stopped})


def _apply(back: Back, parts: dict[str, list[Term]], stopped: dict[str, Blame]) -> Blame | None:
    """Add what a node's rule gives; why it gives nothing, where it cannot."""
    node = back.node
    rule = RULES.get((domain_of(node), node.op_type))
    if rule is None:
        return Blame(node, back.known.refused.get(node.output[0], "the operator has no rule"))
    try:
        grads = rule(back)
    except NoGradientError as error:
        return Blame(node, str(error))
    for name, grad, needs in zip((*node.input, *back.captured), grads, back.wanted, strict=False):
        if needs and isinstance(grad, Barred):
            stopped.setdefault(name, Blame(node, grad.reason))
        elif needs and grad is not None:
            assert isinstance(grad, Term)
            parts.setdefault(name, []).append(_known_as(grad, name, back.known))
    return None


def _known_as(grad: Term, name: str, known: Known) -> Term:
    """A gradient, which has the dimensions of its tensor."""
    return Term(grad.tape, grad.name, grad.kind, known.dims.get(name, grad.dims))


def captures(node: NodeProto) -> tuple[str, ...]:
    """What the bodies of a node read from outside."""
    return tuple(sorted({name for graph in subgraphs(node) for name in free_names(graph)}))


def depending(nodes: Sequence[NodeProto], known: Known, wanted: Iterable[str]) -> set[str]:
    """Tensors that depend on those asked for in a way that a gradient can take."""
    active = set(wanted)
    for node in nodes:
        if node.op_type in FLAT.get(domain_of(node), ()):
            continue
        if not any(name in active for name in reads(node)):
            continue
        active.update(o for o in node.output if o and known.kinds.get(o) not in _COUNTING)
    return active


def steep(nodes: Iterable[NodeProto], known: Known) -> bool:
    """Whether gradients may be infinite behind some node, those of bodies included."""
    for node in nodes:
        second = known.value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        if node.op_type in STEEP and STEEP[node.op_type](second):
            return True
        if any(steep(graph.node, known) for graph in subgraphs(node)):
            return True
    return False


def needed(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """Nodes that some tensors depend on, in their order."""
    kept: list[NodeProto] = []
    alive = set(wanted)
    for node in reversed(nodes):
        if any(o in alive for o in node.output if o):
            kept.append(node)
            alive.update(reads(node))
    return kept[::-1]


def reads(node: NodeProto) -> tuple[str, ...]:
    """What a node reads, its bodies included."""
    return (*node.input, *captures(node))


def zeros(tape: Tape, name: str, known: Known) -> Term:
    """The gradient of a tensor that nothing depends on."""
    return Term(tape, name, gradient_kind(known.kinds[name]), known.dims.get(name)).zeros()


def gradient_kind(kind: int) -> int:
    """The type of the gradient of a tensor of this type."""
    return GRADIENT.get(kind, TensorProto.FLOAT)
