"""What is zero, as a value: read once, asked by name, printed as it was written."""

import pytest

from graphprune.relation.errors import NotationError
from graphprune.relation.zero import ALWAYS, NEVER, Sum, Zero


@pytest.mark.parametrize(
    ("text", "products", "divisors"),
    [
        ("0*1+2", ((0, 1), (2,)), ()),
        ("0/1", ((0,),), (1,)),
        ("/0", (), (0,)),
        ("0+1/2", ((0,), (1,)), (2,)),
        ("", (), ()),
        ("always", ((),), ()),
    ],
)
def test_a_sum_is_read_and_printed(text: str, products: tuple[tuple[int, ...], ...], divisors: tuple[int, ...]) -> None:
    read = Sum.parse(text)
    assert (read.products, read.divisors) == (products, divisors)
    assert Sum.parse(str(read)) == read
    if text != "0+1/2":  # which term is divided does not matter
        assert str(read) == text


@pytest.mark.parametrize("text", ["0*", "x", "0**1", "always+0", "0;1", "0/1/2"])
def test_what_is_no_sum(text: str) -> None:
    with pytest.raises(NotationError, match="what is zero is a sum of products"):
        Sum.parse(text)


def test_outputs_differ_or_share_a_sum() -> None:
    apart, shared = Zero.parse("1+2;;/0"), Zero.parse("0")
    assert [str(apart.of(k)) for k in range(3)] == ["1+2", "", "/0"] and str(apart) == "1+2;;/0"
    assert shared.of(0) == shared.of(7) == Sum(((0,),))
    assert apart.inputs == (1, 2, 0)


def test_what_it_is_asked() -> None:
    assert Zero() == Zero.parse("") and Zero().never and Zero.parse(";;").never and not Zero.parse(";0").never
    assert NEVER.never and ALWAYS.always and not NEVER.always and not ALWAYS.never
    assert Zero.parse("1").follows(1) and Zero.parse("1;1").follows(1)
    assert not any(Zero.parse(text).follows(1) for text in ("0*1", "0+1", "1;", "1/0", "always", ""))
    assert Sum.parse("0*1/2").single == (0, 1)
    assert Sum.parse("0+1").single == NEVER.single == ALWAYS.single == Sum.parse("/0").single == ()
