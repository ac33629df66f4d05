"""The passes that make weights sparse: one looks for orders of channels that keep more, one masks and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from graphprune.analysis.patterns import SPARSE
from graphprune.passes.choose.select import Chosen, told
from graphprune.passes.contract import Pass
from graphprune.passes.cut import cutting
from graphprune.passes.fit import compensation
from graphprune.passes.fit.fit import Fits, reference
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.permutation import Ordered
from graphprune.passes.sparse.targets import Scope
from graphprune.passes.state import State
from graphprune.rewrite.plan import GroupPlan


@dataclass(frozen=True)
class Orders:
    """Groups with a new order."""

    ordered: list[Ordered]


@dataclass(frozen=True)
class Sparsify(Pass):
    """Make the weights of products sparse, and let the rest make up for what went. Mask and fit alternate.

    Attributes:
        pattern: ``N:M`` keeps N of every M weights along what a product sums over, ``1xW`` lets W of them go as one,
            ``unstructured`` single ones; or the pattern of another package (``graphprune.analysis.patterns``).
        method: by what it is chosen what stays: one of ``graphprune.passes.sparse.masks.METHODS``.
        compensate: ``refit``, ``repair`` or ``none``.
        amount: the share of weights that go, for patterns that do not say it themselves.
        include: globs on names of nodes and weights: these and no others, whatever speaks against them.
        exclude: globs: not these.
        also: globs: these too, whatever speaks against them.
    """

    name: ClassVar[str] = "sparsify"

    pattern: str = "2:4"
    method: str = "magnitude"
    compensate: str = "none"
    amount: float | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    also: Sequence[str] = ()

    @property
    def request(self) -> sparse.Request:
        """The same as one value."""
        scope = Scope(self.include, self.exclude, self.also)
        return sparse.Request(self.pattern, self.method, amount=self.amount, scope=scope)

    @property
    def packs(self) -> bool:
        """Whether what stays can be written without the zeros."""
        return not self.request.structure.lacks("pack")

    def requires(self, state: State) -> Sequence[str]:
        """Pattern, method and amount go together, and inputs are there for what looks at them."""
        calibrated = state.job.calibration is not None
        self.request.resolved(calibrated)
        compensation.resolve_compensation(self.compensate, calibrated)
        found = [f"{one!r} is ahead, and would leave weights that are not sparse any more; put it first"
                 for one in ("cut", "fit", "sparsify") if state.will(one)]  # fmt: skip
        return found + ["fold is about removed channels; choose refit, repair or none"] * (self.compensate == "fold")

    def bounds(self, state: State) -> Mapping[str, int]:
        """Widths that keep the pattern, and the sparse kernels that read it."""
        found = sparse.find_targets(state.analysis(), self.request)[0]
        return sparse.alignments(state.analysis(), found, self.request)

    def call(self, state: State) -> State:
        """Mask and fit; the plan lists every weight that is sparse now."""
        done, ordered, steps = cutting(state).done, state.found(Orders), state.progress.begin(self.name)
        shapes = state.job.input_shapes
        made, thinned = sparse.make(self.request, self.compensate, reference(state), done, shapes, steps)
        thinned.ordered = [] if ordered is None else ordered.ordered
        plan = replace(state.plan, compensated=state.plan.compensated + made.entries, sparsity=thinned.entries())
        after = state.having(Fits(made.fits), thinned, model=made.model, plan=plan)
        pattern = self.request.structure
        if pattern.block == 1 or not pattern.lacks("tensorrt"):
            return after
        return after.noting(f"TensorRT and sparse tensor cores read {SPARSE} alone, not {pattern}")


@dataclass(frozen=True)
class Permute(Pass):
    """Let channels change places so that the pattern of the pass ``sparsify`` ahead keeps more."""

    name: ClassVar[str] = "permute"

    def requires(self, state: State) -> Sequence[str]:
        """There is a pattern ahead that an order matters to."""
        ahead = _ahead(state)
        if ahead is None:
            return ("no pass 'sparsify' is ahead, so that no order keeps more than another",)
        if not state.will("cut"):
            return ("no pass 'cut' is ahead, which lets channels change places",)
        why = ahead.request.structure.lacks("permute")
        return (why,) if why else ()

    def call(self, state: State) -> State:
        """Put the new order of each group into the plan."""
        analysis, ahead = state.analysis(), _ahead(state)
        assert ahead is not None
        found = sparse.find_targets(analysis, ahead.request)[0]
        batches, tell = state.batches(state.model), state.progress.begin(self.name)
        gone = state.plan.selection
        ordered = sparse.order(analysis, found, gone, ahead.request, batches, state.job.seed, tell)
        return state.having(Orders(ordered), plan=replace(state.plan, groups=_with_orders(state, ordered)))


def _ahead(state: State) -> Sparsify | None:
    return next((one for one in state.ahead if isinstance(one, Sparsify)), None)


def _with_orders(state: State, ordered: Sequence[Ordered]) -> list[GroupPlan]:
    """The plan's groups with their new orders; groups that lose nothing join them."""
    orders = {one.group: one.order for one in ordered}
    chosen = state.found(Chosen)
    groups = [replace(entry, order=orders.pop(entry.id, entry.order)) for entry in state.plan.groups]
    for id, order in orders.items():
        group = state.analysis().group(id)
        assert group is not None
        score = told(chosen.scores, id) if chosen is not None else None
        groups.append(GroupPlan(id, group.kind, group.size, group.statistical, [], order, score))
    return groups
