"""Which basis: directions in order of what is lost without them.

What a sum over classes makes of ``x`` with second moments A and of weights W with ``B = W W^T`` is lost with a
direction to the share that it has in ``tr(A B)``. With roots of both, ``A = La La^T``, and ``La^T Lb = U S V^T``, in
the basis ``R = La^-T U S^1/2`` the two are diagonal and alike, and the loss without the last directions is the least
that any projection of this rank has (balanced truncation, Moore 1981; for a product of two activations it is their
Eckart-Young approximation). Where orthogonal matrices alone may be used, principal components of A are taken
(SliceGPT, 2401.15024).

A basis in which directions that inputs hardly reach are blown up would be undone by rounding: moments are raised until
R is well enough conditioned.
"""

from __future__ import annotations

import numpy as np

from graphprune.run.moments import FloatArray

FLOORS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""What moments have in each direction at least, beside their mean: the first that conditions R well enough."""
CONDITION = 100.0
"""Of R at most: single precision loses so many times its resolution."""


def balanced(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The basis in which two forms are diagonal and alike, greatest first.

    Args:
        left: second moments of what changes by R, shape ``[copies, n, n]``.
        right: of what changes by ``R^-T``.

    Returns:
        R and ``R^-T``, of the same shape; the mean size of what changes by R stays what it was.
    """
    forth, back = _balanced(left, right, FLOORS[0])
    for floor in FLOORS[1:]:
        wild = np.flatnonzero(np.linalg.cond(forth) > CONDITION)
        if len(wild):
            forth[wild], back[wild] = _balanced(left[wild], right[wild], floor)
    return forth, back


def _balanced(left: FloatArray, right: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    (first, first_back), (second, second_back) = _roots(left, floor), _roots(right, floor)
    u, s, v = np.linalg.svd(first.transpose(0, 2, 1) @ second)
    root = np.sqrt(s)[:, None, :]
    forth, back = first_back @ u * root, second_back @ v.transpose(0, 2, 1) * root
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


def _roots(moments: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """L with ``L L^T`` the moments, raised where they are all but zero, and ``L^-T``."""
    sizes, basis = np.linalg.eigh((moments + moments.transpose(0, 2, 1)) / 2)
    mean = sizes.mean(1, keepdims=True)
    root = np.sqrt(np.maximum(sizes, np.where(mean > 0, floor * mean, 1.0)))[:, None, :]
    return basis * root, basis / root
