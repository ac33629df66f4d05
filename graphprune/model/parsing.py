"""JSON that a stranger may have written."""

from __future__ import annotations

import json
import math
from typing import Any

_DEEPEST = 64
"""Levels of lists and objects; no file of the program has half as many."""


def parsed(text: str) -> Any:
    """What a stranger's JSON says, where all numbers are finite and nothing is nested deeper than a page can show.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        data = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    below, levels = [data], 0
    while below:
        levels += 1
        if levels > _DEEPEST:
            raise ValueError("it is nested too deep")
        below = [
            inner
            for one in below
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return data


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
