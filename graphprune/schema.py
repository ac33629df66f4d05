"""The JSON schemas of what other programs read: plans, recipes, verdicts, benchmarks."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a file format: ``plan``, ``recipe``, ``verdict`` or ``bench``."""
    found: dict[str, Any] = json.loads((files("graphprune") / f"{name}.schema.json").read_text())
    return found
