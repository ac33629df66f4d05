"""Numbers as people read them."""

from __future__ import annotations

from graphprune.cli.options import number


def few(value: float | None) -> str:
    """A number of any size in three digits; nothing where there is none."""
    return "" if value is None else number(value) if abs(value) >= 1e3 else f"{value:.3g}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in per cent."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def change(before: float, after: float) -> str:
    """By how many per cent something became less or more: ``-38.0 %``."""
    return "" if not before else f"{100 * (after / before - 1):+.1f} %"


def set_change(before: float, after: float) -> str:
    """The same as a page sets it: with a real minus sign, and ``±0 %``."""
    found = change(before, after).replace("-", "\N{MINUS SIGN}")
    return "±0 %" if found[1:] == "0.0 %" else found


def pair(before: object, after: object) -> str:
    """What was, and what is."""
    return f"{before}" if before == after else f"{before} → {after}"


def plural(count: int, one: str, many: str) -> str:
    """A count with its word."""
    return f"{count:,} {one if count == 1 else many}"


def time(seconds: float) -> str:
    """A time in three digits and a unit."""
    for limit, unit, factor in ((1.0, "s", 1.0), (1e-3, "ms", 1e3)):
        if seconds >= limit:
            return f"{factor * seconds:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"
