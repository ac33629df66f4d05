"""What ``--distill`` takes: steps, or a time as ``90s``, ``5m``, ``1h30m``."""

from __future__ import annotations

from graphprune.errors import InputError
from graphprune.passes.budget import seconds


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
        raise InputError(f"--distill {text}: give steps as 300, or a time as 90s, 5m or 1h30m") from error
    return None, text
