"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    control,
    elementwise,
    indexing,
    loops,
    moving,
    normalisation,
    products,
    quantised,
    recurrent,
    reductions,
)

__all__ = [
    "control",
    "elementwise",
    "indexing",
    "loops",
    "moving",
    "normalisation",
    "products",
    "quantised",
    "recurrent",
    "reductions",
]
