"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    cells,
    control,
    convolution,
    elementwise,
    fused,
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
    "cells",
    "control",
    "convolution",
    "elementwise",
    "fused",
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
