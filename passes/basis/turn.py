"""A model in another basis: every constant that has a part in it is multiplied by the matrix, or by what undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.model import Model, Use
from graphprune.model.editor import Editor
from graphprune.passes.basis import constants
from graphprune.passes.basis.copies import Copies
from graphprune.relation import Values
from graphprune.run.moments import FloatArray


@dataclass(frozen=True)
class Turn:
    """A change of basis of one space.

    Attributes:
        copies: of what.
        forth: R, shape ``[matrices, classes, classes]``; vectors are rows, and become ``x R``.
        back: ``R^-T``.
    """

    copies: Copies
    forth: FloatArray
    back: FloatArray

    def uses(self) -> list[Use]:
        """Constants that have a part in it."""
        net, spaces = self.copies.analysis.web, self.copies.mixing.spaces
        own = (net.tensor_of[v][0] for (v, _), (space, _) in spaces.items() if space == self.copies.space)
        return [use for use in dict.fromkeys(own) if isinstance(use, Use)]

    def applied(self, use: Use, value: Values) -> Values:
        """A constant in the other basis, in its own type."""
        axis = self.copies.axis(use)
        assert axis is not None
        last = np.array(np.moveaxis(value, axis, -1), np.float64)
        for elements, number, sign in self.copies.strands(self.copies.analysis.web.axis_of[use] + axis):
            last[..., elements] = last[..., elements] @ (self.forth if sign > 0 else self.back)[number]
        return np.ascontiguousarray(np.moveaxis(last, -1, axis)).astype(value.dtype)


def hindrance(copies: Copies) -> str | None:
    """Why the constants of a space cannot be given other values, None where they can."""
    analysis, own = copies.analysis, Turn(copies, np.zeros(0), np.zeros(0)).uses()
    found = constants.hindrance(analysis, own)
    if found is not None or copies.space in copies.mixing.orthogonal:
        return found
    for use in own:
        if len({frozenset(_signs(copies, one)) for one in constants.shared(analysis, use)}) > 1:
            return f"weight {analysis.root(use)!r} is read in two ways"
    return None


def _signs(copies: Copies, use: Use) -> set[tuple[int, int]]:
    axis = copies.axis(use)
    start = copies.analysis.web.axis_of[use]
    return {(n, s) for _, n, s in copies.strands(start + (axis or 0))}


def turned(analysis: Analysis, turns: Sequence[Turn]) -> Model:
    """The model with constants in other bases."""
    model, editor = analysis.model, Editor(analysis.model)
    now: dict[Use, Values] = {}
    for turn in turns:
        for use in turn.uses():
            held = now[use] if use in now else model.array(analysis.root(use))
            now[use] = turn.applied(use, held)
    constants.write(analysis, editor, now)
    return editor.finish()
