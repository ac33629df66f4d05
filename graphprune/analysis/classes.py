"""Labels that become one where they meet."""

from __future__ import annotations

import numpy as np

from graphprune.relation import IntArray


class Classes:
    """Union-find on arrays.

    Attributes:
        parent: for each label its root: every entry points straight there.
        merged: whether any two labels have become one.
        unions: how often any have.
    """

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size)
        self.merged = False
        self.unions = 0

    def union(self, a: IntArray, b: IntArray) -> None:
        """Make one class of each element of ``a`` and the one at its place in ``b``."""
        while True:
            ra, rb = self.parent[a], self.parent[b]
            low, high = np.minimum(ra, rb), np.maximum(ra, rb)
            differ = low != high
            if not differ.any():
                return
            self.merged = True
            self.unions += 1
            np.minimum.at(self.parent, high[differ], low[differ])
            while True:
                shorter = self.parent[self.parent]
                if (shorter == self.parent).all():
                    break
                self.parent = shorter

    def find(self, labels: IntArray) -> IntArray:
        """The root of each label; -1, no class, stays."""
        return np.where(labels >= 0, self.parent[labels], -1) if self.merged else labels
