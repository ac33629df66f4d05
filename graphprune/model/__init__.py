"""A model as a file and in memory: load, look at, lay open, edit, write."""

from __future__ import annotations

from graphprune.model.bodies import free_names, reread, subgraphs, subgraphs_in
from graphprune.model.model import (
    AnyModel,
    Model,
    Source,
    Use,
    load,
    node_name,
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
