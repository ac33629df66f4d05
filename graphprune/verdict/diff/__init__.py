"""What changed between two models: their nodes are matched whatever is renamed, and what differs is told."""

from __future__ import annotations

from graphprune.verdict.diff.compare import Diff, diff

__all__ = ["Diff", "diff"]
