"""The schema of recipes, made from the passes: ``python -m graphprune.passes.schemas`` prints it.

It names every pass of this package with its options. Passes of others, and ``module:function``, take any options here;
what these may be is checked when the recipe is built.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from graphprune.passes.contract import SCHEMA
from graphprune.passes.recipe import FORMAT, PASSES, find_pass

_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number"}
_JOB = {
    "seed": {"type": "integer", "minimum": 0},
    "calibration": {
        "anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["from"], "properties": {"from": {"type": "string"}}},
        ]
    },
    "allow_io": {"type": "boolean"},
    "prove": {"type": "boolean"},
    "time": {"type": ["number", "string"]},
    "input_shapes": {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer", "minimum": 1}},
    },
}


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe."""
    section = {"type": "object", "properties": _JOB, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FORMAT,
        "type": "object",
        "required": ["format", "passes"],
        "additionalProperties": False,
        "properties": {
            "format": {"const": FORMAT},
            "job": section,
            "models": {"type": "object", "additionalProperties": section},
            "passes": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["use"],
                    "properties": {"use": {"type": "string"}},
                    "allOf": [
                        {"if": {"properties": {"use": {"const": name}}}, "then": _options(find_pass(name))}
                        for name in sorted(PASSES)
                    ],
                },
            },
        },
    }


def _options(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    needed = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    found: dict[str, Any] = {
        "properties": {"use": True, **{f.name: _typed(hints[f.name]) | f.metadata.get(SCHEMA, {}) for f in fields}},
        "additionalProperties": False,
    }
    return found | ({"required": needed} if needed else {})


def _typed(hint: Any) -> dict[str, Any]:
    """The schema of what a type hint lets a file hold."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin in (Union, UnionType):
        known = [_typed(one) for one in inner if one is not NoneType]
        distinct = [one for k, one in enumerate(known) if one and one not in known[:k]]
        return distinct[0] if len(distinct) == 1 else {"anyOf": distinct} if distinct else {}
    if origin in (Sequence, tuple, list):
        return {"type": "array", "items": _typed(inner[0])}
    if origin in (Mapping, dict):
        return {"type": "object", "additionalProperties": _typed(inner[1])}
    return {}


if __name__ == "__main__":
    print(json.dumps(recipe_schema(), indent=1))
