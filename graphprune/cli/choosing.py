"""What selections made of groups, and why: as plain data, as the table of ``prune -v``, and in words of one group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from graphprune.cli.options import number
from graphprune.cli.tables import Column, listing
from graphprune.passes.choose.choices import Choice, Choices
from graphprune.passes.choose.ratio import Cause

_SHORT = {
    Cause.ASKED: "left out",
    Cause.INTERFACE: "input or output",
    Cause.STATISTICAL: "statistical",
    Cause.COPIES: "would add copies",
    Cause.TOO_FEW: "share below one",
    Cause.WIDTH: "rounding",
    Cause.EMPTY: "empty axis",
    Cause.DEAR: "others lose less",
    Cause.STRANGE: "not the original's",
    Cause.LIMIT: "limit",
    Cause.DEPTH: "depth of one cut",
    Cause.PINNED: "rest is pinned",
    Cause.SHARE: "its share",
    Cause.MET: "enough is gone",
}
"""Causes in a column of a table."""
_COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes", "latency": "latency"}


def choice_data(made: Choices, choice: Choice) -> dict[str, Any]:
    """A choice about one group, with what it was weighed by."""
    own = made.to_json()
    told = {**next(one for one in own.pop("groups") if one["id"] == choice.id)}
    for name in ("per_percent", "next_per_percent"):
        told[name] = getattr(choice, name)
    return {**own, "worth_per_percent": made.worth_per_percent, **told}


def print_choices(out: Console, choices: Sequence[Choices]) -> None:
    """A table for each selection: what went of every group, what that loses and saves, and what stopped it."""
    for made in choices:
        weighed = made.worth is not None or any(one.error is not None for one in made.groups)
        out.print(Text(_heading(made, len(choices) > 1)))
        names = [
            "classes",
            "went",
            *(("lost",) if weighed else ("last", "first")),
            "saved %",
            *["lost per %"] * weighed,
        ]
        rows = []
        for one in made.groups:
            saved = "" if one.saved is None else f"{100 * one.saved:.2f}"
            scores = (one.error,) if weighed else (one.last, one.first)
            each = [_few(one.per_percent)] if weighed else []
            row = [str(one.size), str(one.removed), *map(_few, scores), saved, *each, _SHORT[one.cause]]
            rows.append([one.id, *row])
        listing(out, "group", (*map(Column, names), Column("stopped by", text=True)), rows)


def _heading(made: Choices, several: bool) -> str:
    cost, left = _COSTS[made.cost], made.left / made.whole if made.whole else 1.0
    text = f"round {made.round}: " if several else ""
    text += f"chosen by {made.criterion}: {100 * left:.1f} % of the {cost} left of at most "
    text += f"{100 * made.limit / made.whole if made.whole else 100:.1f} %"
    worth = made.worth_per_percent
    return text + (f"; a per cent of them was worth a loss of {_few(worth)}" if worth else "")


def words(made: Choices, choice: Choice, several: bool) -> Iterator[str]:
    """Lines that say what a selection made of a group, and why no more of it went."""
    if several or choice.removed or choice.first is not None:
        yield f"{f'round {made.round}: ' if several else ''}{_went(made, choice)}"
    cost = _COSTS[made.cost]
    if choice.removed and choice.saved is not None:
        lost = "" if choice.error is None else f"is predicted to lose {_few(choice.error)} and "
        each = "" if not choice.per_percent else f", {_few(choice.per_percent)} for each per cent"
        yield f"  that {lost}saves {100 * choice.saved:.2f} % of the {cost}{each}"
    yield f"  {'it was cut no further' if choice.removed else 'it stays whole'}: {choice.why}"
    if choice.next is not None:
        yield from _further(made, choice, cost)
    if choice.least is not None:
        yield f"  from {choice.least} to {choice.most} of its classes could go"
    if choice.tied:
        yield f"  it loses the same classes as {', '.join(choice.tied)}"


def _went(made: Choices, choice: Choice) -> str:
    asked = "" if choice.asked is None or choice.asked == choice.removed else f", {choice.asked} is its share"
    text = f"{choice.removed} of {choice.size} classes went{asked}"
    if choice.last is not None and choice.first is not None:
        scores = f"the last that went scores {_few(choice.last)}, the first that stays {_few(choice.first)}"
        return f"{text}; by {made.criterion} {scores}"
    return text if choice.first is None else f"{text}; by {made.criterion} the cheapest scores {_few(choice.first)}"


def _further(made: Choices, choice: Choice, cost: str) -> Iterator[str]:
    step, worth = choice.next, made.worth_per_percent
    assert step is not None
    lost = "" if step.error is None else f"lose {_few(step.error)} more and "
    each = choice.next_per_percent
    beside = "" if worth is None else f", which was worth {_few(worth)}"
    text = f"  the next step, {step.removed} of them, would {lost}save {100 * step.saved:.2f} % more of the {cost}"
    yield text + (":" if each is not None else "")
    if each is not None:
        yield f"    {_few(each)} for each per cent{beside}"


def _few(value: float | None) -> str:
    """A number of any size in three digits."""
    return "" if value is None else number(value) if value >= 1e4 else f"{value:.3g}"
