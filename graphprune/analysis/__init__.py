"""What hangs together: sizes, labels pushed along index maps, groups, blocks, costs, and where weights come from."""

from __future__ import annotations

from graphprune.analysis.analysis import (
    Analysis,
    FloatArray,
    Group,
    analyze,
)

__all__ = [
    "Analysis",
    "FloatArray",
    "Group",
    "analyze",
]
