"""Masks of matrices by what their inputs are like.

For rows w of a weight, inputs x with second moments H, those stay, of all that a pattern lets stay, that

- ``magnitude``: are largest;
- ``wanda``: have the largest ``|w_i| sqrt(H_ii)`` (Sun et al., A Simple and Effective Pruning Approach for Large
  Language Models, ICLR 2024);
- ``sparsegpt``: have the largest ``w_i^2 / (U_ii)^2``, with ``U^T U`` the Cholesky factors of the inverse of H, when
  all rows before are settled and the rest has made up for what went (Frantar and Alistarh, SparseGPT, ICML 2023:
  Optimal Brain Surgeon, row by row, lazily in blocks).

Rows of a convolution's matrix are input channels times kernel positions; a block lies along the channels of one
position. All outputs are worked on at once. Blocks of a pattern that compete with each other are judged together, as
many as the rest of the matrix catches up with at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from graphprune.analysis.patterns import Mask, Pattern
from graphprune.passes.choose.surgeon import damped
from graphprune.run.moments import FloatArray

METHODS = ("magnitude", "wanda", "taylor", "snip", "movement", "sparsegpt")
"""The default is the last with calibration inputs, and the first without and where single weights go."""
AUTO = "auto"
"""Stands for the default."""
BY_GRADIENTS = ("taylor", "snip", "movement")
"""Those that look at all weights at once, before any becomes sparse (see ``gradients``)."""
DAMPING = 1e-2
"""Added to the diagonal of H, beside its mean, as SparseGPT does."""
_LAZY = 128
"""Rows after which the rest of the matrix catches up."""


@dataclass(frozen=True)
class Thinner:
    """What makes one matrix sparse.

    Attributes:
        method: one of :data:`METHODS`.
        pattern: the pattern.
        positions: kernel positions that follow each other in the rows of one channel; 1 for products of matrices.
    """

    method: str
    pattern: Pattern
    positions: int = 1

    def choose(self, weight: FloatArray, gram: FloatArray) -> tuple[Mask, FloatArray]:
        """What stays of a weight, and the weight with what stays.

        Args:
            weight: shape ``[groups, sums, outputs]``.
            gram: second moments of what is summed, ``[groups, sums, sums]``; where they overflow, or are nothing but
                rounding (of inputs that hardly change), magnitude decides.
        """
        if self.method == "sparsegpt" and np.isfinite(gram).all():
            with suppress(np.linalg.LinAlgError):
                return self._settled(weight, gram)
        scores = np.abs(weight)
        if self.method == "wanda":
            scores = scores * np.sqrt(np.maximum(np.einsum("gii->gi", gram), 0))[:, :, None]
        groups, sums, outputs = weight.shape
        apart = scores.reshape(groups, -1, self.positions, outputs)
        stay = self.pattern.kept(apart, 1).reshape(groups, sums, outputs)
        return stay, weight * stay

    def _settled(self, weight: FloatArray, gram: FloatArray) -> tuple[Mask, FloatArray]:
        """SparseGPT: row by row, the rest makes up for what goes."""
        groups, sums, outputs = weight.shape
        order = np.arange(sums).reshape(-1, self.positions).T.reshape(-1)  # channels of one position side by side
        left = weight[:, order].copy()
        upper = factor(gram[:, order[:, None], order])
        stay = np.ones(left.shape, bool)
        for start, stop, blocks in self._batches(sums):
            errors = np.zeros((groups, stop - start, outputs))
            for first, last in blocks:
                weights = upper[:, np.arange(first, last), np.arange(first, last)]
                stay[:, first:last] = self.pattern.kept((left[:, first:last] / weights[:, :, None]) ** 2, 1)
                for row in range(first, last):
                    error = left[:, row] * ~stay[:, row] / upper[:, row, row, None]
                    left[:, row:stop] -= upper[:, row, row:stop, None] * error[:, None]
                    errors[:, row - start] = error
            left[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
        back = np.argsort(order)
        return stay[:, back], (left * stay)[:, back]

    def _batches(self, sums: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """Rows in batches, and within each the rows that are judged at once."""
        channels = sums // self.positions
        block = self.pattern.block
        wide = max(_LAZY // block, 1) * block if self.pattern.competes else block
        edges = [
            (p * channels + c, p * channels + min(c + wide, channels))
            for p in range(self.positions)
            for c in range(0, channels, wide)
        ]
        many = max(1, _LAZY // wide)
        parts = [edges[i : i + many] for i in range(0, len(edges), many)]
        return [(part[0][0], part[-1][1], part) for part in parts]


def factor(gram: FloatArray) -> FloatArray:
    """The upper Cholesky factor of the inverse of second moments, ``[groups, sums, sums]``.

    Of few samples the moments have a rank far below their size, and rounding can leave the inverse with no factor; it
    is damped ten times as much then, until it has one.

    Raises:
        LinAlgError: damped by their own mean they still have none: they are less than their rounding.
    """
    damping = DAMPING
    while True:
        try:
            lower = np.linalg.cholesky(np.linalg.inv(damped(gram, damping)))
        except np.linalg.LinAlgError:
            if damping >= 1:
                raise
            damping *= 10
        else:
            return lower.transpose(0, 2, 1)
