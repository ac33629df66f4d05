"""Domains that hold nothing to prune: classical machine learning, and training."""

from __future__ import annotations

import onnx

from graphprune.rules.node import Rule
from graphprune.rules.table import never

_REASONS = {
    "ai.onnx.ml": "classical models (trees, tables, vectorisers) hold no channels, and often work on text and maps",
    "ai.onnx.preview": "it is experimental and may hold graphs",
    "ai.onnx.preview.training": "it is a step of training",
    "ai.onnx.training": "it is a step of training",
}


def pinned_domains() -> dict[tuple[str, str], Rule]:
    """A rule with the reason for every operator that ONNX has in these domains."""
    schemas = onnx.defs.get_all_schemas()
    return {(s.domain, s.name): never(_REASONS[s.domain]) for s in schemas if s.domain in _REASONS}
