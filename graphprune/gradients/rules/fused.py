"""Operators that runtimes fuse, by what they were."""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.gradients.expansion import body
from graphprune.gradients.table import Back
from graphprune.gradients.terms import Term

_ACTIVATIONS = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Functions that a fused convolution may end in, and what its ``activation_params`` are for them."""


@body("FusedConv", domain="com.microsoft")
def _fused(b: Back) -> Sequence[Term] | None:
    """A convolution, to which a tensor is added, and a function."""
    held = dict(b.attributes)
    name, values = b.attr("activation", ""), held.pop("activation_params", None) or []
    held.pop("activation", None)
    if name and (name not in _ACTIVATIONS or (values and len(values) != len(_ACTIVATIONS[name]))):
        return None
    found = b.tape.op("Conv", *(t if t.name else None for t in b.raw[:3]), dims=b.y[0].dims, **held)
    if b.has(3):
        found = found + b.raw[3]
    if name == "Clip":
        bounds: list[Term] = [found.like(v) for v in values]
        found = b.tape.op("Clip", found, *bounds, dims=found.dims)
    elif name:
        found = found.unary(name, **dict(zip(_ACTIVATIONS[name], values, strict=False)))
    return [found]
