from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.checking import check


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (3, 2)),
        ((3,), (2, 3, 2)),
        ((2, 2, 3), (3,)),
        ((2, 2, 3), (3, 2)),
        ((2, 3), (2, 3, 2)),
        ((2, 1, 2, 3), (3, 3, 2)),
        ((1, 2, 3), (2, 3, 1)),
    ],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    check("MatMul", _normal(*left), _normal(*right, seed=1))


@settings(max_examples=8, deadline=None)
@given(st.booleans(), st.booleans(), st.sampled_from([None, (), (1,), (4,), (2, 1), (1, 4), (2, 4)]), st.booleans())
def test_gemm(ta: bool, tb: bool, bias: tuple[int, ...] | None, scaled: bool) -> None:
    a, b = _normal(*((3, 2) if ta else (2, 3))), _normal(*((4, 3) if tb else (3, 4)), seed=1)
    more = [] if bias is None else [_normal(*bias, seed=2)]
    factors = {"alpha": 0.5, "beta": 2.0} if scaled else {}
    check("Gemm", a, b, *more, transA=int(ta), transB=int(tb), **factors)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 2)]),
        ("bij,bkj->bik", [(2, 2, 3), (2, 3, 3)]),
        ("bhid,bhjd->bhij", [(1, 2, 2, 3), (1, 2, 3, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ij->i", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii->", [(3, 3)]),
        ("iji->j", [(2, 3, 2)]),
        ("iijk->k", [(2, 2, 3, 2)]),
        ("i,j->ij", [(2,), (3,)]),
        ("ij,jk", [(2, 3), (3, 2)]),
        ("...ij,...jk->...ik", [(1, 2, 3), (2, 3, 2)]),
        ("i...,i...->...", [(2, 3), (2, 3)]),
        ("...,...", [(2, 3), (2, 1)]),
        ("a,ab,bc->c", [(2,), (2, 3), (3, 2)]),
        ("abc,bd->ad", [(2, 3, 2), (3, 2)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [_normal(*s, seed=k) for k, s in enumerate(shapes)]
    check("Einsum", *operands, equation=equation)
