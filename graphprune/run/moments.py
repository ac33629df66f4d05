"""Second moments of rows: all that least squares needs to know of data, in memory that their number does not change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.relation import Values

FloatArray = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Sums over rows of separate products, one for each group of a convolution.

    Attributes:
        xx: ``X^T X``, shape ``[groups, sums, sums]``.
        x: sum of the rows, shape ``[groups, sums]``.
        count: number of rows.
    """

    xx: FloatArray
    x: FloatArray
    count: int = 0

    @classmethod
    def empty(cls, groups: int, sums: int) -> Moments:
        """Of no rows yet."""
        return cls(np.zeros((groups, sums, sums)), np.zeros((groups, sums)))

    def add(self, rows: Values) -> None:
        """Add rows, shape ``[groups, n, sums]``."""
        self.xx += rows.transpose(0, 2, 1) @ rows
        self.x += rows.sum(1)
        self.count += rows.shape[1]

    @property
    def centred(self) -> FloatArray:
        """``X^T X`` about the mean."""
        return self.xx - np.einsum("gi,gj->gij", self.x, self.x) / max(self.count, 1)
