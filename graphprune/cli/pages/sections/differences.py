"""What changed from one model to another."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from graphprune.cli.differing import counted, matched_by, parts, shape, totals
from graphprune.cli.options import number
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import few, plural, set_change, share

_OPEN = 12
"""Rows up to which a table is open."""


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """A section for each diff."""
    for data in subject.all("diff"):
        parts = [make("p", *_lead(data)), _totals(data)]
        for caption, head, rows in _tables(data):
            if rows:
                own = table(caption, head, rows[:limit], range(1, len(head)), len(rows) - min(limit, len(rows)))
                parts.append(folded(f"{caption} ({len(rows):,})", own, opened=len(rows) <= _OPEN))
        parts += [make("p", note) for note in data["notes"]]
        yield Section("differences", "What changed", tuple(parts))


def _lead(data: Data) -> Iterator[Element | str]:
    one, other = (code(model["file"]) for model in data["models"])
    yield from ("From ", one, " to ", other, ". ")
    if data["same"]:
        yield "Nothing differs but names and metadata. "
    by = matched_by(data)
    yield f"{plural(data['matched']['nodes'], 'node is', 'nodes are')} in both{f' ({by})' if by else ''}. "
    if counted(data):
        yield f"Constants: {counted(data)}."


def _totals(data: Data) -> Element:
    rows: list[list[Cell]] = [
        [title, f"{number(before)}{unit}", f"{number(after)}{unit}", set_change(before, after)]
        for title, unit, before, after in totals(data)
    ]
    return table("Totals", ["cost", "before", "after", "change"], rows)


def _tables(data: Data) -> Iterator[tuple[str, list[str], list[list[Cell]]]]:
    for part in parts(data, by=" × "):
        name, *facts = part.head
        head = [name, *facts, *(["before", "after"] if part.paired else []), *part.more]
        rows: list[list[Cell]] = [
            [code(row.name), *row.facts, *([row.before or "", row.after or ""] if part.paired else []), *row.more]
            for row in part.rows
        ]
        if part.title == "Interface":
            yield _constants(data)
        yield part.title, head, rows


def _constants(data: Data) -> tuple[str, list[str], list[list[Cell]]]:
    head = ["constant", "state", "before", "after", "relative difference", "zeros before", "zeros after"]
    rows: list[list[Cell]] = [
        [
            code(one["names"][0] or one["names"][1] or ""), one["state"],
            *("" if sizes is None else shape(sizes, " × ") for sizes in one["shapes"]),
            few(one.get("relative")), *map(share, one["zeros"]),
        ]
        for one in data["weights"]["entries"]
    ]  # fmt: skip
    return "Constants", head, rows
