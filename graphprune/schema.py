"""The JSON schemas of what other programs read: plans, recipes, verdicts, benchmarks; each lies beside its code."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

_HOMES = {
    "bench": "graphprune.verdict",
    "plan": "graphprune.rewrite",
    "recipe": "graphprune.passes",
    "sensitivity": "graphprune.passes.study",
    "verdict": "graphprune.verdict",
}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a file format: ``plan``, ``recipe``, ``sensitivity``, ``verdict`` or ``bench``."""
    found: dict[str, Any] = json.loads((files(_HOMES[name]) / f"{name}.schema.json").read_text())
    return found
