"""Control flow: the gradient of a node that holds bodies is a node whose bodies walk these in reverse.

An If becomes an If, each branch of which computes the forward branch again and walks it. A Scan becomes a Scan in the
other direction, over the states that the forward one went through; gradients of states are carried, those of what the
body captures add up on the way. A Loop of which it is known how it ends is unrolled or becomes a Scan before
(``graphprune.gradients.rules.loops``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.known import Known
from graphprune.gradients.table import Back, Barred, Gradient, rule
from graphprune.gradients.terms import Tape, Term
from graphprune.gradients.walk import Blame, Reverse, depending, gradient_kind, needed, reads, reverse, zeros


def graph_of(node: NodeProto, name: str) -> GraphProto:
    """A body of a node."""
    return next(a.g for a in node.attribute if a.name == name and a.type == AttributeProto.GRAPH)


def declared(terms: Iterable[Term]) -> list[ValueInfoProto]:
    """Terms as inputs or outputs of a body."""
    return [helper.make_tensor_value_info(t.name, t.kind, t.dims) for t in terms]


def returned(tape: Tape, terms: Iterable[Term]) -> list[Term]:
    """Terms as outputs of the body on a tape, each under a name of its own."""
    return [Term(tape, tape.op("Identity", t).name, t.kind, t.dims) for t in terms]


def why(blame: Blame) -> str:
    """A stop within a body, told at the node that holds it."""
    node = blame.node
    return f"in its body, {node.op_type} node {node.name or next((o for o in node.output if o), '')!r}: {blame.reason}"


@rule("If")
def _if(b: Back) -> Sequence[Gradient]:
    names = [name for i, name in enumerate(b.captured, len(b.node.input)) if b.needs(i)]
    walked = {a.name: _branch(b, a.g, names) for a in b.node.attribute if a.type == AttributeProto.GRAPH}
    barred = {n: Barred(why(blame)) for _, _, found in walked.values() for n, blame in found.stopped.items()}
    told = [n for n in names if n not in barred and any(n in found.gradients for _, _, found in walked.values())]
    results: dict[str, Gradient] = {**barred}
    if told:
        graphs: dict[str, Any] = {name: _ended(b.known, told, *parts) for name, parts in walked.items()}
        kinds = [gradient_kind(b.known.kinds[n]) for n in told]
        results.update(zip(told, b.tape.ops("If", b.raw[0], kinds=kinds, **graphs), strict=True))
    return [None, *(results.get(name) for name in b.captured)]


def _branch(b: Back, graph: GraphProto, names: Sequence[str]) -> tuple[GraphProto, Tape, Reverse]:
    inner = b.tape.inner()
    seeds = _seeds(b, inner, ((o.name, g) for o, g in zip(graph.output, b.g, strict=True) if g is not None))
    return graph, inner, reverse(graph.node, b.known, inner, seeds, names)


def _seeds(b: Back, inner: Tape, pairs: Iterable[tuple[str, Term]]) -> dict[str, Term]:
    """Gradients of outputs of a body, which may name a tensor twice."""
    parts: dict[str, list[Term]] = {}
    for name, g in pairs:
        parts.setdefault(name, []).append(Term(inner, g.name, g.kind, b.known.dims.get(name)))
    return {name: inner.total(terms) for name, terms in parts.items()}


def _ended(known: Known, told: Sequence[str], graph: GraphProto, inner: Tape, found: Reverse) -> GraphProto:
    """A branch that returns gradients, zeros where it does not read a tensor."""
    ends = returned(inner, [found.gradients.get(n) or zeros(inner, n, known) for n in told])
    nodes = needed([*graph.node, *inner.nodes], [t.name for t in ends])
    return helper.make_graph(nodes, inner.fresh(f"vjp of {graph.name}"), [], declared(ends))


@dataclass
class Scanned:
    """A Scan by the parts of its inputs and outputs.

    Attributes:
        body: what runs at each step.
        states: how many states it carries; they are the first inputs and outputs of node and body.
        axes: of each scanned input and output, by which of both.
        directions: whether each runs backwards.
    """

    body: GraphProto
    states: int
    axes: tuple[list[int], list[int]]
    directions: tuple[list[int], list[int]]

    @classmethod
    def of(cls, b: Back) -> Scanned:
        """The parts of a Scan."""
        body = graph_of(b.node, "body")
        scanned = b.attr("num_scan_inputs")
        states = len(body.input) - scanned
        counts = {"input": scanned, "output": len(body.output) - states}

        def each(what: str) -> tuple[list[int], list[int]]:
            one, two = (list(b.attr(f"scan_{side}_{what}") or [0] * count) for side, count in counts.items())
            return one, two

        return cls(body, states, each("axes"), each("directions"))

    def recorded(self) -> bool:
        """Whether its last outputs are the states that each step began with."""
        by = {n.output[0]: n.input[0] for n in self.body.node if n.op_type == "Identity"}
        n, outputs = self.states, list(self.body.output)
        plain = not any(self.axes[1][len(self.axes[1]) - n :]) and not any(
            self.directions[1][len(self.directions[1]) - n :]
        )
        names = [i.name for i in self.body.input[:n]]
        return n == 0 or (len(outputs) >= 2 * n and plain and [by.get(o.name) for o in outputs[-n:]] == names)


@rule("Scan")
def _scan(b: Back) -> Sequence[Gradient]:
    s, known = Scanned.of(b), b.known
    if not s.recorded():
        raise NoGradientError("the states that it goes through are not known")
    entered = [i.name for i in s.body.input]
    made = [o.name for o in s.body.output]
    captured = {name for i, name in enumerate(b.captured, len(b.node.input)) if b.needs(i)}
    wanted = _carried(b, s, captured | {name for i, name in enumerate(entered) if b.needs(i)})
    inner = b.tape.inner()
    carried = {i: _fresh(inner, entered[i], known) for i in range(s.states) if entered[i] in wanted}
    above = {k: _fresh(inner, made[k], known) for k in range(s.states, len(made)) if b.g[k] is not None}
    seeds = _seeds(b, inner, ((made[k], term) for k, term in {**carried, **above}.items()))
    found = reverse(s.body.node, known, inner, seeds, wanted)
    for i in carried:
        if entered[i] in found.stopped:
            raise NoGradientError(why(found.stopped[entered[i]]))
    sums = {n: _fresh(inner, n, known) for n in sorted(captured & found.gradients.keys())}
    slices = [i for i in range(s.states, len(entered)) if b.needs(i) and entered[i] in found.gradients]
    ends = returned(
        inner,
        [
            *(found.gradients.get(entered[i]) or zeros(inner, entered[i], known) for i in carried),
            *(total + found.gradients[n] for n, total in sums.items()),
            *(found.gradients[entered[i]] for i in slices),
        ],
    )
    parts = _scan_back(b, s, inner, carried, above, sums, slices, ends)
    firsts: dict[str, Gradient] = {entered[i]: part for i, part in zip(carried, parts, strict=False)}
    firsts.update(zip([*sums, *(entered[i] for i in slices)], parts[len(carried) :], strict=True))
    firsts.update((n, Barred(why(blame))) for n, blame in found.stopped.items())
    return [firsts.get(name) for name in (*entered, *b.captured)]


def _fresh(tape: Tape, name: str, known: Known) -> Term:
    """An input of a body that stands for the gradient of a tensor."""
    return Term(tape, tape.fresh(f"{name}_gradient"), gradient_kind(known.kinds[name]), known.dims.get(name))


def _carried(b: Back, s: Scanned, wanted: set[str]) -> set[str]:
    """Tensors of a body whose gradients are asked for, and states that depend on them in some later step."""
    while True:
        reached = depending(s.body.node, b.known, wanted)
        pairs = zip(s.body.input[: s.states], s.body.output[: s.states], strict=True)
        more = wanted | {i.name for i, o in pairs if o.name in reached}
        if more == wanted:
            return wanted
        wanted = more


def _scan_back(
    b: Back,
    s: Scanned,
    inner: Tape,
    carried: Mapping[int, Term],
    above: Mapping[int, Term],
    sums: Mapping[str, Term],
    slices: Sequence[int],
    ends: Sequence[Term],
) -> Sequence[Term]:
    """The Scan in the other direction; its outputs in the order of ``ends``."""
    tape, n = b.tape, s.states
    nodes = needed([*s.body.node, *inner.nodes], [t.name for t in ends])
    read = {name for node in nodes for name in reads(node)}
    inputs: list[tuple[str, str, int, int]] = []  # in the body, outside, axis, direction
    for i, value in enumerate(s.body.input):
        if value.name in read or (i == n and not above and not inputs):  # one at least tells how many steps there are
            recorded = (b.node.output[len(b.node.output) - n + i], 0, 0) if i < n else None
            source = recorded or (b.node.input[i], s.axes[0][i - n], s.directions[0][i - n])
            inputs.append((value.name, *source))
    kinds = {**b.known.kinds, **{t.name: t.kind for t in above.values()}}
    dims = {**b.known.dims, **{t.name: t.dims for t in above.values()}}
    for k, term in above.items():
        g = b.g[k]
        assert g is not None
        inputs.append((term.name, g.name, s.axes[1][k - n], s.directions[1][k - n]))
    states = [*carried.values(), *sums.values()]
    values = [*declared(states), *(helper.make_tensor_value_info(i[0], kinds[i[0]], dims.get(i[0])) for i in inputs)]
    graph = helper.make_graph(nodes, inner.fresh(f"vjp of {s.body.name}"), values, declared(ends))
    begun = [g if (g := b.g[i]) is not None else zeros(tape, b.node.output[i], b.known) for i in carried]
    begun += [zeros(tape, name, b.known) for name in sums]
    return tape.ops(
        "Scan",
        *begun,
        *(Term(tape, outside, 0) for _, outside, _, _ in inputs),
        kinds=[t.kind for t in ends],
        body=graph,
        num_scan_inputs=len(inputs),
        scan_input_axes=[axis for _, _, axis, _ in inputs],
        scan_input_directions=[1 - direction for *_, direction in inputs],
        scan_output_axes=[s.axes[0][i - n] for i in slices] or None,
        scan_output_directions=[1 - s.directions[0][i - n] for i in slices] or None,
    )


@rule("Loop")
def _loop(b: Back) -> Sequence[Gradient]:
    raise NoGradientError("how often it runs is not known, or its states change their shapes on the way")
