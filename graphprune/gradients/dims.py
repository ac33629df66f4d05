"""Dimensions as far as they are known."""

from __future__ import annotations

from typing import TypeAlias, overload

Dim: TypeAlias = "int | str | None"
"""A size: known, the same wherever it has the same name, or unknown."""
Dims: TypeAlias = "tuple[Dim, ...]"


def same(one: Dims | None, two: Dims | None) -> bool:
    """Whether two shapes are known to be the same."""
    return one is not None and one == two and None not in one


@overload
def broadcast(one: None, two: Dims | None) -> None: ...
@overload
def broadcast(one: Dims | None, two: Dims | None) -> Dims | None: ...
def broadcast(one: Dims | None, two: Dims | None) -> Dims | None:
    """What is known of the shape that two shapes broadcast to."""
    if one is None or two is None:
        return None
    rank = max(len(one), len(two))
    a, b = ((1,) * (rank - len(d)) + d for d in (one, two))
    return tuple(_wider(p, q) for p, q in zip(a, b, strict=True))


def _wider(p: Dim, q: Dim) -> Dim:
    if p == q or q == 1:
        return p
    if p == 1:
        return q
    return next((d for d in (p, q) if isinstance(d, int)), None)


def stretched(whole: Dims | None, part: Dims | None) -> list[int] | None:
    """Axes of ``whole`` that ``part`` was broadcast over, None where that shows at run time only."""
    if whole is None or part is None:
        return None
    more = len(whole) - len(part)
    axes = list(range(more))
    for k, (p, q) in enumerate(zip(whole[more:], part, strict=True), more):
        if q == 1 and p != 1:
            axes.append(k)
        elif (q != p and not (isinstance(q, int) and q > 1)) or q is None:
            return None
    return axes
