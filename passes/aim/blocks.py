"""Whole blocks beside widths: which of them lose less than narrower widths that save as much.

Both stand on one scale, the squared distance of the outputs beside the budgets. With a set B of blocks gone

    f(B) = sum_b d_b + sum_{a<b} (d_ab - d_a - d_b) + k E(B)

d is the squared relative distance of the outputs without a block, or without two; E(B) what the widths of all else are
foreseen to lose where they are settled anew for what is then left to save; and k makes of it what the first try was
measured to have lost by widths alone. So a block is worth as much as the widths that may stay in its place, which
depends on all that has gone. A pair is not the sum of both: pairs of the candidates that come nearest to being chosen
are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np

from graphprune.analysis import Analysis
from graphprune.analysis.blocks import Block, find_blocks
from graphprune.passes.choose import goals, meters
from graphprune.passes.choose.allocation import Allocated
from graphprune.passes.choose.goals import Goal, Problem
from graphprune.passes.choose.meters import Meter
from graphprune.passes.choose.widths import Unit, Widths
from graphprune.passes.depth import influence
from graphprune.passes.depth.remove import Worthwhile
from graphprune.passes.state import State
from graphprune.run.runtime import Feeds

_RUNS = 8
_NEAR = 6
"""Candidates of which all pairs are measured."""
_REGAINED, _LEAST = 0.5, 0.1
"""Of what is lost without a block, what a fit leaves of the cheapest candidates, and the least that is believed."""
_GAIN = 0.98
"""Of what is foreseen to be lost, what a further block must bring it below."""
_METERS: Mapping[str, Callable[[Widths, Set[int]], Meter]] = {"macs": meters.macs, "params": meters.parameters}


def weighed(state: State, loss: float, allocated: Allocated) -> Weighed | None:
    """Blocks on the scale of widths; None where there is nothing to be weighed.

    Args:
        state: of the job, at its end.
        loss: relative distance of the outputs that cutting widths alone came to.
        allocated: the widths.
    """
    original, batches, foreseen = state.analysis(state.original), state.batches(state.original), allocated.lost
    # blocks and widths are of one model: that which was chosen from, whose bases may have changed
    analysis = original if allocated.problem is None else allocated.problem.widths.analysis
    there = {block.id for block in find_blocks(original, state.job.allow_io).blocks}
    every = find_blocks(analysis, state.job.allow_io).blocks
    found = [block for block in every if not block.parts and block.id in there]
    if not found or batches is None or not 0 < loss < math.inf or foreseen <= 0:
        return None
    feeds = list(islice(batches(), _RUNS))
    scale = Scale(analysis, allocated, loss**2 / foreseen)
    return Weighed.of(found, scale, lambda sets: measured(analysis, sets, feeds), loss**2)


def measured(analysis: Analysis, sets: Sequence[Sequence[Block]], feeds: Sequence[Feeds]) -> list[float]:
    """The squared relative distance of the outputs without each of some sets of blocks, averaged over inputs."""
    return [float(np.mean(np.square(values))) for values in influence.without(analysis, sets, feeds)]


@dataclass
class Scale:
    """What widths lose when some blocks go too, as a squared distance of the outputs.

    Attributes:
        analysis: of the model.
        allocated: widths without blocks.
        factor: of what is foreseen for them.
    """

    analysis: Analysis
    allocated: Allocated
    factor: float
    known: dict[frozenset[int], float] = field(default_factory=dict, repr=False)

    def __call__(self, blocks: Sequence[Block]) -> float:
        """What is lost by all widths outside of blocks; infinite where the budgets cannot be met so."""
        gone = frozenset(node for block in blocks for node in block.nodes)
        if gone not in self.known:
            self.known[gone] = self._settled(gone)
        return self.known[gone]

    def _settled(self, gone: frozenset[int]) -> float:
        before = self.allocated.problem
        assert before is not None
        widths = Widths(self.analysis, before.widths.units, before.widths.scores)
        errors = [
            np.zeros_like(own) if _inside(self.analysis, unit, gone) else own
            for unit, own in zip(widths.units, before.errors, strict=True)
        ]
        problem = Problem(widths, self._goals(widths, gone), errors, before.numbers)
        if goals.settle(problem) is None:
            return math.inf
        return self.factor * problem.lost

    def _goals(self, widths: Widths, gone: frozenset[int]) -> list[Goal]:
        """The budgets; in place of those that blocks are not counted in, the multiply-accumulates that were left."""
        before = self.allocated.problem
        assert before is not None
        kinds = zip(self.allocated.left, before.goals, strict=True)
        found = [Goal(_METERS[kind](widths, gone), goal.budget) for kind, goal in kinds if kind in _METERS]
        if found:
            return found
        return [Goal(meters.macs(widths, gone), meters.macs(before.widths).total)]


def _inside(analysis: Analysis, unit: Unit, gone: Set[int]) -> bool:
    """Whether all weights of a unit go with blocks."""
    return all(use.node in gone for group in unit.members for use, _ in analysis.weights(group))


@dataclass(frozen=True)
class Weighed:
    """Blocks that can go, and what they lose.

    Attributes:
        blocks: the blocks.
        each: the squared distance of the outputs without each.
        beside: of pairs, by their places, by how much their squared distance is more than the sum of both.
        widths: what widths lose beside some blocks.
        alone: what widths lose where all blocks stay.
    """

    blocks: Sequence[Block]
    each: Sequence[float]
    beside: Mapping[frozenset[int], float]
    widths: Callable[[Sequence[Block]], float] = field(repr=False)
    alone: float

    @classmethod
    def of(
        cls,
        blocks: Sequence[Block],
        widths: Callable[[Sequence[Block]], float],
        distances: Callable[[Sequence[Sequence[Block]]], Sequence[float]],
        alone: float,
    ) -> Weighed:
        """Blocks, with the pairs measured of those that come nearest to being chosen.

        Args:
            blocks: that can go.
            widths: what widths lose beside some blocks.
            distances: what sets of blocks lose, as squared distances.
            alone: what widths lose where all blocks stay.
        """
        each = distances([[block] for block in blocks])
        price = {k: _REGAINED * d + widths([blocks[k]]) for k, d in enumerate(each) if _REGAINED * d < alone}
        near = sorted((k for k in price if price[k] < alone), key=lambda k: price[k])[:_NEAR]
        pairs = [(a, b) for a, b in combinations(near, 2) if _apart(blocks[a], blocks[b])]
        both = distances([[blocks[a], blocks[b]] for a, b in pairs]) if pairs else []
        beside = {frozenset(pair): d - each[pair[0]] - each[pair[1]] for pair, d in zip(pairs, both, strict=True)}
        return cls(blocks, each, beside | {frozenset({k}): 0.0 for k in near}, widths, alone)

    def lost(self, some: Sequence[int]) -> float:
        """The squared distance without some blocks."""
        pairs = sum(self.beside[frozenset(pair)] for pair in combinations(some, 2))
        return max(sum(self.each[k] for k in some) + pairs, 0.0)

    def choose(self, left: float = 1.0) -> list[int]:
        """Places of blocks that lose less than widths do; they are taken one by one.

        Args:
            left: the share of what is lost without them that a fit leaves.
        """
        taken, least = list[int](), self.alone
        near = [k for key in self.beside if len(key) == 1 for k in key]
        while True:
            rest = [k for k in near if k not in taken and all(frozenset((k, one)) in self.beside for one in taken)]
            best = min(((self._total([*taken, k], left), k) for k in rest), default=(math.inf, -1))
            if best[0] >= _GAIN * least:
                return taken
            least = best[0]
            taken.append(best[1])

    def _total(self, some: Sequence[int], left: float) -> float:
        return left * self.lost(some) + self.widths([self.blocks[k] for k in some])

    def left(self, some: Sequence[int], loss: float) -> float:
        """The share of what is lost without some blocks that a fit has left, by the distance that it came to."""
        rest = loss**2 - self.widths([self.blocks[k] for k in some])
        return min(1.0, max(rest / max(self.lost(some), 1e-30), _LEAST))

    def told(self, some: Sequence[int]) -> Worthwhile:
        """What is to go."""
        return Worthwhile(
            tuple(self.blocks[k].id for k in some), tuple(math.sqrt(max(self.each[k], 0.0)) for k in some)
        )


def _apart(one: Block, other: Block) -> bool:
    return set(one.nodes).isdisjoint(other.nodes)
