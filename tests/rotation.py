"""Which of many pairs an ordinary run tries: each of the one and each of the other, but not each with each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")
ALL = bool(os.environ.get("GRAPHPRUNE_ALL_PAIRS"))
"""The long mode: each with each."""


def pairs(ones: Sequence[First], others: Sequence[Second], share: int = 1) -> list[tuple[First, Second]]:
    """Pairs in which each of the first takes the next few of the second, round and round.

    Args:
        ones: e.g. names of exports, those of one architecture side by side, which then meet different others.
        others: e.g. tools.
        share: how many of the second each of the first meets.
    """
    taken = len(others) if ALL else min(share, len(others))
    return [(one, others[(i * taken + k) % len(others)]) for i, one in enumerate(ones) for k in range(taken)]


def some(names: Sequence[First], step: int = 2) -> list[First]:
    """Each so many of names that stand sorted, so that an architecture is met by one exporter or another."""
    return list(names if ALL else names[::step])
