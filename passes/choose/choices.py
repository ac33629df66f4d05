"""Choices: what a selection made of every group, and by which numbers: values that a plan keeps and ``explain`` reads.

How they are found stands in ``why``. Numbers have six digits; classes are counted, since the plan names them elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from graphprune.passes.choose.ratio import Cause
from graphprune.rewrite.lineage import Ancestor

_PLACES = 6
_MOST = 1e30


@dataclass(frozen=True)
class Step:
    """What the next step would have come to: the next number of classes that could have gone of a group.

    Attributes:
        removed: that number.
        saved: how much more it saves; see :class:`Choice`.
        error: how much more is lost, as predicted; None where nothing predicts it.
    """

    removed: int
    saved: float
    error: float | None = None


@dataclass(frozen=True)
class Choice:
    """What a selection made of one group, and why no more of it went.

    Attributes:
        id: of the group, in the original.
        kind: of its classes.
        size: how many classes it had when this was chosen.
        removed: how many of them went.
        cause: what kept the others.
        why: the same in words.
        tied: groups that lose the same classes.
        weights: by the first output of each node what it reads that the group cuts, as ``tensor:axis``; in the first
            round only, since later ones speak of another model.
        asked: how many its share comes to, before widths are rounded; None where it had no share of its own.
        least, most: how many could go, if any: widths, limits and the depth of a cut count. None where none could.
        error: what is lost by that, as predicted and weighed against other groups; None where nothing predicts it. Of
            groups whose numbers are one, it is of all of them, as is what is saved.
        saved: the share of the budget's cost of the whole model, before this selection, that comes back if these
            classes stay and all others go as chosen.
        next: the next step; None where there is none.
        last: score of the dearest class that went.
        first: score of the cheapest that could have gone and stays.
    """

    id: str
    kind: str
    size: int
    removed: int
    cause: Cause
    why: str
    tied: tuple[str, ...] = ()
    weights: Mapping[str, Sequence[str]] = field(default_factory=dict)
    asked: int | None = None
    least: int | None = None
    most: int | None = None
    error: float | None = None
    saved: float | None = None
    next: Step | None = None
    last: float | None = None
    first: float | None = None

    @property
    def per_percent(self) -> float | None:
        """What the classes that went lose for each per cent that they save."""
        return _each(self.error, self.saved)

    @property
    def next_per_percent(self) -> float | None:
        """What the next step loses for each per cent that it saves; None where it saves nothing."""
        return None if self.next is None else _each(self.next.error, self.next.saved)


@dataclass(frozen=True)
class Choices:
    """What one selection chose.

    Attributes:
        round: which of several cuts it was for; the first is 1.
        criterion: by what classes were ranked.
        groups: all groups that were prunable then, and not chosen from before.
        cost: what the budget that bound is of: macs, params, bytes or latency.
        whole: what the model cost by it before.
        limit: what might be left.
        left: what is left, as far as widths tell.
        ratio: the share that was asked for; None where budgets came from targets.
        worth: what a budget's worth of cost was valued at, in predicted loss; None where no losses were weighed, or
            the budgets could not be met.
    """

    round: int
    criterion: str
    groups: tuple[Choice, ...]
    cost: str
    whole: float
    limit: float
    left: float
    ratio: float | None = None
    worth: float | None = None

    @property
    def worth_per_percent(self) -> float | None:
        """What a per cent of the whole model's cost was valued at; classes that lose more for it stayed."""
        return None if self.worth is None else self.worth * self.whole / self.limit / 100

    def of(self, group: str) -> Choice | None:
        """The choice about a group."""
        return next((one for one in self.groups if one.id == group), None)

    def told(self, kin: Mapping[str, Ancestor] | None) -> Choices:
        """The same, by what groups are called in the original."""
        if kin is None:
            return self
        names = {id: one.group.id for id, one in kin.items()}
        groups = (
            replace(one, id=names.get(one.id, one.id), tied=tuple(names.get(id, id) for id in one.tied), weights={})
            for one in self.groups
        )
        return replace(self, groups=tuple(groups))

    def to_json(self) -> dict[str, Any]:
        """As it stands in a plan."""
        own = {**vars(self), "worth": rounded(self.worth), "groups": [_plain(one) for one in self.groups]}
        return {key: value for key, value in own.items() if value is not None}


def from_json(data: Sequence[Mapping[str, Any]]) -> list[Choices]:
    """What a plan says was chosen; it is checked by the plan's schema."""
    return [Choices(**{**own, "groups": tuple(_read(one) for one in own["groups"])}) for own in data]


def about(choices: Sequence[Choices], group: str) -> Iterator[tuple[Choices, Choice]]:
    """What selections made of a group: those by which it lost classes, and the last of any that tells why no more went.

    A selection that leaves a group out says nothing where another one of its round had it.
    """
    found = [(one, choice) for one in choices for choice in [one.of(group)] if choice is not None]
    cutting = [pair for pair in found if pair[1].removed]
    after = [pair for pair in found if not cutting or pair[0].round > cutting[-1][0].round]
    yield from cutting
    yield from sorted(after, key=lambda pair: (pair[0].round, pair[1].cause is not Cause.ASKED))[-1:]


def rounded(value: Any) -> Any:
    """Numbers in six digits, none above 1e30, which JSON can hold; other values as they are."""
    return float(f"{max(-_MOST, min(value, _MOST)):.{_PLACES}g}") if isinstance(value, float) else value


def _each(error: float | None, saved: float | None) -> float | None:
    return error / saved / 100 if error is not None and saved else None


def _plain(choice: Choice) -> dict[str, Any]:
    own = {one.name: getattr(choice, one.name) for one in fields(choice)}
    own |= {"cause": choice.cause.name.lower(), "tied": list(choice.tied)}
    if choice.next is not None:
        own["next"] = {key: rounded(value) for key, value in vars(choice.next).items() if value is not None}
    return {key: rounded(value) for key, value in own.items() if value not in (None, [], {})}


def _read(data: Mapping[str, Any]) -> Choice:
    own = dict(data)
    own |= {"cause": Cause[own["cause"].upper()], "tied": tuple(own.get("tied", ()))}
    if "next" in own:
        own["next"] = Step(**own["next"])
    return Choice(**own)
