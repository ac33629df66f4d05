"""Whole blocks and widths on one scale: pairs are not sums, and what goes with a block need not be narrower."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

import graphprune
from graphprune.analysis import cost
from graphprune.analysis.blocks import Block, find_blocks
from graphprune.passes.aim.blocks import Scale, Weighed
from graphprune.passes.choose import meters
from graphprune.passes.choose.allocation import Asked, Budget, allocate
from graphprune.passes.choose.criteria import Ranking
from graphprune.passes.choose.widths import Widths
from graphprune.passes.depth.depth import Request, choose, take_out
from tests.passes.test_influence import stack


def block(number: int) -> Block:
    return Block(f"branch:{number}", "branch", f"out{number}", f"in{number}", f"exit{number}", (number,), 0, 1)


def weighed(alone: list[float], pair: float, saved: float = 0.25, whole: float = 1.0) -> Weighed:
    """Blocks of some distances alone, of which the first two lose another when they go together."""

    def distances(sets: Sequence[Sequence[Block]]) -> list[float]:
        found = []
        for one in sets:
            numbers = {int(b.id.partition(":")[2]) for b in one}
            found.append(sum(alone[n] for n in numbers) + (pair if numbers == {0, 1} else 0.0))
        return found

    blocks = [block(k) for k in range(len(alone))]
    return Weighed.of(blocks, lambda some: whole - saved * len(some), distances, whole)


@pytest.mark.parametrize(("pair", "taken"), [(0.0, [0, 1]), (0.2, [0]), (-0.05, [0, 1])])
def test_a_pair_is_not_the_sum_of_both(pair: float, taken: list[int]) -> None:
    """Each saves 0.25 of widths for 0.1 of its own; together that is true only where neither needs the other."""
    assert weighed([0.1, 0.12, 0.9], pair).choose() == taken


def test_what_a_fit_leaves_decides() -> None:
    one = weighed([0.1, 0.4], 0.0)
    assert one.choose() == [0] and one.choose(0.5) == [0, 1]
    assert one.left([0], math.sqrt(0.75 + 0.03)) == pytest.approx(0.3)
    assert one.told([0]).effects == pytest.approx((math.sqrt(0.1),))


def test_costs_without_nodes_are_those_of_the_model_without_them() -> None:
    """And widths inside of what goes lose nothing, so that the others stay wider."""
    analysis = graphprune.analyze(stack((1.0, 0.4, 0.5)))
    blocks = [b for b in find_blocks(analysis).blocks if not b.parts]
    widths = Widths(analysis, [], {})
    for one in blocks:
        left = take_out(analysis, choose(analysis, Request([one.id])), prove=False).analysis
        assert meters.macs(widths, set(one.nodes)).total == cost.macs(left)
        assert meters.parameters(widths, set(one.nodes)).total == cost.parameters(left.model)
    rankings = {g.id: Ranking(np.arange(1.0, g.size + 1), np.arange(g.size + 1) / g.size) for g in analysis.groups}
    asked = Asked((Budget("macs", 0.7 * cost.macs(analysis), meters.macs),), depth=0.9)
    allocated = allocate(analysis, [g for g in analysis.groups if not g.pinned.any()], rankings, asked)
    scale = Scale(analysis, allocated, 2.0)
    assert scale([]) == pytest.approx(2 * allocated.lost) and allocated.lost > 0
    assert all(scale([one]) < scale([]) for one in blocks if one.macs)
