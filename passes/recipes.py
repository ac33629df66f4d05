"""The recipes of the main jobs: what ``prune``, ``sparsify`` and ``apply`` are, and where their defaults are chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.naming import exactly
from graphprune.passes import budget
from graphprune.passes.aim.meet import Meet
from graphprune.passes.basis.again import ReplayBases
from graphprune.passes.basis.centre import Centre
from graphprune.passes.basis.rotate import Rotate
from graphprune.passes.choose import criteria
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.fold import FoldConstants
from graphprune.passes.choose.select import Select
from graphprune.passes.choose.steering import Steering, part
from graphprune.passes.contract import Pass
from graphprune.passes.cut import Cut
from graphprune.passes.depth import depth
from graphprune.passes.depth.remove import RemoveBlocks, SelectBlocks
from graphprune.passes.distill import durations
from graphprune.passes.distill.distill import STEPS, Distill
from graphprune.passes.fit import compensation
from graphprune.passes.fit.fit import Fit
from graphprune.passes.judge import Validate
from graphprune.passes.rank.low_rank import LowRank
from graphprune.passes.recipe import Recipe
from graphprune.passes.replay import ReplayBlocks, ReplayGroups, SameSlices
from graphprune.passes.smaller import Smaller
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.passes import Permute, Sparsify
from graphprune.passes.sparse.store import STORES, Store
from graphprune.passes.sparse.store import check as check_store
from graphprune.passes.state import Job
from graphprune.passes.transfer import SameInterface, TakeValues, TransferGroups
from graphprune.passes.vocabulary.vocabulary import Vocabulary
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan
from graphprune.verdict.checks import Checks


@dataclass(frozen=True)
class Wish:
    """Which classes are to go, as ``prune`` is asked for them, and in how many rounds; see :class:`Select`.

    Attributes:
        target: what the result is to come to, in place of a ratio; None for none.
        search: how long better allocations are looked for, in each round.
        rotate: whether bases are changed first (see ``graphprune.passes.basis``); None does it with inputs.
        low_rank: which weights become products of two, behind the fits; None for none.
        vocabulary: which ids stay, last of all; None for all.
    """

    ratio: float = 0.0
    align: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False
    criterion: str | None = None
    uniform: bool = False
    steps: int = 1
    backend: str | None = None
    steering: Steering = field(default_factory=Steering)
    target: Meet | None = None
    uniform_widths: bool = False
    search: str | None = None
    rotate: bool | None = None
    low_rank: LowRank | None = None
    vocabulary: Vocabulary | None = None

    @property
    def asks(self) -> bool:
        """Whether any class is to go."""
        return bool(self.ratio or self.target) or any(self.steering.ratios.values())

    @property
    def reshapes(self) -> bool:
        """Whether weights are to become products of two, or ids to go."""
        return self.low_rank is not None or self.vocabulary is not None

    def shares(self) -> list[float]:
        """What share of the original's classes is gone after each round: each takes the same of what is left."""
        return [part(self.ratio, k / self.steps) for k in range(1, self.steps + 1)]

    def rounds(self, criterion: str) -> list[Select]:
        """The choice of each round, none where nothing is asked for."""
        plain = (criterion, self.uniform, self.align, self.include, self.exclude, self.allow_statistical, self.backend)
        steered = (vars(self.steering.scaled(k / self.steps)) for k in range(1, self.steps + 1))
        return [
            Select(
                None if self.target else ratio, *plain, **own, uniform_widths=self.uniform_widths, search=self.search
            )
            for ratio, own in zip(self.shares(), steered, strict=True)
            if self.asks
        ]

    def check(self) -> None:
        """Raise InputError where a value is out of range."""
        by_ratio.check_ratio(self.ratio, self.align)
        self.steering.check()
        if self.steps < 1:
            raise InputError(f"--steps {self.steps} is out of range: it must be at least 1")
        if self.steps > 1 and not self.asks:
            raise InputError(f"--steps {self.steps} says in how many rounds a --ratio or --target goes: give one")
        if self.ratio and self.target:
            raise InputError("--ratio and --target both say how much goes: give one of them")
        if self.search is not None and not self.asks:
            raise InputError(
                f"--search {self.search} looks for what a --ratio or --target is best taken from: give one"
            )


