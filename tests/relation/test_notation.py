import numpy as np
import pytest

from graphprune.relation import pattern
from graphprune.relation.binding import bind, pinned
from graphprune.relation.errors import FitError, NotationError
from graphprune.relation.notation import Line, parse, read


def test_composites_take_their_unknown_factor_from_the_shape() -> None:
    relation = bind("n (g i) -> n (g i)", [(5, 12)], [(5, 12)], sizes={"g": 4})
    assert [(d.name, d.size) for d in relation.dims] == [("g", 4), ("n", 5), ("i", 3)]
    assert relation.inputs[0] is not None and relation.inputs[0][1].dims == (0, 2)


def test_marks_become_reasons() -> None:
    relation = bind("!a ~b +c -> !a ~b +c", [(2, 3, 4)], [(2, 3, 4)], reason="why", statistic="mean")
    assert [(d.pinned, d.statistic, d.summed) for d in relation.dims] == [
        ("why", None, False),
        (None, "mean", False),
        (None, None, True),
    ]
    assert pattern(relation) == "!a ~b +c -> !a ~b +c"


def test_ellipsis_lines_up_from_the_right_and_broadcasts() -> None:
    relation = bind(Line("... m k, ... k o -> ... m o", macs="... m k o"), [(7, 1, 2, 3), (5, 3, 4)], [(7, 5, 2, 4)])
    assert pattern(relation) == "b1 1 m k, b0 k o -> b1 b0 m o"
    assert [[relation.dims[d].name for d in p] for p in relation.macs] == [["b1", "b0", "m", "k", "o"]]


def test_variadic_words_number_their_axes() -> None:
    assert pattern(bind("n c !*x -> n c !*y", [(2, 3, 8, 8)], [(2, 3, 4, 4)])) == "n c !x0 !x1 -> n c !y0 !y1"


def test_a_number_is_a_pinned_dim_of_that_size() -> None:
    relation = bind("(4 h) i -> h i", [(20, 3)], [(5, 3)])
    assert relation.dims[0].size == 4 and relation.dims[0].pinned


def test_axes_of_one_element_have_no_dim() -> None:
    relation = bind("a b, a b -> a b", [(1, 3), (2, 1)], [(2, 3)])
    assert pattern(relation) == "1 b, a 1 -> a b"


def test_alternatives_are_taken_by_rank_and_absent_operands_skipped() -> None:
    assert pattern(bind("k, k -> | m k, k -> m", [(2, 3), (3,)], [(2,)])) == "m k, k -> m"
    assert pattern(bind("m, m -> m", [(2,), None], [(2,)])) == "m, _ -> m"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a b", "exactly one '->'"),
        ("a -> b -> c", "exactly one '->'"),
        ("((a b) c) -> a", "do not nest"),
        ("a) -> a", "without"),
        ("(a -> a", "not closed"),
        ("(*a b) -> a", "several axes"),
        ("*a *b -> a", "only one variadic"),
        ("a ? -> a", "cannot read"),
    ],
)
def test_errors_quote_the_pattern_and_the_rule(pattern: str, message: str) -> None:
    with pytest.raises(NotationError, match=message) as error:
        parse(pattern)
    assert pattern.split("->")[0].strip() in str(error.value)


@pytest.mark.parametrize(
    ("zero", "sums", "macs", "message"),
    [
        ("0*", "", "", r"'0\*': what is zero is a sum of products"),
        ("x", "", "", "'x': what is zero"),
        ("0;0*2", "", "", "speaks of input 2, and 'a b, c -> a b' has 2"),
        ("", "0+3", "", "speaks of input 3"),
        ("", "", "a b d", "speaks of dim 'd'"),
        ("", "", "a *b", r"speaks of dim '\*b'"),
    ],
)
def test_what_is_said_beside_a_pattern_is_read_with_it(zero: str, sums: str, macs: str, message: str) -> None:
    assert read(Line("a b, c -> a b", "0*1+0;/1", "always", "a b + c")) == parse("a b, c -> a b")
    with pytest.raises(NotationError, match=message):
        read(Line("a b, c -> a b", zero, sums, macs))
    with pytest.raises(NotationError, match=message):  # whatever the shapes
        bind(Line("a b, c -> a b", zero=zero, sums=sums, macs=macs), [(2,)], [(2,)])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(FitError, match="'a' is 2 in one place and 3 in another"):
        bind("a, a -> a", [(2,), (3,)], [(2,)])
    with pytest.raises(FitError, match="no product with 4"):
        bind("(g i) -> (g i)", [(10,)], [(10,)], sizes={"g": 4})
    with pytest.raises(FitError, match="does not fit"):
        bind("a b -> a", [(2,)], [(2,)])
    with pytest.raises(FitError, match="not known beforehand"):
        bind("(a b) -> a", [(6,)], [(2,)])


def test_pinned_relation_ties_nothing_together() -> None:
    relation = pinned([(2, 3)], [(2, 3)], "unknown")
    used = [d for _, axes in relation.slots() for a in axes for d in a.dims]
    assert len(used) == len(set(used)) == 4
    assert all(d.pinned == "unknown" for d in relation.dims)
    assert np.all([d.size > 1 for d in relation.dims])
