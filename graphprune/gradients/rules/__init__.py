"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    control,
    convolution,
    elementwise,
    indexing,
    loops,
    moving,
    normalisation,
    pooling,
    products,
    quantised,
    recurrent,
    reductions,
    resampling,
)

__all__ = [
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "loops",
    "moving",
    "normalisation",
    "pooling",
    "products",
    "quantised",
    "recurrent",
    "reductions",
    "resampling",
]
