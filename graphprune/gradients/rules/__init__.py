"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    attention,
    elementwise,
    indexing,
    microsoft,
    moving,
    normalisation,
    products,
    quantised,
    reductions,
)

__all__ = [
    "attention",
    "elementwise",
    "indexing",
    "microsoft",
    "moving",
    "normalisation",
    "products",
    "quantised",
    "reductions",
]
