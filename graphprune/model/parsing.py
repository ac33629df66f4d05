"""Text and JSON that a stranger may have written: read as far as there is room for what becomes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from graphprune.errors import InputError
from graphprune.model import limits

_GROWS = 32
"""Bytes in memory that a byte of JSON, TOML or YAML may become: ``[],`` is a list of 56 bytes, and its place."""
_CHUNK = 1 << 20
_DEEPEST = 64
"""Levels of lists and objects; no file of the program has half as many."""


def text(path: Path) -> str:
    """The text of a file, UTF-8, that is to be parsed; devices and pipes are read no further than files may be long.

    Raises:
        InputError: it is longer than there is room for.
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text.
    """
    most, parts, found = limits.limit() // _GROWS, list[bytes](), 0
    with path.open("rb") as file:
        while found <= most and (part := file.read(_CHUNK)):
            parts.append(part)
            found += len(part)
    if found > most:
        raise InputError(
            f"{path}: is longer than the {limits.told(most)} of text that there is room to parse; --memory allows more"
        )
    return b"".join(parts).decode().replace("\r\n", "\n")


def parsed(text_: str) -> Any:
    """What a stranger's JSON says, where all numbers are finite and nothing is nested deeper than a page can show.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        data = json.loads(text_, parse_float=_finite, parse_constant=_finite)
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


def _finite(said: str) -> float:
    value = float(said)
    if not math.isfinite(value):
        raise ValueError(f"{said[:20]} is no finite number")
    return value
