"""The recipes of the main jobs: what ``prune``, ``sparsify`` and ``apply`` are, and where their defaults are chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

from graphprune.errors import InputError
from graphprune.passes.choose import criteria
from graphprune.passes.choose import ratio as by_ratio
from graphprune.passes.choose.fold import FoldConstants
from graphprune.passes.choose.select import Select
from graphprune.passes.contract import Pass
from graphprune.passes.cut import Cut
from graphprune.passes.depth import depth
from graphprune.passes.depth.remove import RemoveBlocks, SelectBlocks
from graphprune.passes.fit import compensation
from graphprune.passes.fit.fit import Fit
from graphprune.passes.judge import Validate
from graphprune.passes.recipe import Recipe
from graphprune.passes.replay import ReplayBlocks, ReplayGroups, SameSlices
from graphprune.passes.smaller import Smaller
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.passes import Permute, Sparsify
from graphprune.passes.sparse.store import STORES, Store
from graphprune.passes.sparse.store import check as check_store
from graphprune.passes.state import Job
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan
from graphprune.verdict.checks import Checks


@dataclass(frozen=True)
class Wish:
    """Which classes are to go, as ``prune`` is asked for them; see :class:`Select`."""

    ratio: float = 0.0
    align: int | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_statistical: bool = False
    criterion: str | None = None
    uniform: bool = False


def pruning(
    wish: Wish,
    job: Job,
    blocks: depth.Request | None = None,
    sparsity: sparse.Request | None = None,
    compensate: str | None = None,
    checks: Checks | None = None,
    store: str = STORES[0],
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

    Raises:
        InputError: a value is out of range.
    """
    calibrated = job.calibration is not None
    by_ratio.check_ratio(wish.ratio, wish.align)
    criterion = criteria.resolve_criterion(wish.criterion, calibrated)
    compensate = compensation.resolve_compensation(compensate, calibrated)
    request = None if sparsity is None else sparsity.resolved(calibrated)
    check_store(store)
    if store == "sparse" and request is None:
        raise InputError("--store sparse is for weights that the run makes sparse: give --pattern, or --store auto")
    passes: list[Pass] = []
    if blocks:
        passes += [SelectBlocks(blocks.names, blocks.count, blocks.score, blocks.inputs), RemoveBlocks()]
    if wish.ratio:
        passes.append(
            Select(wish.ratio, criterion, wish.uniform, wish.align, wish.include, wish.exclude, wish.allow_statistical)
        )
    if request is not None and request.permute:
        passes.append(Permute())
    if wish.ratio or (request is not None and request.permute):
        passes += [Cut(), FoldConstants()] if wish.ratio else [Cut()]
    if request is not None:
        passes.append(_sparse(request, compensate))
    elif compensate != "none":
        passes.append(Fit(compensate))
    if wish.ratio:
        passes.append(Smaller())
    if store != STORES[0]:
        passes.append(Store(store))
    return Recipe(tuple(passes + _judged(checks)), job)


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
    if plan.groups:
        passes += [ReplayGroups(), Cut(), SameSlices(), FoldConstants()]
    if plan.sparsity and all(e["method"] == "magnitude" for e in plan.sparsity):
        replay.check_sparsity(plan)
        entry, names = plan.sparsity[0], [escape(e["name"]) for e in plan.sparsity]
        again = Sparsify(entry["pattern"], "magnitude", amount=entry.get("amount"), include=names)
        again.request.resolved(calibrated=False)
        passes.append(again)
    return Recipe((*passes, Smaller()) if plan.groups else tuple(passes), own)


def _sparse(request: sparse.Request, compensate: str) -> Sparsify:
    scope = request.scope
    globs: Mapping[str, Any] = {"include": scope.include, "exclude": scope.exclude, "also": scope.also}
    assert request.method is not None
    return Sparsify(request.pattern, request.method, compensate, request.amount, **globs)


def _judged(checks: Checks | None) -> list[Pass]:
    return [] if checks is None else [Validate.of(checks)]
