"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import (
    convolution,
    elementwise,
    fused,
    moving,
    pooling,
    products,
    reductions,
    resampling,
)

__all__ = ["convolution", "elementwise", "fused", "moving", "pooling", "products", "reductions", "resampling"]
