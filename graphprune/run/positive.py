"""Inverses of positive definite matrices, and products with them, by blocks.

NumPy has LAPACK's general solvers alone, which do not know of symmetry, and keep no core busy. Here Cholesky's factor
is inverted as it is made, halving the matrix again and again: what is left are matrix products.
"""

from __future__ import annotations

import numpy as np

from graphprune.relation import Values

LARGE = 1024
"""Rows from which on single precision is worth it, where what is solved for is damped enough for it to do."""
_BLOCK = 128
"""Rows up to which LAPACK is as fast."""


def inverse(matrix: Values) -> Values:
    """The inverse of ``[..., n, n]``.

    Raises:
        LinAlgError: it is not positive definite.
    """
    return _squared(inverse_root(matrix))


def solve(matrix: Values, wanted: Values) -> Values:
    """What ``matrix`` ``[..., n, n]`` makes into ``wanted`` ``[..., n, outputs]``.

    Raises:
        LinAlgError: it is not positive definite.
    """
    return solved(inverse_root(matrix), wanted)


def solved(root: Values, wanted: Values) -> Values:
    """The same from :func:`inverse_root` of the matrix."""
    return np.asarray(_flipped(root) @ (root @ wanted))


def inverse_root(matrix: Values) -> Values:
    """The inverse R of Cholesky's factor of ``[..., n, n]``: lower triangular, and ``R^T R`` is the inverse.

    Raises:
        LinAlgError: it is not positive definite.
    """
    found = np.zeros(matrix.shape, matrix.dtype)
    _fill(found, matrix)
    return found


def _fill(found: Values, matrix: Values) -> None:
    size = matrix.shape[-1]
    if size <= _BLOCK:
        found[...] = np.linalg.inv(np.linalg.cholesky(matrix))
        return
    half = size // 2
    first, last = found[..., :half, :half], found[..., half:, half:]
    _fill(first, matrix[..., :half, :half])
    across = matrix[..., half:, :half] @ _flipped(first)
    _fill(last, matrix[..., half:, half:] - across @ _flipped(across))
    found[..., half:, :half] = -(last @ (across @ first))


def _squared(root: Values) -> Values:
    """``R^T R`` of a lower triangular R."""
    size = root.shape[-1]
    if size <= _BLOCK:
        return _flipped(root) @ root
    half, found = size // 2, np.empty(root.shape, root.dtype)
    below, last = np.ascontiguousarray(root[..., half:, :half]), root[..., half:, half:]
    found[..., :half, :half] = _squared(root[..., :half, :half]) + _flipped(below) @ below
    found[..., half:, :half] = _flipped(last) @ below
    found[..., :half, half:] = _flipped(found[..., half:, :half])
    found[..., half:, half:] = _squared(last)
    return found


def _flipped(matrix: Values) -> Values:
    return matrix.swapaxes(-1, -2)
