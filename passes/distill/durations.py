"""What ``--distill`` and ``--search`` take: a number, or a time as ``90s``, ``5m``, ``1h30m``."""

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
    count, _ = read(text, "--distill", "steps")
    return count, None if count is not None else str(text)


def read(text: str | int, option: str, what: str) -> tuple[int | None, float | None]:
    """A number, or a time in seconds.

    Args:
        text: as ``300`` or ``5m``.
        option: that takes it.
        what: there is such a number of.

    Raises:
        InputError: it is neither.
    """
    if isinstance(text, int) or text.strip().isdecimal():
        if int(text) < 1:
            raise InputError(f"{option} {text}: {what} must be at least 1")
        return int(text), None
    try:
        return None, seconds(text)
    except InputError as error:
        raise InputError(f"{option} {text}: give {what} as 300, or a time as 90s, 5m or 1h30m") from error
