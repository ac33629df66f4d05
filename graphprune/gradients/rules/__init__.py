"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    attention,
    control,
    convolution,
    elementwise,
    fused,
    indexing,
    loops,
    microsoft,
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
    "attention",
    "control",
    "convolution",
    "elementwise",
    "fused",
    "indexing",
    "loops",
    "microsoft",
    "moving",
    "normalisation",
    "pooling",
    "products",
    "quantised",
    "recurrent",
    "reductions",
    "resampling",
]
