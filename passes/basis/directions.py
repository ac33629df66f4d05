"""Which basis: directions in order of what is lost without them.

What a sum over classes makes of ``x`` with second moments A and of weights W with ``B = W W^T`` is lost with a
direction to the share that it has in ``tr(A B)``. With Cholesky factors of both and ``La^T Lb = U S V^T``, in the basis
``R = La^-T U S^1/2`` the two are diagonal and alike, and the loss without the last directions is the least that any
projection of this rank has (balanced truncation, Moore 1981; for a product of two activations it is their Eckart-Young
approximation). Where orthogonal matrices alone may be used, principal components of A are taken (SliceGPT, 2401.15024).
"""

from __future__ import annotations

import numpy as np

from graphprune.run.moments import FloatArray

_LEAST = 1e-6
"""What moments are raised by, relative to their mean: directions without any are not told apart by rounding."""


def balanced(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The basis in which two forms are diagonal and alike, greatest first.

    Args:
        left: second moments of what changes by R, shape ``[copies, n, n]``.
        right: of what changes by ``R^-T``.

    Returns:
        R and ``R^-T``, of the same shape; the mean size of what changes by R stays what it was.
    """
    first, second = np.linalg.cholesky(_raised(left)), np.linalg.cholesky(_raised(right))
    u, s, v = np.linalg.svd(first.transpose(0, 2, 1) @ second)
    root = np.sqrt(s)[:, None, :]
    forth = np.linalg.solve(first.transpose(0, 2, 1), u) * root
    back = np.linalg.solve(second.transpose(0, 2, 1), v.transpose(0, 2, 1)) * root
    size = np.sqrt(np.trace(left, axis1=1, axis2=2) / np.maximum(s.sum(1), 1e-30))[:, None, None]
    size = np.where(size > 0, size, 1.0)
    return forth * size, back / size


def principal(moments: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Principal components, greatest first; both matrices are the same.

    Args:
        moments: shape ``[copies, n, n]``.
    """
    basis = np.linalg.eigh(moments)[1][:, :, ::-1]
    # of an eigenvector either sign serves: the one that makes its largest entry positive is taken
    largest = np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None, :], 1)
    basis = basis * np.where(largest < 0, -1.0, 1.0)
    return basis, basis


def _raised(moments: FloatArray) -> FloatArray:
    size = moments.shape[-1]
    mean = np.trace(moments, axis1=1, axis2=2)[:, None, None] / size
    raised: FloatArray = moments + np.where(mean > 0, _LEAST * mean, 1.0) * np.eye(size)
    return raised
