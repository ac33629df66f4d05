"""Blocks: parts of a model that can be taken out whole, so that the graph closes behind them.

Found from the data graph alone; no operator and no architecture is named. A *branch* is what enters one operand of a
sum: without it the sum is its other operand, which is what the branch times zero would leave. A *layer* leads from one
tensor to another of the same shape and type, at every size of the inputs: without it the second is the first. Either
way, a block is one tensor that is replaced by another, and what nothing needs any more goes.

1. Branches: for each sum of two activations, operands that nothing else reads, behind which there is a product, and
   which lead back to a tensor of the sum's own shape.
2. Layers: from each tensor to the nearest tensor of its shape and type that all it leads to must pass (an immediate
   post-dominator, or one further up), where a product lies between. Trailing operators belong to it where the same
   operator made what it starts from: the norm behind a sum in post-norm transformers, the rectifier in residual nets.
   Where no way round the products leads through (no skip), it is a layer only outside of branches: a square projection
   inside of an attention is none.
3. Runs: layers in a row; where their products repeat with a period of several (attention, then feed-forward), each
   period is a layer as well, and so is the whole row (a stage).

What looks like a branch and is none is kept with the reason.
"""

from __future__ import annotations

from graphprune.analysis import Analysis
from graphprune.analysis.blocks.block import Block, Blocks, Fixed
from graphprune.analysis.blocks.branches import Branches
from graphprune.analysis.blocks.context import Context
from graphprune.analysis.blocks.layers import Layers
from graphprune.analysis.blocks.runs import Runs, finished
from graphprune.analysis.blocks.states import carried, grown

__all__ = ["Block", "Blocks", "Fixed", "carried", "find_blocks", "grown"]


def find_blocks(analysis: Analysis, allow_io: bool = False) -> Blocks:
    """Every block of a model.

    Args:
        analysis: of the model.
        allow_io: also blocks that hold a state that callers carry round (a cache): its inputs and outputs go with them.
    """
    context = Context(analysis, allow_io)
    Branches(context).run()
    atoms = Layers(context).run()
    whole = Runs(context).run(atoms)
    blocks = finished(context, context.found + whole)
    replaced = {b.output for b in blocks}
    return Blocks(blocks, [f for f in context.fixed.values() if f.output not in replaced])
