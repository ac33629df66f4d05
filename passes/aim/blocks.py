"""Whole blocks beside widths: which of them lose less than narrower widths that save as much.

What a first try lost of the outputs, beside what it saved, is the mean price of widths. A block whose removal loses
little beside what it saves is worth a try: the outputs are compared with it bypassed, nothing fitted. Blocks are taken
in the order of their price, as long as all together do not save most of what is asked for. Whether that was right is
measured: the next try has the same targets, and the one that loses less is taken.
"""

from __future__ import annotations

import math
from itertools import islice

from graphprune.analysis import cost
from graphprune.analysis.blocks import find_blocks
from graphprune.passes.depth import influence
from graphprune.passes.depth.remove import Worthwhile
from graphprune.passes.state import State

_RUNS = 8
_PRICE = 2.0
"""Of the mean price of widths, what the price of a block must be below: the last widths cost more than their mean."""
_MOST = 0.8
"""Of what is to be saved, how much blocks may."""


def worthwhile(state: State, loss: float, saved: float) -> Worthwhile | None:
    """Blocks that lose less than widths do; None where none does.

    Args:
        state: of the job, at its end.
        loss: relative distance of the outputs that cutting widths alone came to.
        saved: the share of the multiply-accumulates that it saved; of parameters, where the model has no others.
    """
    analysis = state.analysis(state.original)
    blocks = [block for block in find_blocks(analysis, state.job.allow_io).blocks if not block.parts]
    batches = state.batches(state.original)
    if not blocks or batches is None or not 0 < loss < math.inf or saved <= 0:
        return None
    macs = cost.macs(analysis)
    whole = macs or cost.parameters(analysis.model)
    shares = [(block.macs if macs else block.parameters) / whole for block in blocks]
    effects = influence.score_all(analysis, blocks, "effect", list(islice(batches(), _RUNS)))
    order = sorted(range(len(blocks)), key=lambda k: effects[k] / max(shares[k], 1e-12))
    taken, gone = list[int](), 0.0
    for k in order:
        cheap = effects[k] < _PRICE * loss / saved * shares[k]
        apart = all(set(blocks[k].nodes).isdisjoint(blocks[other].nodes) for other in taken)
        if cheap and apart and gone + shares[k] <= _MOST * saved:
            taken.append(k)
            gone += shares[k]
    if not taken:
        return None
    return Worthwhile(tuple(blocks[k].id for k in taken), tuple(effects[k] for k in taken))
