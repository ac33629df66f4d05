import numpy as np
import pytest
from onnx import ModelProto

from graphprune import analyze
from graphprune.errors import InputError
from graphprune.passes.choose import magnitude, ratio
from models.small import Net, attention, chain, residual


def wide(*channels: int) -> ModelProto:
    net = Net()
    y, last = net.input("x", ["batch", 3, 4, 4]), 3
    for c in channels:
        y, last = net.op("Relu", net.conv(y, last, c)), c
    return net.model(net.conv(y, last, 2))


def removed(model: ModelProto, share: float, align: int = 1) -> list[int]:
    analysis = analyze(model)
    groups, _ = ratio.candidates(analysis)
    chosen = ratio.select(analysis, groups, magnitude.score(analysis, groups), share, align)
    return [len(chosen.selection.get(g.id, [])) for g in groups]


@pytest.mark.parametrize(("share", "expected"), [(0, [0, 0]), (0.3, [3, 1]), (0.5, [5, 2]), (0.99, [9, 4])])
def test_the_share_is_rounded_down_and_something_stays(share: float, expected: list[int]) -> None:
    assert removed(wide(10, 5), share) == expected


def test_ratios_that_floating_point_misses_are_met() -> None:
    assert removed(wide(100), 0.29) == [29]


def test_the_least_important_go_first() -> None:
    analysis = analyze(chain())
    (group,) = analysis.groups
    scores = {group.id: np.array([5, 1, 4, 2, 3, 6, 0, 7.0])}
    assert ratio.select(analysis, [group], scores, 0.5).selection == {group.id: [1, 3, 4, 6]}


@pytest.mark.parametrize(
    ("channels", "align", "expected"),
    [
        ((32,), 8, [8]),  # 32 - 9 = 23 goes up to 24
        ((20,), 8, [4]),  # 14 goes up to 16
        ((24,), 8, [0]),  # 17 goes up to 24
        ((12,), 8, [0]),  # nothing at or above 9 is a multiple of 8
        ((32,), 16, [0]),
        ((64,), 16, [16]),
    ],
)
def test_alignment_rounds_up_what_stays(channels: tuple[int, ...], align: int, expected: list[int]) -> None:
    assert removed(wide(*channels), 0.3, align) == expected


def test_alignment_of_heads_counts_the_width_of_their_projections() -> None:
    analysis = analyze(attention(heads=6, size=16))
    groups = [g for g in analysis.groups if g.kind == "head"]
    chosen = ratio.select(analysis, groups, magnitude.score(analysis, groups), 0.4, 8)
    assert [len(c) for c in chosen.selection.values()] == [2]


def test_alignment_of_head_dims_keeps_every_head_aligned() -> None:
    analysis = analyze(attention(heads=4, size=32))
    groups = [g for g in analysis.groups if g.kind == "head_dim"]
    chosen = ratio.select(analysis, groups, magnitude.score(analysis, groups), 0.3, 8)
    assert [len(c) for c in chosen.selection.values()] == [8, 8]


def test_what_nothing_was_taken_from_says_why() -> None:
    analysis = analyze(wide(2, 10, 12))
    groups, _ = ratio.candidates(analysis)
    scores = magnitude.score(analysis, groups)
    reasons = [str(u) for u in ratio.select(analysis, groups, scores, 0.3).untouched]
    assert reasons == ["0.3 of 2 classes is less than one"]
    reasons = [str(u) for u in ratio.select(analysis, groups, scores, 0.3, 8).untouched]
    assert reasons == ["0.3 of 2 classes is less than one", "no width from 9 up is a multiple of 8 and below 12"]


def test_globs_on_groups_and_nodes() -> None:
    analysis = analyze(residual())
    everything = [g.id for g in ratio.candidates(analysis)[0]]
    assert len(everything) == 3
    inner = [g.id for g in ratio.candidates(analysis, exclude=[everything[0]])[0]]
    assert inner == everything[1:]
    assert [g.id for g in ratio.candidates(analysis, include=["node_Gemm*"])[0]] == everything[:1]
    left = ratio.candidates(analysis, include=["conv_*"], exclude=["node_Gemm*"])[1]
    assert left == [ratio.Untouched("excluded by 'node_Gemm*'", group=everything[0], cause=ratio.Cause.ASKED)]


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_glob_that_matches_nothing_is_a_slip(option: str) -> None:
    with pytest.raises(InputError, match="'nothing\\*' matches no group"):
        ratio.candidates(analyze(chain()), **{option: ["nothing*"]})


def test_statistical_groups_are_left_alone() -> None:
    net = Net()
    y = net.linear(net.input("x", ["batch", "length", 4]), 4, 6)
    y = net.op("LayerNormalization", y, net.weight(6), net.weight(6))
    groups, left = ratio.candidates(analyze(net.model(net.linear(y, 6, 3))))
    assert not groups and left[0].cause is ratio.Cause.STATISTICAL


@pytest.mark.parametrize(("share", "align"), [(1.0, 1), (-0.1, 1), (float("nan"), 1), (0.5, 0)])
def test_arguments_out_of_range(share: float, align: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        ratio.select(analyze(chain()), [], {}, share, align)


def test_two_groups_never_empty_an_axis_between_them() -> None:
    """Whole groups and positions of a grouped convolution cut the same axis."""
    net = Net()
    y = net.conv(net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 4), 4, 4, group=2)
    model = net.model(net.conv(y, 4, 2))
    assert removed(model, 0.5) == [1, 1, 1]
