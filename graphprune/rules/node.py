"""What a rule gets to see of a node, and how a rule says no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphprune.relation import Relation, Shape, Values


class Unruled(Exception):
    """A rule's answer that nothing can be said about this node; the message is the reason."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node at the witness shape.

    Attributes:
        op, domain, opset: operator type, its domain ("" is ONNX's own) and the version of that domain.
        attributes: decoded attribute values.
        inputs, outputs: shapes; None for an absent input or an unused output, and where the shape is not known.
        values: for each input the value, where it is small and computed without weights or model inputs' contents.
        static: for each value, which of its entries are the same at every size of the inputs.
        unknown: which tensor is there, but has no known shape, in words; the first one, where there is any.
        counted: for each input whose values are positions along a dim, the size of that dim; 0 for all others.
    """

    op: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    values: tuple[Values | None, ...]
    static: tuple[Values | None, ...] = ()
    unknown: str = ""
    counted: tuple[int, ...] = ()

    def shape(self, index: int) -> Shape:
        """Shape of an input that must be there."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        if shape is None:
            raise Unruled(f"input {index} has no known shape")
        return shape

    def out(self, index: int = 0) -> Shape:
        """Shape of an output that must be there."""
        shape = self.outputs[index] if index < len(self.outputs) else None
        if shape is None:
            raise Unruled(f"output {index} has no known shape")
        return shape

    def has(self, index: int) -> bool:
        """Whether the input is present."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Values | None:
        """Value of an operand, None where it is absent, not known, or depends on the sizes of the inputs."""
        if index >= len(self.values) or not np.all(self.fixed(index)):
            return None
        return self.values[index]

    def fixed(self, index: int) -> Values:
        """Which entries of a known value are the same at every size of the inputs."""
        known = self.static[index] if index < len(self.static) else None
        return np.asarray(True) if known is None else known

    def operand(self, index: int, attribute: str, moving: bool = False) -> Values | None:
        """An operand that is an attribute in older versions of the operator and an input in newer ones.

        Args:
            index: the input.
            attribute: the attribute.
            moving: whether a value that depends on the sizes of the inputs will do, as it is at the witness.

        Raises:
            Unruled: it is an input whose value is not known.
        """
        if attribute in self.attributes:
            return np.asarray(self.attributes[attribute], dtype=np.int64)
        if not self.has(index):
            return None
        value = self.values[index] if moving and index < len(self.values) else self.value(index)
        if value is None:
            raise Unruled(f"its {attribute} (input {index}) are computed from the data")
        return value

    def counts(self, index: int, size: int) -> bool:
        """Whether the values of an input are positions along a dim of this size, which a node before it chose."""
        return index < len(self.counted) and self.counted[index] == size > 1

    def followed(self, index: int, what: str) -> None:
        """Say no where an operand is there but its value is not known, so that it could not follow.

        Raises:
            Unruled: the operand is computed from the data.
        """
        if self.has(index) and (index >= len(self.values) or self.values[index] is None):
            raise Unruled(f"its {what} (input {index}) is computed from the data")

    def several(self) -> bool:
        """Whether more than the first output is used."""
        return any(shape is not None for shape in self.outputs[1:])

    def integer(self, name: str) -> int:
        """An integer attribute that must be there."""
        if name not in self.attributes:
            raise Unruled(f"its attribute {name!r} is missing")
        return int(self.attributes[name])

    def axis(self, default: int | None = None, rank: int | None = None, name: str = "axis") -> int:
        """The axis attribute, counted from the front."""
        axis = self.attributes.get(name, default)
        if axis is None:
            raise Unruled(f"attribute {name!r} is missing")
        return int(axis) % max(len(self.shape(0)) if rank is None else rank, 1)


Rule = Callable[[NodeView], Relation]
IN0, OUT0 = ("in", 0), ("out", 0)
"""Slots of the first input and the first output."""


def described(rule: Rule, text: str) -> Rule:
    """A rule that a factory made, with a line on what it says, for the table of operators."""
    rule.__doc__ = text
    return rule
