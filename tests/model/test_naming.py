"""What a word of the user's stands for: names, globs, modules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.model import naming

NAMES = (
    "/encoder/layer.3/attention/MatMul",
    "encoder.layer.3.dense.weight",
    "/encoder/layer.30/Add",
    "layer:/encoder/layer.3/Add",
    "conv_1",
    "conv_1:0",
    "conv_10",
    "w[0]",
)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("/encoder/layer.3", [0, 1]),
        ("encoder.layer.3", [0, 1]),
        ("encoder/layer/3/", [0, 1]),
        ("/encoder/layer.3/attention/MatMul", [0]),
        ("/encoder", [0, 1, 2]),
        ("layer.3", []),
        ("encoder/lay", []),
        ("conv_1", [4]),
        ("conv_1*", [4, 5, 6]),
        ("encoder/*", [0, 2]),
        ("*/layer.3/", [0, 3]),
        ("*.weight", [1]),
        ("w[0]", [7]),
        ("/", []),
        ("", []),
    ],
)
def test_what_a_word_stands_for(text: str, places: list[int]) -> None:
    assert [k for k, name in enumerate(NAMES) if naming.matches(name, text)] == places


@given(st.text("a./[!]*", min_size=1, max_size=4), st.text("a./[!]*", min_size=1, max_size=6))
def test_one_name_alone(name: str, other: str) -> None:
    assert naming.matches(name, naming.exactly(name))
    if "a" in name[:1]:  # names of weights and groups: those that begin with a sign are none that exporters write
        assert naming.matches(other, naming.exactly(name)) == (name == other)


def test_a_slip_is_answered_by_names_and_modules() -> None:
    assert naming.near("/encoder/layr.3", NAMES) == "; did you mean '/encoder/layer.3'?"
    assert naming.near("encoder.layer.3.dense.wieght", NAMES) == "; did you mean 'encoder.layer.3.dense.weight'?"
    assert naming.near("zzzz", NAMES, otherwise="; look") == "; look"