def pruning(
    wish: Wish,
    job: Job,
    blocks: depth.Request | None = None,
    sparsity: sparse.Request | None = None,
    compensate: str | None = None,
    checks: Checks | None = None,
    store: str = STORES[0],
    distill: str | int | bool = False,
) -> Recipe:
    """Remove blocks, then classes, make what is left sparse, make up for what went, and judge: as far as asked for.

    Args:
        wish: which classes.
        job: what holds for the whole.
        blocks: which whole blocks, before anything else.
        sparsity: make what is left sparse too; widths then stay multiples of what pattern and TensorRT ask for.
        compensate: one of ``compensation.COMPENSATIONS``: by default ``refit`` with calibration inputs.
        checks: judge the result; None does not.
        store: how weights are stored: one of ``graphprune.passes.sparse.store.STORES``.
        distill: train what is left towards the original: in so many steps, for a time as ``5m``, or by default.

    Raises:
        InputError: a value is out of range.
    """
    calibrated = job.calibration is not None
    wish.check()
    criterion = criteria.resolve_criterion(wish.criterion, calibrated)
    compensate = compensation.resolve_compensation(compensate, calibrated)
    request = None if sparsity is None else sparsity.resolved(calibrated)
    short, full = _distilled(distill, calibrated)
    check_store(store)
    if store == "sparse" and request is None:
        raise InputError("--store sparse is for weights that the run makes sparse: give --pattern, or --store auto")
    if request is not None and request.steps > 1 and request.method == "magnitude" and compensate in ("none", "fold"):
        raise InputError(
            "--steps: by magnitude, with no fit between them, rounds come to what one does; give --calibration"
        )
    passes: list[Pass] = []
    together = wish.target is not None and wish.target.blocks and calibrated and not wish.uniform_widths
    if together and not blocks:
        passes += [SelectBlocks(aimed=True), RemoveBlocks()]
    if blocks:
        passes += [SelectBlocks(blocks.names, blocks.count, blocks.score, blocks.inputs), RemoveBlocks()]
    chosen = wish.rounds(criterion)
    if chosen and (calibrated if wish.rotate is None else wish.rotate):
        passes += [Centre(wish.include, wish.exclude), Rotate(wish.include, wish.exclude)]
    for one in chosen[:-1]:
        passes += [one, Cut(), FoldConstants(), *_fitted(compensate), *short]
    passes += chosen[-1:]
    if request is not None and request.permute:
        passes.append(Permute())
    if chosen or (request is not None and request.permute):
        passes += [Cut(), FoldConstants()] if chosen else [Cut()]
    thinned = [] if request is None else [_sparse(one, compensate) for one in request.rounds()]
    for earlier in thinned[:-1]:
        passes += [earlier, *short]
    last = thinned[-1:] if request is not None else _fitted(compensate) if passes else []
    lower = _there(wish.low_rank)
    passes += [*last, *lower, *full] if request is None else [*lower, *last, *full]
    if wish.target is not None:
        passes.append(wish.target)
    if chosen:
        passes.append(Smaller())
    passes += _there(wish.vocabulary)
    if store != STORES[0]:
        passes.append(Store(store))
    return Recipe(tuple(passes + _judged(checks)), job)


def distilling(one: Distill, job: Job, checks: Checks | None = None) -> Recipe:
    """Train a model towards another one, and judge it.

    Args:
        one: towards which, and how.
        job: what holds for the whole.
        checks: judge the result; None does not.
    """
    return Recipe((one, *_judged(checks)), job)


def replaying(plan: Plan, source: str | os.PathLike[str] | Plan, job: Job) -> Recipe:
    """Redo a plan.

    Args:
        plan: the plan.
        source: the file that it came from, or the plan itself.
        job: what holds for the whole; sizes and interface are those of the plan.

    Raises:
        InputError: the plan asks for what no job can do; says at which entry.
    """
    witness = {n: tuple(s) for n, s in plan.model["witness"].items()}
    own = replace(job, input_shapes=witness, allow_io=bool(plan.interface))
    passes: list[Pass] = [ReplayBlocks(source if isinstance(source, Plan) else os.fspath(source))]
    if plan.blocks:
        passes.append(RemoveBlocks())
    if "centred" in plan.bases:
        passes.append(Centre([exactly(id) for id in plan.bases["centred"]]))
    if "rotated" in plan.bases:
        passes.append(ReplayBases([exactly(id) for id in plan.bases["rotated"]]))
    if plan.groups:
        passes += [ReplayGroups(), Cut(), SameSlices(), FoldConstants()]
    if plan.sparsity and all(replay.masks_again(e) for e in plan.sparsity):
        replay.check_sparsity(plan)
        entry, names = plan.sparsity[0], [exactly(e["name"]) for e in plan.sparsity]
        again = Sparsify(entry["pattern"], "magnitude", amount=entry.get("amount"), include=names)
        again.request.resolved(calibrated=False)
        passes.append(again)
    passes += _there(LowRank.again(plan.factored))
    if plan.groups:
        passes.append(Smaller())
    passes += _there(Vocabulary.again(plan.vocabulary))
    return Recipe(tuple(passes), own)


def transferring(plan: str | Plan, original: str | Model, job: Job, fitted: str | Model | None = None) -> Recipe:
    """Do a plan to another file of the same network.

    Args:
        plan: the plan, or its file.
        original: the model that it was made for.
        job: what holds for the whole.
        fitted: the pruned model of the plan, whose values are taken over; None keeps those of the file.
    """
    passes: list[Pass] = [TransferGroups(plan, original), Cut(), SameInterface(), FoldConstants()]
    if fitted is not None:
        passes.append(TakeValues(original, fitted))
    return Recipe((*passes, Smaller()), replace(job, allow_io=True))


def _fitted(compensate: str) -> list[Pass]:
    """What makes up for what a round has cut, behind each of several: what else is to be done there goes here."""
    return [] if compensate == "none" else [Fit(compensate)]


SHORT = 4
"""The distillation between rounds is so many times shorter than the one behind the last."""


def _distilled(asked: str | int | bool, calibrated: bool) -> tuple[list[Pass], list[Pass]]:
    """The distillation between rounds, and the one behind the last; none where none is asked for."""
    if asked is False:
        return [], []
    if not calibrated:
        raise InputError("--distill learns on inputs: give them by --calibration")
    steps, time = durations.asked(asked)
    full = Distill(steps, time)
    if time is not None:
        return [Distill(time=f"{budget.seconds(time) / SHORT:g}s")], [full]
    return [Distill(max((steps or STEPS) // SHORT, 1))], [full]


def _sparse(request: sparse.Request, compensate: str) -> Sparsify:
    scope = request.scope
    globs: Mapping[str, Any] = {"include": scope.include, "exclude": scope.exclude, "also": scope.also}
    assert request.method is not None
    return Sparsify(request.pattern, request.method, compensate, request.amount, **globs, rewind=request.rewind)


def _there(one: Pass | None) -> list[Pass]:
    return [] if one is None else [one]


def _judged(checks: Checks | None) -> list[Pass]:
    return [] if checks is None else [Validate.of(checks)]
