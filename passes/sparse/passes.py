"""The passes that make weights sparse: one looks for orders of channels that keep more, one masks and fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from graphprune.analysis import Analysis, int8
from graphprune.analysis.patterns import SPARSE, OfEvery
from graphprune.passes.choose.select import Chosen, told
from graphprune.passes.contract import SCHEMA, Pass
from graphprune.passes.fit import compensation
from graphprune.passes.fit.fit import Fits, reference, renewed
from graphprune.passes.rounds import Cutting, Unfitted, cutting, descent, pending, unfitted
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.masks import AUTO, METHODS
from graphprune.passes.sparse.permutation import Ordered
from graphprune.passes.sparse.sparse import Sparse
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
        method: by what it is chosen what stays: one of ``graphprune.passes.sparse.masks.METHODS``; or ``auto``, which
            is ``sparsegpt`` with calibration inputs, ``magnitude`` without and where single weights go.
        compensate: ``refit``, ``repair`` or ``none``.
        amount: the share of weights that go, for patterns that do not say it themselves.
        include: globs on names of nodes and weights: these and no others, whatever speaks against them.
        exclude: globs: not these.
        also: globs: these too, whatever speaks against them.
        rewind: before what stays is fitted, it goes back to the values that it had in the original.
    """

    name: ClassVar[str] = "sparsify"

    pattern: str = "2:4"
    method: str = field(default="magnitude", metadata={SCHEMA: {"examples": [AUTO, *METHODS]}})
    compensate: str = "none"
    amount: float | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    also: Sequence[str] = ()
    rewind: bool = False

    @property
    def request(self) -> sparse.Request:
        """The same as one value."""
        scope = Scope(self.include, self.exclude, self.also)
        return sparse.Request(self.pattern, self.method, amount=self.amount, scope=scope, rewind=self.rewind)

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
                 for one in ("cut", "fit") if state.will(one)]  # fmt: skip
        ahead = _ahead(state)
        if ahead is not None and not self._leads_to(ahead):
            found.append("the 'sparsify' ahead must take the same weights and leave fewer of them: a round of its own")
        if self.rewind and self.compensate == "none":
            found.append("rewind is about weights that were fitted; let compensate be refit or repair")
        return found + ["fold is about removed channels; choose refit, repair or none"] * (self.compensate == "fold")

    def _leads_to(self, other: Sparsify) -> bool:
        """Whether another pass makes the same weights sparser."""
        scope = all(list(getattr(self, n)) == list(getattr(other, n)) for n in ("include", "exclude", "also"))
        one, two = self.request.structure, other.request.structure
        if isinstance(one, OfEvery) and isinstance(two, OfEvery):
            return scope and one.m == two.m and one.n > two.n
        return scope and self.pattern == other.pattern and (self.amount or 0) < (other.amount or 0)

    def bounds(self, state: State) -> Mapping[str, int]:
        """Widths that keep the pattern, and the sparse kernels that read it."""
        found = sparse.find_targets(state.analysis(), self.request)[0]
        return sparse.alignments(state.analysis(), found, self.request)

    def call(self, state: State) -> State:
        """Mask and fit; the plan lists every weight that is sparse now."""
        state, before = unfitted(state), state.found(Sparse)
        done, ordered, steps = cutting(state).done, state.found(Orders), state.progress.begin(self.name)
        start, shapes = state.found(Unfitted) or Unfitted(state.model), state.job.input_shapes
        there = frozenset[str]() if before is None else frozenset(one.target.weight for one in before.thinned)
        earlier = sparse.Earlier(start.model, there)
        request = self.request.resolved(state.job.calibration is not None)
        made, thinned = sparse.make(request, self.compensate, reference(state), done, shapes, steps, earlier)
        thinned.ordered = [] if ordered is None else ordered.ordered
        if made.fits:
            thinned.rounds = [*([] if before is None else before.rounds), round(thinned.share, 6)]
        kept = [] if self.rewind else state.plan.compensated
        entries = thinned.entries()
        plan = replace(state.plan, compensated=renewed(kept, made.entries), sparsity=entries)
        after = state.having(Fits(made.fits), thinned, model=made.model, plan=plan)
        pattern = self.request.structure
        if pattern == SPARSE and not state.will(self.name):
            return after.noting(*_floats(state))
        if pattern.block == 1 or not pattern.lacks("tensorrt") or state.will(self.name):
            return after
        return after.noting(f"TensorRT and sparse tensor cores read {SPARSE} alone, not {pattern}")


def _floats(state: State) -> list[str]:
    """A note where products of 8 bits are not 8 bits in and out, so that no sparse kernel would take them."""
    analysis = state.analysis()
    if not any(source.dtype in int8.EIGHT_BITS for source in analysis.model.sources.values()):
        return []
    breaks = [p.breaks for p in int8.products(analysis.model, analysis.witness, analysis.web) if p.breaks is not None]
    if not breaks:
        return []
    return [
        f"{len(breaks)} quantised products are not 8 bits in and out, as TensorRT's sparse kernels want them: "
        f"{breaks[0].remedy} for {breaks[0].node!r}; 'graphprune inspect --sparsity' lists them"
    ]


@dataclass(frozen=True)
class Permute(Pass):
    """Let channels change places so that the pattern of the pass ``sparsify`` ahead keeps more."""

    name: ClassVar[str] = "permute"
    chooses: ClassVar[bool] = True

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
        earlier, ahead = state.found(Cutting), _ahead(state, last=True)
        analysis, kin = (state.analysis(), None) if earlier is None else descent(state, earlier)
        assert ahead is not None
        found = sparse.find_targets(analysis, ahead.request)[0]
        batches, tell = state.batches(state.model), state.progress.begin(self.name)
        request = ahead.request.resolved(batches is not None)
        gone: Mapping[str, Sequence[int]] = state.plan.selection
        if kin is not None:
            own = {entry.id: entry.removed for entry in pending(state)}
            gone = {id: one.here(own[one.group.id]) for id, one in kin.items() if one.group.id in own}
        ordered = sparse.order(analysis, found, gone, request, batches, state.job.seed, tell)
        if kin is not None:  # in terms of the original
            ordered = [
                replace(one, group=kin[one.group].group.id, order=kin[one.group].told(one.order))
                for one in ordered
                if one.group in kin
            ]
        first = analysis if earlier is None else earlier.analysis
        plan = replace(state.plan, groups=_with_orders(state, first, ordered))
        return state.having(Orders(ordered), plan=plan)


def _ahead(state: State, last: bool = False) -> Sparsify | None:
    found = [one for one in state.ahead if isinstance(one, Sparsify)]
    return None if not found else found[-1 if last else 0]


def _with_orders(state: State, first: Analysis, ordered: Sequence[Ordered]) -> list[GroupPlan]:
    """The plan's groups with their new orders; groups that lose nothing join them."""
    orders = {one.group: one.order for one in ordered}
    chosen = state.found(Chosen)
    groups = [replace(entry, order=orders.pop(entry.id, entry.order)) for entry in state.plan.groups]
    for id, order in orders.items():
        group = first.group(id)
        assert group is not None
        score = told(chosen.scores, id) if chosen is not None else None
        score = score if score is not None and len(score) == group.size else None  # of what an earlier round left
        groups.append(GroupPlan(id, group.kind, group.size, group.statistical, [], order, score))
    return groups
