"""Outputs that are no numbers any more, and the tensor at which that begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run.runtime import exposing, run, session


def overflows(before: Values, after: Values) -> bool:
    """Whether an output that was finite no longer is."""
    if before.dtype.kind != "f":
        return False
    return bool((np.isfinite(before) & ~np.isfinite(after)).any())


def first(model: Model, names_of: Model, feeds: Mapping[str, Values], bad: Callable[[Values], Any]) -> str:
    """The first tensor, in the order of the nodes, that is bad anywhere; empty where none is."""
    names = [o for n in names_of.nodes for o in n.output if o and o in model.producer]
    with session(exposing(model, names)) as active:
        for name, value in zip(names, run(active, feeds, names), strict=True):
            if value.dtype.kind == "f" and bad(value).any():
                node = names_of.nodes[names_of.producer[name]]
                return f"the first tensor that does is {name!r}, made by node {node.name!r} ({node.op_type})"
    return ""
