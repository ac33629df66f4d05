"""Relations put together axis by axis, where no pattern can write them."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.relation.relation import Axes, AxisMap, Dim, Operand, Relation, Shape
from graphprune.relation.zero import Zero


class Builder:
    """Collects dims and axes of a relation that no pattern can write."""

    def __init__(self) -> None:
        self.dims: list[Dim] = []

    def dim(self, size: int, pinned: str | None = None, name: str | None = None) -> AxisMap:
        """A new dim, as the map of an axis that is this dim."""
        if size == 1:
            return AxisMap(())
        self.dims.append(Dim(name or _letters(len(self.dims)), size, pinned))
        return AxisMap((len(self.dims) - 1,))

    def like(self, shape: Shape) -> list[AxisMap]:
        """A new dim for each axis of a shape."""
        return [self.dim(size) for size in shape]

    def relation(
        self,
        inputs: Sequence[Sequence[AxisMap] | None],
        outputs: Sequence[Sequence[AxisMap] | None],
        zero: str = "0",
        operands: tuple[Operand, ...] = (),
    ) -> Relation:
        """The finished relation; ``zero`` is in the notation of ``graphprune.relation.zero``."""

        def fixed(side: Sequence[Sequence[AxisMap] | None]) -> tuple[Axes | None, ...]:
            return tuple(None if axes is None else tuple(axes) for axes in side)

        return Relation(tuple(self.dims), fixed(inputs), fixed(outputs), zero=Zero.parse(zero), operands=operands)


def _letters(number: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return alphabet[number % 26] + (str(number // 26) if number >= 26 else "")
