"""Targets: what a user wants of the result, in words that a command line and a recipe hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.errors import InputError

KINDS = ("macs", "params", "bytes", "latency", "speedup", "drop")
"""What can be aimed at."""
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)\s*(%|ms|s|[kmgt]?)b?", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One thing that is wanted.

    Attributes:
        kind: ``macs``, ``params``, ``bytes`` or ``latency`` (what may be left), or ``drop`` (of the score).
        value: a share of the original where ``share`` is set, else an amount: seconds, for latencies.
        share: whether it is a share.
        text: as it was given.
    """

    kind: str
    value: float
    share: bool
    text: str

    def limit(self, original: float) -> float:
        """What may be left of an original amount."""
        return self.value * original if self.share else self.value

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> Target:
    """A target as ``macs=0.5``, ``params=3e6``, ``bytes=10M``, ``latency=0.67``, ``latency=12ms``, ``speedup=1.5``.

    Numbers up to 1 are shares of what the original has, larger ones amounts (latencies without a unit: milliseconds).

    Raises:
        InputError: it is none; says why.
    """
    kind, equals, given = text.partition("=")
    kind = kind.strip().lower()
    found = _NUMBER.fullmatch(given.strip())
    if not equals or found is None or kind not in KINDS:
        raise InputError(
            f"--target {text}: is no target; give one like macs=0.5, params=3e6, bytes=10M, latency=0.67, "
            "latency=12ms, speedup=1.5 or drop=0.01"
        )
    value, unit = float(found[1]), found[2].lower()
    timed = unit in ("ms", "s")
    if value <= 0 or (timed and kind != "latency"):
        raise InputError(f"--target {text}: {'only latency has this unit' if timed else 'must be above 0'}")
    if unit == "%":
        value, unit = value / 100, ""
    if kind == "speedup":
        if value < 1 or unit:
            raise InputError(f"--target {text}: a speed-up is how many times as fast, at least 1")
        return Target("latency", 1 / value, True, text)
    if kind == "drop":
        if value >= 1 or unit:
            raise InputError(f"--target {text}: a drop is how much of the score may go, between 0 and 1")
        return Target("drop", value, False, text)
    share = value <= 1 and not unit
    if kind == "latency" and not share:
        return Target(kind, value * (1.0 if unit == "s" else 1e-3), False, text)
    return Target(kind, value * _UNITS[unit], share, text)


def parse_all(texts: Sequence[str]) -> tuple[Target, ...]:
    """Targets, of which each kind stands once.

    Raises:
        InputError: one is none, or two say the same thing.
    """
    found = tuple(map(parse, texts))
    kinds = [one.kind for one in found]
    for one in found:
        if kinds.count(one.kind) > 1:
            both = " and ".join(other.text for other in found if other.kind == one.kind)
            raise InputError(f"--target {both}: {one.kind} is aimed at twice; give one of them")
    return found
