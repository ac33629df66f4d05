"""The JSON schemas of what other programs read or write; each lies beside its code."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_HOMES = {
    "backends": "graphprune.passes.choose",
    "bench": "graphprune.verdict",
    "diff": "graphprune.verdict.diff",
    "plan": "graphprune.rewrite",
    "profile": "graphprune.verdict.latency",
    "recipe": "graphprune.passes",
    "sensitivity": "graphprune.passes.study",
    "shown": "graphprune.cli.pages",
    "steering": "graphprune.passes.choose",
    "sweep": "graphprune.passes.study",
    "tasks": "graphprune.verdict.latency",
    "verdict": "graphprune.verdict",
    "vocabulary": "graphprune.passes.vocabulary",
}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a file format, as ``plan`` or ``recipe``."""
    found: dict[str, Any] = json.loads((files(_HOMES[name]) / f"{name}.schema.json").read_text())
    return found
