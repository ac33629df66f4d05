"""The JSON schemas of what other programs read or write; each lies beside its code."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_HOMES = {
    "backends": "graphprune.passes.choose",
    "bench": "graphprune.verdict",
    "plan": "graphprune.rewrite",
    "profile": "graphprune.verdict.latency",
    "recipe": "graphprune.passes",
    "tasks": "graphprune.verdict.latency",
    "steering": "graphprune.passes.choose",
    "verdict": "graphprune.verdict",
}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a file format: ``plan``, ``recipe``, ``verdict``, ``bench``, ``backends`` or ``steering``."""
    found: dict[str, Any] = json.loads((files(_HOMES[name]) / f"{name}.schema.json").read_text())
    return found
