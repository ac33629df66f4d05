"""RNN, GRU and LSTM.

Everything that does not wait for the step before is done for all steps at once: what inputs and, as all hidden states
are known, these add to the gates, and in the end the gradients of weights, which are products over steps and samples
together. What is left for a Scan is the cell, whose backward is the walk over the cell's own expression, and one
product of gradients with the recurrent weights. An LSTM's cell states, which it does not tell, are had by one more
Scan, of element-wise steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto, helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.expansion import body
from graphprune.gradients.known import Known, infer
from graphprune.gradients.rules.cells import Cell, parted
from graphprune.gradients.rules.control import declared, returned, why
from graphprune.gradients.table import Back, Gradient, rule
from graphprune.gradients.terms import BOOL, INT, Dim, Dims, Tape, Term
from graphprune.gradients.walk import needed, reads, reverse

_END = 2**31 - 1


@body("RNN", "GRU", "LSTM")
def _as_ruled(b: Back) -> Sequence[Term] | None:
    """Steps first, samples second, and all hidden states told, as the gradient needs them."""
    batched = bool(b.attr("layout", 0))
    if not batched and b.node.output[0]:
        return None
    given: list[Term | None] = []
    for i, x in enumerate(b.raw):
        given.append((x.transpose([1, 0, 2]) if batched and i in (0, 5, 6) else x) if b.has(i) else None)
    kinds = [b.raw[0].kind] * (3 if b.node.op_type == "LSTM" else 2)
    found = b.tape.ops(b.node.op_type, *given, kinds=kinds, **{**b.attributes, "layout": None})
    if not batched:
        return found
    return [found[0].transpose([2, 0, 1, 3]), *(y.transpose([1, 0, 2]) for y in found[1:])]


@rule("RNN", "GRU", "LSTM")
def _recurrent(b: Back) -> Sequence[Gradient]:
    if b.attr("clip"):
        raise NoGradientError("its cells are clipped")
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[b.attr("direction", "forward")]
    parts = [_Direction(b, which, backwards).gradients() for which, backwards in enumerate(ways)]
    results: list[Gradient] = []
    for i in range(len(b.node.input)):
        found = [part[i] for part in parts if i in part]
        if not found:
            results.append(None)
        else:
            results.append(b.tape.total(found) if i == 0 else b.tape.join([term.unsqueeze([0]) for term in found]))
    return results


def _sized(term: Term, dims: Dims | None) -> Term:
    return Term(term.tape, term.name, term.kind, dims)


class _Direction:
    """One direction of a node: its own weights, and tensors of all its steps (first axis) and samples (second)."""

    def __init__(self, b: Back, which: int, backwards: bool) -> None:
        self.b, self.which, self.backwards = b, which, backwards
        self.cell = Cell.of(b, which)
        self.kind = b.x[0].kind
        self.steps, self.samples, self.features = b.x[0].dims or (None, None, None)
        hidden = b.attr("hidden_size") or (b.x[2].dims or (None,))[-1]
        if not isinstance(hidden, int):
            raise NoGradientError("its hidden size is not known")
        self.hidden = hidden
        self.states: Dims = (self.samples, hidden)
        self.input_weights, self.weights = self._own(1, self.features), self._own(2, self.hidden)
        self.y = _sized(b.y[0].take(which, 1), (self.steps, *self.states))
        self.valid = self._valid() if b.has(4) else None
        self.begun = {"h": self._begun(5), **({"c": self._begun(6)} if self.cell.op == "LSTM" else {})}
        self.before = self._before()
        self.once: dict[str, Term] = {}
        """Weights that the cell reads."""
        self.each = self._gates()
        """What the cell reads of each step."""
        if "c" in self.begun:
            self.each["c"] = self._cells()

    def _own(self, i: int, last: Dim) -> Term:
        """This direction's part of weights."""
        dims = self.b.x[i].dims
        return _sized(self.b.x[i].take(self.which), (*dims[1:-1], last) if dims else (None, last))

    def _begun(self, i: int) -> Term:
        """A state before the first step."""
        if self.b.has(i):
            return _sized(self.b.x[i].take(self.which), self.states)
        return _sized(self.y.take(0), self.states).zeros()

    def _valid(self) -> Term:
        """Whether a step is within the length of a sample: steps, samples, one."""
        tape = self.b.tape
        count = self.b.x[0].size(0).reshape([])
        numbers = tape.op("Range", tape.constant(0), count, tape.constant(1), kind=INT, dims=(self.steps,))
        lengths = _sized(self.b.raw[4], (self.samples,)).cast(INT)
        return numbers.unsqueeze([1, 2]) < lengths.unsqueeze([1])

    def _before(self) -> Term:
        """The hidden state before each step."""
        tape, first = self.b.tape, self.begun["h"].unsqueeze([0])
        if not self.backwards:
            found = tape.join([first, self.y.cut(0, -1, 0)])
        elif self.valid is None:
            found = tape.join([self.y.cut(1, _END, 0), first])
        else:  # a sample begins at its own last step
            pads = tape.constant([0, 0, 0, 1, 0, 0])
            later = tape.op("Pad", self.valid.cast(INT).cut(1, _END, 0), pads).cast(BOOL)
            found = tape.op("Where", later, tape.op("Pad", self.y.cut(1, _END, 0), pads), first, kind=self.kind)
        return _sized(found, self.y.dims)

    def _gates(self) -> dict[str, Term]:
        b, cell, hidden = self.b, self.cell, self.hidden
        if cell.early:
            sizes = b.tape.constant([2 * hidden, hidden])
            self.weights, last = b.tape.ops(
                "Split",
                self.weights,
                sizes,
                kinds=[None, None],
                dims=[(2 * hidden, hidden), (hidden, hidden)],
                axis=0,
            )
            self.once["R"] = last.transpose([1, 0])
        if b.has(7):
            self.once.update(
                zip(("p0", "p1", "p2"), (_sized(p, (hidden,)) for p in parted(b.x[7].take(self.which), 3)), strict=True)
            )
        x = b.x[0] @ self.input_weights.transpose([1, 0])
        r = self.before @ self.weights.transpose([1, 0])
        if b.has(3):
            ours, theirs = parted(b.x[3].take(self.which), 2)
            x, r = (x + ours, r + theirs) if cell.op == "GRU" and cell.late else (x + (ours + theirs), r)
        if cell.op != "GRU":
            return {"x": self._of_gates(x + r, 4 if cell.op == "LSTM" else 1)}
        return {"x": self._of_gates(x, 3), "r": self._of_gates(r, 2 if cell.early else 3), "h": self.before}

    def _of_gates(self, term: Term, count: int) -> Term:
        return _sized(term, (self.steps, self.samples, count * self.hidden))

    def _step(self, inner: Tape) -> dict[str, Term]:
        """What the cell reads, as inputs of a body."""
        terms = {n: Term(inner, inner.fresh(f"step_{n}"), t.kind, (t.dims or ())[1:]) for n, t in self.each.items()}
        if self.valid is not None:
            terms["valid"] = Term(inner, inner.fresh("step_valid"), BOOL, (self.samples, 1))
        return terms

    def _scan(
        self,
        nodes: Sequence[NodeProto],
        held: Mapping[str, Term],
        begun: Sequence[Term],
        each: Mapping[str, Term],
        ends: Sequence[Term],
        backwards: bool,
    ) -> tuple[Term, ...]:
        """A Scan over steps.

        Args:
            nodes: of its body.
            held: states in the body, by name.
            begun: states before the first step.
            each: what the body reads of each step: by its name in the body, the tensor of all steps.
            ends: what the body returns, states first.
            backwards: the last step is the first.
        """
        kept = needed(nodes, [t.name for t in ends])
        read = {name for node in kept for name in reads(node)}
        used = {name: term for name, term in each.items() if name in read}
        values = [*declared(held.values())]
        values += [helper.make_tensor_value_info(n, t.kind, (t.dims or ())[1:]) for n, t in used.items()]
        graph = helper.make_graph(kept, self.b.tape.fresh("step"), values, declared(ends))
        return self.b.tape.ops(
            "Scan",
            *begun,
            *used.values(),
            kinds=[t.kind for t in ends],
            dims=[t.dims if k < len(begun) else (self.steps, *(t.dims or ())) for k, t in enumerate(ends)],
            body=graph,
            num_scan_inputs=len(used),
            scan_input_directions=[int(backwards)] * len(used),
            scan_output_directions=[int(backwards)] * (len(ends) - len(begun)) or None,
        )

    def _cells(self) -> Term:
        """The cell state before each step."""
        inner = self.b.tape.inner()
        at = self._step(inner)
        c = Term(inner, inner.fresh("step_c"), self.kind, self.states)
        new = self.cell.run({**at, **self._weights(inner), "c": c})["c"]
        ends = returned(inner, [at["valid"].where(new, c) if self.valid is not None else new, c])
        ends = [_sized(t, self.states) for t in ends]
        return self._scan(inner.nodes, {"c": c}, [self.begun["c"]], self._outside(at), ends, self.backwards)[1]

    def _weights(self, inner: Tape) -> dict[str, Term]:
        return {name: term.on(inner) for name, term in self.once.items()}

    def _outside(self, at: Mapping[str, Term]) -> dict[str, Term]:
        held = {**self.each, **({"valid": self.valid} if self.valid is not None else {})}
        return {term.name: held[name] for name, term in at.items()}

    def _known(self, nodes: Sequence[NodeProto], terms: Sequence[Term], inner: Tape) -> Known:
        """What is known of the tensors of a step."""
        proto = ModelProto(ir_version=10)
        proto.opset_import.append(helper.make_opsetid("", self.b.known.opset))
        proto.graph.CopyFrom(helper.make_graph(nodes, "step", declared(terms), []))
        read = {name for node in nodes for name in node.input}
        proto.graph.initializer.extend(t for t in inner.constants.values() if t.name in read)
        return infer(proto)

    def _walk(self) -> dict[str, Term]:
        """Gradients of the first states, and of what the cell reads, by name; ``kept`` is what a reset kept."""
        b, inner = self.b, self.b.tape.inner()
        at, once = self._step(inner), self._weights(inner)
        made = self.cell.run({**at, **once})
        nodes = list(inner.nodes)
        known = self._known(nodes, [*at.values(), *once.values()], inner)
        inner.nodes.clear()
        held = {n: Term(inner, inner.fresh(f"step_d{n}"), self.kind, self.states) for n in self.begun}
        each = self._outside(at)
        tops = dict(held)
        if b.g[0] is not None:
            above = Term(inner, inner.fresh("step_dy"), self.kind, self.states)
            each[above.name] = _sized(b.g[0].take(self.which, 1), self.y.dims)
            tops["h"] = tops["h"] + above
        valid = at.get("valid")
        seeds = {made[n].name: valid.where(top, 0) if valid is not None else top for n, top in tops.items()}
        asked = {n: t.name for n, t in {**at, **(once if b.needs(7) else {})}.items() if n not in ("R", "valid")}
        found = reverse(nodes, known, inner, seeds, asked.values())
        for blame in found.stopped.values():
            raise NoGradientError(why(blame))
        grads = {n: found.gradients[name] for n, name in asked.items() if name in found.gradients}
        back = {n: [grads[n]] if n in grads else [] for n in held}
        back["h"].append(grads["r" if self.cell.op == "GRU" else "x"] @ self.weights.on(inner))
        for n, term in held.items():
            if valid is not None:
                back[n].append(valid.where(0, term))
        given: dict[str, Term] = {n: grads[n] for n in ("x", "r", "p0", "p1", "p2") if n in grads}
        if self.cell.early and b.needs(2):
            given["kept"] = made["kept"]
        ends = returned(inner, [*(inner.total(terms) for terms in back.values()), *given.values()])
        sizes = [self.states] * len(held) + [known.dims.get(asked.get(n, ""), self.states) for n in given]
        ends = [_sized(t, d) for t, d in zip(ends, sizes, strict=True)]
        results = self._scan([*nodes, *inner.nodes], held, self._above(), each, ends, not self.backwards)
        return dict(zip([*(f"{n}0" for n in held), *given], results, strict=True))

    def _above(self) -> list[Term]:
        """Gradients of the last states."""
        found = []
        for k, state in enumerate(self.begun.values(), 1):
            g = self.b.g[k] if k < len(self.b.g) else None
            found.append(_sized(g.take(self.which), self.states) if g is not None else state.zeros())
        return found

    def gradients(self) -> dict[int, Term]:
        """Gradients of the inputs of the node, of weights those of this direction."""
        b, cell, d = self.b, self.cell, self._walk()
        x, r = d["x"], d.get("r", d["x"])
        results: dict[int, Term] = {}
        if b.needs(0):
            results[0] = x @ self.input_weights
        if b.needs(1):
            results[1] = _product(x, b.x[0])
        if b.needs(2):
            results[2] = _product(r, self.before)
            if cell.early:
                last = x.cut(-self.hidden, _END, -1)
                results[2] = b.tape.join([results[2], _product(last, d["kept"])])
        if b.needs(3):
            ours = x.sum([0, 1], keep=False)
            theirs = r.sum([0, 1], keep=False) if cell.op == "GRU" and cell.late else ours
            results[3] = b.tape.join([ours, theirs])
        for i, name in ((5, "h0"), (6, "c0")):
            if b.needs(i):
                results[i] = d[name]
        if b.needs(7):
            parts = [d[p].sum([0], keep=False) if p in d else self.once[p].zeros() for p in ("p0", "p1", "p2")]
            results[7] = b.tape.join(parts)
        return results


def _product(one: Term, two: Term) -> Term:
    """Of two tensors whose last axes are features: the product over all others."""
    tape = one.tape
    rows = [t.reshape(tape.join([tape.constant([-1]), t.size(-1)])) for t in (one, two)]
    return tape.op("Gemm", *rows, transA=1)
