"""What an operator says about the axes of its tensors, and the notation of it. Knows numpy, and nothing of ONNX."""

from __future__ import annotations

from graphprune.relation.builder import Builder
from graphprune.relation.printing import facts, pattern, summarise
from graphprune.relation.relation import (
    Axes,
    AxisMap,
    Choice,
    Correction,
    Dim,
    IntArray,
    Kept,
    Operand,
    Relation,
    Shape,
    Slot,
    Values,
    constant_along_others,
    push,
)

__all__ = [
    "Axes",
    "AxisMap",
    "Builder",
    "Choice",
    "Correction",
    "Dim",
    "IntArray",
    "Kept",
    "Operand",
    "Relation",
    "Shape",
    "Slot",
    "Values",
    "constant_along_others",
    "facts",
    "pattern",
    "push",
    "summarise",
]
