"""Durations as users write them: ``90s``, ``5m``, ``1h``."""

from __future__ import annotations

import re

from graphprune.errors import InputError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"(\d+(?:\.\d+)?)([smh])")


def seconds(text: str) -> float:
    """A duration in seconds.

    Raises:
        InputError: it is not a number with a unit.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise InputError(f"{text!r} is no duration: write it as 90s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def asked(text: str | int | bool) -> tuple[int | None, str | None]:
    """Steps or time, as ``--distill`` takes them: ``300`` or ``5m``; neither where it says only that it is wanted.

    Raises:
        InputError: it is neither.
    """
    if isinstance(text, bool) or text == "":
        return None, None
    if isinstance(text, int) or text.strip().isdecimal():
        if int(text) < 1:
            raise InputError(f"--distill {text}: steps must be at least 1")
        return int(text), None
    try:
        seconds(text)
    except InputError as error:
        raise InputError(f"--distill {text}: give steps as 300, or a time as 90s, 5m or 1h") from error
    return None, text
