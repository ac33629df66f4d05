"""Steering: what users say of single groups, of regions of the graph, and of widths.

All of it counts in the groups and sizes of the original, also where a model is cut in rounds. Of groups that go
together (see ``ties``) the strictest of what is said holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from graphprune.analysis import Analysis, Group
from graphprune.analysis.called import group_names
from graphprune.errors import InputError
from graphprune.model import naming
from graphprune.passes.choose import regions, tables, ties
from graphprune.passes.choose.ratio import Cause, Untouched, width
from graphprune.rewrite.lineage import Ancestor


@dataclass(frozen=True)
class Steered:
    """What steering comes to for the groups of a model.

    Attributes:
        untouched: by group id why it stays whole, where it does.
        most: by group id the largest number of classes that may go.
        ratios: by group id the share that goes of it, whatever goes of others.
    """

    untouched: Mapping[str, Untouched] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)

    def now(self, kin: Mapping[str, Ancestor] | None) -> Steered:
        """The same for a model that was cut since.

        Args:
            kin: what the groups of that model were in the one that this is about; None where it is the same.
        """
        if kin is None:
            return self
        untouched, most, ratios = dict[str, Untouched](), dict[str, int](), dict[str, float]()
        for id, one in kin.items():
            first = one.group.id
            if first in self.untouched:
                why = self.untouched[first]
                untouched[id] = Untouched(why.text, remedy=why.remedy, group=id, cause=why.cause)
            if first in self.most:
                most[id] = max(0, self.most[first] - (one.group.size - len(one.classes)))
            if first in self.ratios:
                ratios[id] = self.ratios[first]
        return Steered(untouched, most, ratios)

    def apart(self, analysis: Analysis, groups: Sequence[Group], share: float) -> tuple[list[Group], list[Untouched]]:
        """Groups that may give classes, and those that stay whole, with what goes together with these.

        Args:
            analysis: of the model.
            groups: the groups.
            share: of the classes that will go.
        """
        left: dict[str, Untouched] = {}
        for one in ties.together(analysis, groups, share) if self.untouched else ():
            whole = next((self.untouched[g.id] for g in one.members if g.id in self.untouched), None)
            if whole is not None:
                text = f"it loses the same classes as group {whole.group!r}, which stays"
                tied = {g.id: Untouched(text, group=g.id, cause=Cause.ASKED) for g in one.members}
                left |= {id: self.untouched.get(id, why) for id, why in tied.items()}
        return [g for g in groups if g.id not in left], list(left.values())


@dataclass(frozen=True)
class Steering:
    """What users say of single groups.

    A glob, or the name of a module, is held against a group's id and the names of the nodes and of the weights that it
    cuts (see ``graphprune.model.naming``). Of several that match, the last one says.

    Attributes:
        ratios: by glob the share of classes to remove, in [0, 1); 0 leaves a group whole. Other groups share what is
            asked for in all.
        limits: by glob the largest share of classes that may go, in [0, 1].
        min_width: no group becomes narrower: no product is left with fewer outputs, or sums over fewer elements.
        before: names of tensors, nodes or modules: only groups all of whose weights lead to one of them.
        after: names of tensors, nodes or modules: only groups all of whose weights come behind one of them.
        keep_first: so many of the first layers with weights stay whole, in the order of the graph.
        keep_last: so many of the last ones.
        keep_heads: layers that lead to one alone of several last ones keep what is theirs (see ``regions``).
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    min_width: int | None = None
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    keep_first: int = 0
    keep_last: int = 0
    keep_heads: bool = False

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def check(self) -> None:
        """Raise InputError where a value is out of range."""
        for glob, ratio in self.ratios.items():
            if not 0 <= ratio < 1:
                raise InputError(f"--ratio {glob}={ratio:g} is out of range: the share must be at least 0 and below 1")
        for glob, limit in self.limits.items():
            if not 0 <= limit <= 1:
                raise InputError(f"--limit {glob}={limit:g} is out of range: the share must be from 0 to 1")
        if self.min_width is not None and self.min_width < 1:
            raise InputError(f"--min-width {self.min_width} is out of range: it must be at least 1")
        for option, count in (("--keep-first", self.keep_first), ("--keep-last", self.keep_last)):
            if count < 0:
                raise InputError(f"{option} {count} is out of range: it must be at least 0")

    def over(self, other: Steering) -> Steering:
        """This on top of another: globs of this one come later, and its numbers stand where it has any."""
        ratios, limits = ({**{g: v for g, v in theirs.items() if g not in own}, **own}
                          for theirs, own in ((other.ratios, self.ratios), (other.limits, self.limits)))  # fmt: skip
        return Steering(
            ratios,
            limits,
            other.min_width if self.min_width is None else self.min_width,
            (*other.before, *self.before),
            (*other.after, *self.after),
            self.keep_first or other.keep_first,
            self.keep_last or other.keep_last,
            self.keep_heads or other.keep_heads,
        )

    def scaled(self, done: float) -> Steering:
        """What is asked of a round of several; ``done`` is the share of the rounds that are done with it."""
        ratios = {glob: part(ratio, done) for glob, ratio in self.ratios.items()}
        return Steering(**{**vars(self), "ratios": ratios})

    def of(self, analysis: Analysis) -> Steered:
        """What this comes to for a model.

        Args:
            analysis: of the original.

        Raises:
            InputError: a glob or a name matches nothing, which is most likely a slip.
        """
        if not self:
            return Steered()
        names = {g.id: group_names(analysis, g) for g in (*analysis.groups, *analysis.fixed)}
        _matching(analysis, names, [*self.ratios, *self.limits])
        untouched: dict[str, Untouched] = {}
        most: dict[str, int] = {}
        ratios: dict[str, float] = {}
        kept = regions.kept(analysis, self.keep_first, self.keep_last)
        inside, head = (
            regions.between(analysis, self.before, self.after),
            regions.within_heads(analysis, self.keep_heads),
        )
        for group in analysis.groups:
            own = _last(self.ratios, names[group.id])
            why = _first(kept(group), inside(group), head(group), "its ratio is 0" if own == 0 else None)
            most[group.id], narrow = self._most(analysis, group, _last(self.limits, names[group.id]))
            why = why or narrow
            if why is not None:
                untouched[group.id] = Untouched(why, group=group.id, cause=Cause.ASKED)
            elif own is not None:
                ratios[group.id] = own
        return Steered(untouched, most, ratios)

    def _most(self, analysis: Analysis, group: Group, limit: float | None) -> tuple[int, str | None]:
        """The largest number of classes that may go of a group, and why none may where that is so."""
        most, why = group.size - 1, None
        if limit is not None:
            most = min(most, int(limit * group.size + 1e-9))
            why = f"its limit of {limit:g} is less than one of {group.size} classes" if not most else None
        if self.min_width is not None:
            each = width(analysis, group)
            most = min(most, group.size - -(-self.min_width // each))
            if most < 1 and why is None:
                why = f"it is {group.size * each} wide, and --min-width is {self.min_width}"
        return max(most, 0), why


def load(path: str | os.PathLike[str]) -> Steering:
    """Steering from a file, TOML or JSON (``steering.schema.json``).

    Raises:
        InputError: it cannot be read, or is no such file; says where.
    """
    data = tables.load(path, "steering")
    groups = data.pop("groups", [])
    ratios = {one["match"]: 0.0 if "keep" in one else one["ratio"] for one in groups if "ratio" in one or "keep" in one}
    limits = {one["match"]: one["limit"] for one in groups if "limit" in one}
    del data["format"]
    return Steering(ratios, limits, **data)


def part(ratio: float, done: float) -> float:
    """The share that is gone when this share of rounds is done, of which each takes the same of what is left."""
    return ratio if done == 1 else round(1 - (1 - ratio) ** done, 6)


def _first(*reasons: str | None) -> str | None:
    return next((why for why in reasons if why is not None), None)


def _last(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    """What the last glob says that matches a name."""
    found = (value for glob, value in reversed([*values.items()]) if naming.meets(names, [glob]))
    return next(found, None)


def _matching(analysis: Analysis, names: Mapping[str, Sequence[str]], globs: Sequence[str]) -> None:
    """Raise InputError where a glob matches nothing."""

    def every() -> Iterator[str]:
        return (name for own in names.values() for name in own)

    for glob in globs:
        if not naming.meets(every(), [glob]):
            hint = naming.near(glob, every(), otherwise="; 'graphprune inspect' lists the groups")
            raise InputError(f"{analysis.model.name}: {glob!r} matches no group, and no node or weight of one{hint}")
