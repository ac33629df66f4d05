"""The table of rules, and what a rule sees of its node.

A rule takes a :class:`Back` and gives, for each input of the node and behind these for each tensor that its bodies
capture, the gradient of that tensor: None where it is zero or
was not asked for, a :class:`Barred` where it exists but cannot be told. It raises ``NoGradientError`` where the node
cannot be differentiated at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from onnx import NodeProto, TensorProto, helper

from graphprune.gradients.errors import NoGradientError
from graphprune.gradients.known import Known
from graphprune.gradients.terms import Array, Tape, Term

GRADIENT: dict[int, int] = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.BFLOAT16: TensorProto.FLOAT,
    TensorProto.FLOAT: TensorProto.FLOAT,
    TensorProto.DOUBLE: TensorProto.DOUBLE,
}
"""Type in which the gradient of a float tensor is computed and given: half precision accumulates in single."""


INTEGERS = frozenset(
    getattr(TensorProto, name)
    for name in [
        "BOOL",
        "INT8",
        "UINT8",
        "INT16",
        "UINT16",
        "INT32",
        "UINT32",
        "INT64",
        "UINT64",
        "INT4",
        "UINT4",
        "INT2",
        "UINT2",
    ]
    if hasattr(TensorProto, name)
)
"""Types of whole numbers."""

_STEEP = """
    Acos Acosh Asin Atanh GlobalLpPool IsInf IsNaN Log LpNormalization LpPool Reciprocal ReduceL2 ReduceLogSum
    ReduceLogSumExp Sqrt Tan
"""
STEEP: dict[str, Callable[[Array | None], bool]] = {
    **dict.fromkeys(_STEEP.split(), lambda value: True),
    "Div": lambda value: value is None or not value.all(),
    "Pow": lambda value: value is None or bool((value < 1).any()),
}
"""Operators whose derivative has no bound, by the value of their second input, where it is a small constant; those too
that tell of a model in which numbers are infinite."""


@dataclass(frozen=True)
class Barred:
    """In place of a gradient: it exists, and no rule tells it.

    Attributes:
        reason: why not.
    """

    reason: str


Gradient: TypeAlias = "Term | Barred | None"
Rule = Callable[["Back"], Sequence[Gradient]]

RULES: dict[tuple[str, str], Rule] = {}
"""By domain (ONNX's own is "") and operator."""
FLAT: dict[str, set[str]] = {"": set()}
"""By domain, operators whose derivative is zero wherever it exists: they count, compare, round or make constants."""


@dataclass
class Back:
    """A node whose outputs have gradients.

    Attributes:
        tape: where its backward is written.
        node: the node.
        known: of the graph that it is in.
        g: gradient of each output, None where it has none.
        wanted: for each input, and behind these for each tensor that its bodies capture, whether its gradient is asked
            for.
        captured: what its bodies read from outside.
    """

    tape: Tape
    node: NodeProto
    known: Known
    g: tuple[Term | None, ...]
    wanted: tuple[bool, ...]
    captured: tuple[str, ...] = ()

    @cached_property
    def x(self) -> tuple[Term, ...]:
        """Inputs, floats in the type of gradients; one that is left out has an empty name."""
        return tuple(self._term(name) for name in self.node.input)

    @cached_property
    def y(self) -> tuple[Term, ...]:
        """Outputs, as inputs."""
        return tuple(self._term(name) for name in self.node.output)

    @cached_property
    def raw(self) -> tuple[Term, ...]:
        """Inputs in their own types."""
        return tuple(self._raw(name) for name in self.node.input)

    @cached_property
    def g0(self) -> Term:
        """Gradient of the first output; zeros where only others have one."""
        return self.g[0] if self.g[0] is not None else self.y[0].zeros(GRADIENT.get(self.y[0].kind, TensorProto.FLOAT))

    def term(self, name: str) -> Term:
        """A tensor that the node's bodies capture, as inputs are given."""
        return self._term(name)

    def has(self, i: int) -> bool:
        """Whether an input is there."""
        return i < len(self.node.input) and bool(self.node.input[i])

    def needs(self, i: int) -> bool:
        """Whether an input's gradient is asked for."""
        return i < len(self.wanted) and self.wanted[i]

    def raw_output(self, i: int) -> Term | None:
        """An output in its own type, None where it is left out."""
        name = self.node.output[i] if i < len(self.node.output) else ""
        return self._raw(name) if name else None

    def value(self, i: int) -> Array | None:
        """Value of an input that is a small constant."""
        return self.known.value(self.node.input[i]) if self.has(i) else None

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes by name."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, text decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def _raw(self, name: str) -> Term:
        kind = self.known.kinds.get(name, TensorProto.FLOAT)
        return Term(self.tape, name, kind, self.known.dims.get(name), self.known.value(name))

    def _term(self, name: str) -> Term:
        term = self._raw(name)
        return term.cast(GRADIENT.get(term.kind, term.kind)) if name else term


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Enter a rule for these operators."""

    def enter(function: Rule) -> Rule:
        for op in ops:
            assert (domain, op) not in RULES, op
            RULES[domain, op] = function
        return function

    return enter


def pointwise(table: Mapping[str, Callable[..., Term | Sequence[Term | None]]], domain: str = "") -> None:
    """Enter operators that work element by element, with broadcasting.

    Args:
        table: by operator, the gradients of its inputs, each in the shape of the output: a function of the gradient of
            the output, the inputs, and the output. What was broadcast is summed back here.
        domain: of the operators.
    """
    for op, derivative in table.items():
        rule(op, domain=domain)(_summed(derivative))


def _summed(derivative: Callable[..., Term | Sequence[Term | None]]) -> Rule:
    def back(b: Back) -> Sequence[Gradient]:
        found = derivative(b.g0, *b.x, b.y[0])
        parts = [found] if isinstance(found, Term) else found
        needed = [p if b.needs(i) else None for i, p in enumerate(parts)]
        return [p.sum_to(x) if p is not None else None for p, x in zip(needed, b.x, strict=False)]

    return back


def flat(text: str, domain: str = "") -> None:
    """Enter operators whose derivative is zero wherever it exists."""
    FLAT.setdefault(domain, set()).update(text.split())


def stops(reason: str, text: str, domain: str = "") -> None:
    """Enter operators that stop gradients, and why."""

    def back(b: Back) -> Sequence[Gradient]:
        raise NoGradientError(reason)

    rule(*text.split(), domain=domain)(back)


def domain_of(node: NodeProto) -> str:
    """A node's domain, ONNX's own as ""."""
    return "" if node.domain == "ai.onnx" else node.domain
