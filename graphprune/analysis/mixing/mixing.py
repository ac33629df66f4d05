"""What is found of a change of basis, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphprune.analysis import Group
from graphprune.analysis.reasons import Reason
from graphprune.analysis.web import Tensor
from graphprune.model import Use
from graphprune.relation import IntArray

Strand = tuple[int, int]
"""A vertex of the web, and which of its strands."""


@dataclass(frozen=True)
class Meeting:
    """A sum over classes of a group: a node, and the two inputs whose products it sums."""

    node: int
    left: int
    right: int


@dataclass(frozen=True)
class Gain:
    """A constant that multiplies a vector element by element, by itself or behind a norm.

    Attributes:
        use: the constant.
        strands: of what it makes.
    """

    use: Use
    strands: tuple[Strand, ...]


@dataclass
class Segment:
    """Strands between two norms or gains: within it, all is linear.

    Attributes:
        written: constants that are added to it, or make it.
        fed: how many norms and gains write to it.
        normed: whether a norm reads it as it is, or a gain.
        centred: whether a norm reads it that takes off its mean first.
        meetings: sums over it.
    """

    written: list[Use] = field(default_factory=list)
    fed: int = 0
    normed: bool = False
    centred: bool = False
    meetings: list[Meeting] = field(default_factory=list)


@dataclass(frozen=True)
class Mixing:
    """How a change of basis along a group passes through the model.

    Attributes:
        group: the group.
        strands: by axis vertex of the web its strands, elements of the axis, shape ``[strands, classes]``.
        tensor_of: for each of these vertices its tensor.
        spaces: for each strand the number of its space, and its sign in it.
        orthogonal: spaces that orthogonal matrices alone may change.
        meetings: sums over the classes.
        gains: constants that must be the same for all classes.
        segments: by number what lies between norms.
        segment_of: for each strand the number of its segment.
        centred: norms that take off a mean first: none may be left before anything is changed.
        taken_off: nodes that take a mean off what they read and do nothing else, each with that input.
    """

    group: Group
    strands: dict[int, IntArray]
    tensor_of: dict[int, Tensor]
    spaces: dict[Strand, tuple[int, int]]
    orthogonal: frozenset[int]
    meetings: tuple[Meeting, ...]
    gains: tuple[Gain, ...]
    segments: dict[int, Segment]
    segment_of: dict[Strand, int]
    centred: tuple[int, ...]
    taken_off: tuple[tuple[int, int], ...]


class NotLinear(Exception):
    """A group that no change of basis passes; holds the reason."""

    def __init__(self, text: str, node: str = "", remedy: str = "") -> None:
        self.reason = Reason(text, node, remedy)
        super().__init__(str(self.reason))
