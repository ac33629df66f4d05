"""Depth pruning: whole blocks go, those that are named or those that matter least, before anything else is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from graphprune.analysis import Analysis, analyze
from graphprune.analysis.blocks import carried, find_blocks
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.passes.depth import influence
from graphprune.progress import Steps, unseen
from graphprune.proof import bypass_proof
from graphprune.proof.proof import Proof
from graphprune.relation import Shape
from graphprune.rewrite.bypass import remove, resolve
from graphprune.rewrite.plan import BlockPlan
from graphprune.run import calibration, sizing
from graphprune.run.calibration import still
from graphprune.run.runtime import Feeds

_MOST_RUNS = 32


@dataclass(frozen=True)
class Request:
    """Which blocks are to go.

    Attributes:
        names: ids or globs. All that match go; where ``count`` is given they are what it is chosen from.
        count: how many go, by score.
        score: ``influence`` or ``effect`` (see ``graphprune.passes.depth.influence``).
        inputs: where inputs to score on come from (see ``graphprune.run.calibration``); white noise by default.
    """

    names: Sequence[str] = ()
    count: int = 0
    score: str = influence.SCORES[0]
    inputs: calibration.Source | None = None

    def __bool__(self) -> bool:
        return bool(self.names or self.count)

    def check(self) -> None:
        """Raise InputError where a value is out of range."""
        if self.count < 0:
            raise InputError(f"--blocks {self.count} is out of range: it is how many are to go")
        if self.score not in influence.SCORES:
            raise InputError(f"--block-score {self.score!r} is none of {', '.join(influence.SCORES)}")


def request(given: Request | int | Sequence[str] | None) -> Request:
    """A request from what a caller gives: how many, or which.

    Raises:
        InputError: a value is out of range.
    """
    if isinstance(given, int):
        given = Request(count=given)
    found = given if isinstance(given, Request) else Request(names=given or ())
    found.check()
    return found


@dataclass
class Shallower:
    """A model without some blocks.

    Attributes:
        analysis: of the model that is left.
        entries: what was replaced by what, in the original.
        scores: of each entry, where they were chosen by score.
        interface: inputs and outputs of the graph that went.
        proof: None where none was asked for.
    """

    analysis: Analysis
    entries: list[BlockPlan]
    scores: list[float | None] = field(default_factory=list)
    interface: list[dict[str, Any]] = field(default_factory=list)
    proof: Proof | None = None


def choose(
    analysis: Analysis,
    request: Request,
    input_shapes: Mapping[str, Shape] | None = None,
    allow_io: bool = False,
    seed: int = 0,
    progress: Steps = unseen,
) -> influence.Taken:
    """The entries of the blocks that are to go.

    Raises:
        InputError: no block is called so, two overlap, or fewer can go than were asked for.
    """
    blocks = find_blocks(analysis, allow_io).blocks
    named = influence.matching(analysis, blocks, request.names) if request.names else []
    if not request.count:
        entries = resolve(analysis, named)
        return influence.Taken(entries, [None] * len(entries))
    feeds = _feeds(analysis.model, request, input_shapes, seed)
    return influence.take(
        analysis, request.count, request.names, request.score, feeds, input_shapes, allow_io, progress
    )


def _feeds(model: Model, request: Request, input_shapes: Mapping[str, Shape] | None, seed: int) -> list[Feeds]:
    """Inputs to score on: those that are named, or white noise at the first two sizes that the model accepts."""
    if request.inputs is not None:
        return list(islice(calibration.batches(request.inputs, model, input_shapes, seed)(), _MOST_RUNS))
    return list(islice(sizing.accepted(model, input_shapes, seed), 2))


def take_out(
    analysis: Analysis,
    taken: influence.Taken,
    input_shapes: Mapping[str, Shape] | None = None,
    allow_io: bool = False,
    prove: bool = True,
    seed: int = 0,
) -> Shallower:
    """Take blocks out, prove it, and analyse what is left at the same sizes.

    Raises:
        InputError: an entry does not fit the model.
        ProofError: the result is not what the original does without the blocks.
    """
    done = remove(analysis, taken.entries, carried(analysis) if allow_io else {})
    proof = None
    if prove:
        witness = analysis.witness
        sizes = [witness.first.inputs, witness.second.inputs, *sizing.alternatives(analysis.model, input_shapes)]
        distinct = [one for k, one in enumerate(sizes) if one not in sizes[:k]]
        proof = bypass_proof.prove(analysis, done.model, taken.entries, distinct, seed)
    left = [i.name for i in done.model.inputs]
    found = analyze(done.model, still(input_shapes, done.model), allow_io=allow_io)
    if any(found.witness.inputs[n] != analysis.witness.inputs[n] for n in left):
        found = analyze(done.model, {n: analysis.witness.inputs[n] for n in left}, allow_io=allow_io)
    return Shallower(found, [replace(e) for e in taken.entries], taken.scores, done.interface, proof)
