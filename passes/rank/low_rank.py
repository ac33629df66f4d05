"""The pass that makes products of two of weights, where that costs little of what they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from graphprune.analysis import Analysis, cost
from graphprune.analysis.factors import Site, Whole, find_sites
from graphprune.errors import InputError, TargetError
from graphprune.model import Model, naming
from graphprune.passes.contract import Pass
from graphprune.passes.rank import allocation, spectra, weighing
from graphprune.passes.rank.spectra import Spectrum
from graphprune.passes.rounds import Restructured, sizes
from graphprune.passes.state import State
from graphprune.proof import same
from graphprune.rewrite.factor import factor
from graphprune.run.moments import FloatArray

AUTO, KINDS = "auto", ("params", "macs")


@dataclass(frozen=True)
class Lower:
    """What became products of two.

    Attributes:
        chosen: what weights lost, with their ranks.
        whole: weights that could not, and why.
    """

    chosen: tuple[tuple[Spectrum, int], ...]
    whole: tuple[Whole, ...] = ()


@dataclass(frozen=True)
class LowRank(Pass):
    """Make two products of one, where that loses little.

    Attributes:
        share: of the model's parameters or multiply-accumulates, what goes; None takes of each weight all that costs
            at most 1 % of the energy of what it makes, and with inputs at most 0.0001 of the outputs' variance.
        by: ``params`` or ``macs``: of what it is a share, and what losses are weighed against.
        include: globs on names of nodes and weights: these alone.
        exclude: globs: not these.
        ranks: by name of a weight its rank, in place of all this (as a plan says it).
    """

    name: ClassVar[str] = "low-rank"
    rebases: ClassVar[bool] = True

    share: float | None = None
    by: str = "params"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    ranks: Mapping[str, int] | None = None

    @classmethod
    def asked(cls, given: LowRank | float | str | None) -> LowRank | None:
        """The pass from what a caller gives: a share, ``macs=0.2`` or ``auto``; None where nothing is asked for.

        Raises:
            InputError: it is none of these.
        """
        if given is None or isinstance(given, LowRank):
            return given
        kind, equals, share = str(given).rpartition("=")
        if str(given) == AUTO:
            return cls()
        try:
            found = cls(float(share), kind if equals else KINDS[0])
        except ValueError:
            raise InputError(f"--low-rank {given}: give a share as 0.2 or macs=0.2, or {AUTO}") from None
        for why in found._wrong():
            raise InputError(f"--low-rank {given}: {why}")
        return found

    @classmethod
    def again(cls, entries: Sequence[Mapping[str, Any]]) -> LowRank | None:
        """The pass that does what a plan says, None where that is nothing or was chosen on inputs."""
        own = {entry["name"]: entry["rank"] for entry in entries if entry["method"] == "svd"}
        return cls(ranks=own) if own and len(own) == len(entries) else None

    def requires(self, state: State) -> Sequence[str]:
        """Options are in range."""
        return self._wrong()

    def _wrong(self) -> list[str]:
        found = []
        if self.share is not None and not 0 < self.share < 1:
            found.append(f"the share must be above 0 and below 1, not {self.share:g}")
        if self.by not in KINDS:
            found.append(f"{self.by!r} is nothing that goes; choose from {', '.join(KINDS)}")
        return found

    def proves(self, state: State) -> bool:
        """Where proofs are asked for."""
        return state.job.prove

    def call(self, state: State) -> State:
        """Choose ranks, and make two products of each weight that has one."""
        analysis = state.analysis()
        sites, whole = find_sites(analysis)
        sites = [site for site in sites if self._takes(analysis.model, site)]
        batches = None if self.ranks is not None else state.batches(state.original)
        steps = state.progress.begin(self.name)
        if batches is None:
            found = spectra.by_weights(analysis, sites)
        else:
            found = spectra.by_data(analysis, sites, batches, state.job.seed, steps)
        worth = None
        if batches is not None and found:
            worth = weighing.weigh(analysis, found, batches, state.job.seed)
        ranks = self._ranks(analysis, found, worth, whole)
        chosen = tuple((found[number], rank) for number, rank in sorted(ranks.items()))
        model = _made(analysis, chosen)
        method = "svd" if batches is None else "data"
        entries = [_entry(analysis.model, one, rank, method) for one, rank in chosen]
        plan = replace(state.plan, factored=[*state.plan.factored, *entries])
        after = state.having(Lower(chosen, tuple(whole)), Restructured(), model=model, plan=plan)
        return after.noting(_told(analysis, chosen, after.analysis()))

    def ensures(self, before: State, after: State) -> State:
        """At full rank the factored model does what the model did: its structure is right."""
        found = after.found(Lower)
        assert found is not None
        if not after.job.prove:
            return after
        analysis = before.analysis()
        full = _made(analysis, [(one, len(one.lost) - 1) for one, _ in found.chosen])
        nodes = sorted({node for one, _ in found.chosen for node in one.site.readers})
        proof = same.prove(analysis, full, nodes, sizes(before, analysis), after.job.seed)
        told = {**(after.plan.proof or {}), "factored": proof.to_json()}
        return replace(after, plan=replace(after.plan, proof=told))

    def _takes(self, model: Model, site: Site) -> bool:
        names = [site.weight, *site.nodes(model)]
        if self.ranks is not None:
            return site.weight in self.ranks

        def met(globs: Sequence[str]) -> bool:
            return naming.meets(names, globs)

        return (not self.include or met(self.include)) and not met(self.exclude)

    def _ranks(
        self, analysis: Analysis, found: Sequence[Spectrum], worth: FloatArray | None, whole: Sequence[Whole]
    ) -> dict[int, int]:
        """The rank of each weight that has one, by its number.

        Raises:
            TargetError: nothing pays, or not as much as is asked for.
            InputError: a plan names a weight that the model has not.
        """
        name = analysis.model.name
        if self.ranks is not None:
            there = {one.site.weight: number for number, one in enumerate(found)}
            if missing := [weight for weight in self.ranks if weight not in there]:
                raise InputError(
                    f"{name}: the plan factors weight {missing[0]!r}, which is no weight of it that can be"
                )
            return {there[weight]: min(rank, len(found[there[weight]].lost) - 1) for weight, rank in self.ranks.items()}

        def saved(number: int, rank: int) -> float:
            site = found[number].site
            by_macs = site.macs(None) - site.macs(rank)
            return by_macs if self.by == "macs" else site.elements - site.parameters(rank)

        if self.share is None:
            chosen = allocation.within(found, saved, worth)
            if not chosen:
                raise TargetError(f"{name}: --low-rank auto: {_nothing(found, whole)}. Nothing was written")
            return chosen
        costs = {"params": cost.parameters(analysis.model), "macs": cost.macs(analysis)}
        wanted = self.share * costs[self.by]
        chosen, total = allocation.cheapest(found, saved, worth, wanted)
        if total < wanted:
            most = f"{total / max(costs[self.by], 1):.3g} of its {self.by} is the most that lower ranks save"
            raise TargetError(f"{name}: --low-rank {self.share:g} cannot be met: {most}. Nothing was written")
        if not chosen:
            raise TargetError(f"{name}: --low-rank {self.share:g}: {_nothing(found, whole)}. Nothing was written")
        return chosen


def _nothing(found: Sequence[Spectrum], whole: Sequence[Whole]) -> str:
    """Why nothing pays."""
    share = allocation.TOLERATED
    if found:
        best = min(found, key=lambda one: float(one.lost[r[-1]]) if len(r := allocation.ranks(one)) else 1.0)
        own = allocation.ranks(best)
        lost = f"{float(best.lost[own[-1]]):.2g}" if len(own) else "all"
        return (
            f"of {len(found)} weights none pays as a product of two: {best.site.weight!r}, which comes nearest, loses "
            f"{lost} of what it makes where {share:g} is the most; give a share to have the cheapest all the same"
        )
    why = f": {whole[0].weight!r} stays because {whole[0].text}" if whole else ""
    return f"it holds no weight that could be a product of two{why}"


def _made(analysis: Analysis, chosen: Sequence[tuple[Spectrum, int]]) -> Model:
    model = analysis.model
    return factor(model, [one.factors(spectra.matrix(model, one.site), rank) for one, rank in chosen])


def _entry(model: Model, one: Spectrum, rank: int, method: str) -> dict[str, Any]:
    site = one.site
    entry: dict[str, Any] = {
        "name": site.weight,
        "nodes": site.nodes(model),
        "rank": rank,
        "sums": site.sums,
        "outputs": site.outputs,
        "method": method,
        "error": round(float(one.lost[rank]), 8),
    }
    return entry if one.held is None else {**entry, "held_out": round(float(one.held[rank]), 8)}


def _told(analysis: Analysis, chosen: Sequence[tuple[Spectrum, int]], after: Analysis) -> str:
    """What was done, in a line."""
    before, left = cost.parameters(analysis.model), cost.parameters(after.model)
    macs, fewer = cost.macs(analysis), cost.macs(after)
    lost = [float((one.lost if one.held is None else one.held)[rank]) for one, rank in chosen]
    where = "" if any(one.held is None for one, _ in chosen) else " on held-out inputs"
    weights = f"{len(chosen)} weights are products of two" if len(chosen) != 1 else "1 weight is a product of two"
    return (
        f"{weights}: {before:,} parameters are {left:,}, {macs:,} MACs {fewer:,}; of what each makes "
        f"{float(np.mean(lost)):.2g} is lost in the mean, {max(lost):.2g} at most{where}"
    )
