"""What selections chose of each group, and why no more of it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import few, plural, share

_COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes", "latency": "latency"}


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """A table for each selection, and what stayed whole with the reason."""
    for result in subject.results:
        made, untouched = result.get("choices") or (), result.get("untouched") or ()
        parts: list[Element] = []
        for one in made:
            parts += [make("p", _heading(one, len(made) > 1)), _table(one, limit)]
        if untouched:
            parts.append(_untouched(untouched, limit))
        if parts:
            yield Section("choices", "Choices", tuple(parts))


def _heading(made: Data, several: bool) -> str:
    cost, whole = _COSTS.get(made["cost"], made["cost"]), made["whole"] or 1.0
    start = f"Round {made['round']}: chosen" if several else "Chosen"
    worth = made.get("worth")
    told = (
        f"; a per cent of them was worth a loss of {few(worth * whole / made['limit'] / 100)}"
        if worth and made["limit"]
        else ""
    )
    return (
        f"{start} by {made['criterion']}: {share(made['left'] / whole)} of the {cost} left, of at most "
        f"{share(made['limit'] / whole)}{told}."
    )


def _table(made: Data, limit: int) -> Element:
    groups: Sequence[Data] = made["groups"]
    cost = _COSTS.get(made["cost"], made["cost"])
    weighed = any("error" in one for one in groups)
    rows: list[list[Cell]] = [
        [code(one["id"]), one["kind"], f"{one['size']:,}", f"{one['removed']:,}", *_told(one, weighed), one["why"]]
        for one in groups[:limit]
    ]
    scores = ["lost (predicted)"] if weighed else ["score of the last that went", "of the first that stays"]
    head = ["group", "kind", "classes", "went", *scores, f"{cost} saved", "why no more"]
    own = table("Choices by group", head, rows, words=(1, len(head) - 1), more=len(groups) - len(rows))
    return folded(f"All {plural(len(groups), 'group', 'groups')} of this selection", own, opened=len(groups) <= 12)


def _told(one: Data, weighed: bool) -> list[str]:
    scores = [one.get("error")] if weighed else [one.get("last"), one.get("first")]
    return [*map(few, scores), share(one.get("saved"), 2)]


def _untouched(untouched: Sequence[Any], limit: int) -> Element:
    counts = Counter(one["reason"] for one in untouched)
    lines = [make("li", f"{plural(count, 'group', 'groups')}: {reason}") for reason, count in counts.most_common(limit)]
    rows: list[list[Cell]] = [[code(one["group"]), one["reason"]] for one in untouched[:limit]]
    own = table("Groups that stayed whole", ["group", "why"], rows, words=(1,), more=len(untouched) - len(rows))
    head = make("p", make("strong", "What stayed whole"))
    return make("div", head, make("ul", *lines), folded("Group by group", own))
