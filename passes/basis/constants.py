"""Constants that get other values: who else reads them, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import TensorProto

from graphprune.analysis import Analysis
from graphprune.analysis.mixing import Mixing
from graphprune.analysis.origins import readers
from graphprune.model import Use, node_name
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Shape, Values

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def hindrance(analysis: Analysis, own: Iterable[Use]) -> str | None:
    """Why some uses of constants cannot be given values of their own, None where they can."""
    uses = set(own)
    for use in sorted(uses, key=lambda use: (use.node, use.input)):
        root = analysis.root(use)
        source = analysis.model.sources[root]
        if source.dtype not in FLOATS or source.kind == "fill":
            return f"constant {root!r} does not hold floating-point weights as they are"
        if _vector(source.shape):
            continue
        others, beyond = readers(analysis.model, root)
        alien = [other for other in others if other not in uses]
        if alien or beyond:
            reader = node_name(analysis.model, alien[0].node) if alien else "the graph itself"
            return f"weight {root!r} is read by {reader!r} too, which needs it as it is"
    return None


def _vector(shape: Shape) -> bool:
    """Whether a constant is a bias, a gain or the like: exporters let many read one, and a copy costs nothing."""
    return sum(size > 1 for size in shape) <= 1


def shared(analysis: Analysis, use: Use) -> list[Use]:
    """The uses of a weight, this one among them; of a vector this one alone, since it is copied."""
    root = analysis.root(use)
    if _vector(analysis.model.sources[root].shape):
        return [use]
    return readers(analysis.model, root)[0]


def write(analysis: Analysis, editor: Editor, values: Mapping[Use, Values]) -> None:
    """Give uses of constants other values: in place where all readers want the same, else as constants of their own."""
    by_root: dict[str, list[Use]] = {}
    for use in values:
        by_root.setdefault(analysis.root(use), []).append(use)
    for root, uses in by_root.items():
        others, beyond = readers(analysis.model, root)
        alike = all(np.array_equal(values[use], values[uses[0]]) for use in uses)
        if alike and not beyond and set(others) == set(uses) and editor.replace(root, values[uses[0]]):
            continue
        made: list[tuple[Values, str]] = []
        for use in uses:
            name = next((name for value, name in made if np.array_equal(value, values[use])), None)
            if name is None:
                name = editor.constant(root, values[use], use.node)
                made.append((values[use], name))
            editor.redirect(use.node, use.input, name)


def strands(analysis: Analysis, mixing: Mixing, use: Use) -> tuple[int, list[IntArray]]:
    """The axis of a use of a constant that has strands of a group, and their elements."""
    start = analysis.web.axis_of[use]
    axis = next(a for a in range(len(analysis.web.shapes[use])) if start + a in mixing.strands)
    return axis, list(mixing.strands[start + axis])
