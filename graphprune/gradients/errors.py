"""What a rule says where there is no gradient."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.errors import InputError


class GradientError(InputError):
    """A gradient that was asked for cannot be had; the message says at which node, and why."""


class NoGradientError(Exception):
    """Raised by a rule that cannot differentiate its node; the message is the reason."""


@dataclass(frozen=True)
class Stop:
    """A tensor without a gradient, since an operator between it and the outputs stops it.

    Attributes:
        tensor: the constant or input.
        node: where the gradient stops, by name (or by its first output, where it has no name).
        op: the operator of that node.
        reason: why it stops there.
    """

    tensor: str
    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"{self.tensor!r} has no gradient: {self.op} node {self.node!r} stops it ({self.reason})"
