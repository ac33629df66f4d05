"""Gradients of ONNX models, as ONNX models."""

from graphprune.gradients import rules  # noqa: F401  (enters the rules)
from graphprune.gradients.errors import GradientError, Stop
from graphprune.gradients.vjp import Gradients, differentiate, vjp

__all__ = ["GradientError", "Gradients", "Stop", "differentiate", "vjp"]
