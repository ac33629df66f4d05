"""A place that inputs come from, with what the user says of how they are read.

Plain data, the same in Python, in recipes and behind ``--preprocess``: a table whose key ``from`` is a file or folder,
and whose other keys are settings, as ``{"from": "photos", "fit": "letterbox", "size": 640}``.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from graphprune.errors import InputError
from graphprune.run.reading import exported

FROM = "from"
CONFIG = "config"
"""A file that says the rest (see ``graphprune.run.reading.configs``)."""
FILES = (CONFIG, FROM, "tokenizer")
"""Keys that hold a path."""
Settings = Mapping[str, Any]
Size = tuple[int, int]
"""Height and width."""


def is_asked(source: object) -> bool:
    """Whether a source is a place with settings, and not arrays by name."""
    return isinstance(source, Mapping) and isinstance(source.get(FROM), str | os.PathLike)


def place(source: object) -> str | os.PathLike[str] | None:
    """The file, folder or function that a source names; None where it is in memory."""
    if isinstance(source, Mapping):
        source = source.get(FROM)
    return source if isinstance(source, str | os.PathLike) else None


def settings(source: object) -> dict[str, Any]:
    """What is said of how a source is read."""
    return {k: v for k, v in source.items() if k != FROM} if isinstance(source, Mapping) and is_asked(source) else {}


def same(one: object, other: object) -> bool:
    """Whether two sources are surely the same: arrays in memory are by what they are, not by what they hold."""
    if one is other:
        return True
    return None not in (place(one), place(other)) and (place(one), settings(one)) == (place(other), settings(other))


def named(texts: Sequence[str]) -> dict[str, Any]:
    """Settings from a command line: ``KEY=VALUE``, or the name of a file that says them.

    Raises:
        InputError: one is neither.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if equals:
            found[key.strip().replace("-", "_")] = value.strip()
        elif Path(text).suffix in (".json", ".yml", ".yaml"):
            found[CONFIG] = text
        else:
            raise InputError(f"--preprocess {text}: not like KEY=VALUE, and no file that ends in .json or .yml")
    return found


def shown(value: Any) -> str:
    """A value in a message: what is long or deep is cut."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def check_keys(given: Settings, keys: Collection[str], what: str) -> None:
    """Raise InputError where a setting is none of those there are."""
    for key in given:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(keys))}"
            raise InputError(f"--preprocess {key}: is no setting for {what}; {hint}")


def whole(key: str, value: Any) -> int:
    """A whole number from 1 to :data:`MOST`."""
    found = exported.count(value)
    if found is None:
        raise InputError(f"{key} is {shown(value)}, and must be a whole number from 1 to {exported.MOST:,}")
    return found


def size(key: str, value: Any, partly: bool = False) -> Size:
    """Height and width: ``640``, ``480x640`` or two numbers, of which, ``partly``, one may be 0."""
    parts = re.split("[x,]", value) if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    open_ended = partly and isinstance(value, list | tuple) and len(parts) == 2
    try:
        height, width = (
            0 if open_ended and part == 0 else whole(key, part) for part in (parts if len(parts) == 2 else parts * 2)
        )
    except (ValueError, InputError):
        raise InputError(f"{key} is {shown(value)}, and must be a number of pixels as 640, or HEIGHTxWIDTH") from None
    return height, width


def number(key: str, value: Any) -> float:
    """A number; ``1/255`` is one too."""
    return numbers(key, value, 1)[0]


def share(key: str, value: Any) -> float:
    """A number from 0.01 up, which sizes are divided by."""
    found = number(key, value)
    if found < 0.01:
        raise InputError(f"{key} is {shown(value)}, and must be a number from 0.01 up")
    return found


def numbers(key: str, value: Any, most: int) -> tuple[float, ...]:
    """One number, or so many: ``0.5``, ``0.485,0.456,0.406`` or a list."""
    parts: Any = value.split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, Sequence) else [parts]
    found = [_number(part) for part in parts]
    if len(found) not in (1, most) or not all(isfinite(one) for one in found):
        wanted = "a number" if most == 1 else f"a number, or {most} of them"
        raise InputError(f"{key} is {shown(value)}, and must be {wanted}")
    return tuple(found)


def _number(part: Any) -> float:
    try:
        if isinstance(part, str) and part.count("/") == 1:
            above, below = map(float, part.split("/"))
            return above / below
        return float(part)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return float("nan")


def word(key: str, value: Any, choices: Collection[str]) -> str:
    """One of some words."""
    found = value.lower() if isinstance(value, str) else value
    if found not in choices:
        raise InputError(f"{key} is {shown(value)}, and must be one of {', '.join(choices)}")
    return str(found)


def yes(key: str, value: Any) -> bool:
    """Yes or no."""
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None:
        raise InputError(f"{key} is {shown(value)}, and must be true or false")
    return found
