"""A model as a file and in memory: load, look at, lay open, edit, write."""

from __future__ import annotations

from graphprune.model.model import (
    AnyModel,
    Model,
    Source,
    Use,
    free_names,
    load,
    node_name,
    reread,
    subgraphs,
    subgraphs_in,
)

__all__ = [
    "AnyModel",
    "Model",
    "Source",
    "Use",
    "free_names",
    "load",
    "node_name",
    "reread",
    "subgraphs",
    "subgraphs_in",
]
