"""Rules of derivatives, by kind of operator; importing a file enters its rules into the table."""

from graphprune.gradients.rules import elementwise, indexing, moving, normalisation, products, quantised, reductions

__all__ = ["elementwise", "indexing", "moving", "normalisation", "products", "quantised", "reductions"]
