"""What changed from one model to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element

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


def matched_by(data: Data) -> str:
    """How many nodes were matched by what, in words."""
    by = {how: count for how, count in data["matched"]["by"].items() if count}
    return ", ".join(f"{count} identical" if how == "identical" else f"{count} by {how}" for how, count in by.items())


def _lead(data: Data) -> Iterator[Element | str]:
    one, other = (code(model["file"]) for model in data["models"])
    yield from ("From ", one, " to ", other, ". ")
    if data["same"]:
        yield "Nothing differs but names and metadata. "
    by = matched_by(data)
    yield f"{plural(data['matched']['nodes'], 'node is', 'nodes are')} in both{f' ({by})' if by else ''}. "
    counts = ", ".join(f"{count} {state}" for state, count in data["weights"]["counts"].items() if count)
    if counts:
        yield f"Constants: {counts}."


def _totals(data: Data) -> Element:
    one, other = data["models"]
    rows: list[list[Cell]] = [
        ["MACs" if key == "macs" else key, number(one[key]), number(other[key]), set_change(one[key], other[key])]
        for key in ("parameters", "macs", "bytes", "nodes")
        if one[key] is not None and other[key] is not None
    ]
    return table("Totals", ["cost", "before", "after", "change"], rows)


def _tables(data: Data) -> Iterator[tuple[str, list[str], list[list[Cell]]]]:
    both, operators = ["before", "after"], data["operators"]
    yield (
        "Widths",
        ["node", "operator", *both, "values"],
        _rows((e["node"], e["op"], _by(e["before"]), _by(e["after"]), e["state"]) for e in data["widths"]),
    )
    yield (
        "Operators of a type",
        ["operator", *both],
        _rows((e["op"], e["before"], e["after"]) for e in operators["types"]),
    )
    for title, key in (("Nodes removed", "removed"), ("Nodes added", "added")):
        yield title, ["node", "operator"], _rows((e["node"], e["op"]) for e in operators[key])
    yield (
        "Nodes that became another operator",
        ["node", *both],
        _rows((e["node"], e["before"], e["after"]) for e in operators["changed"]),
    )
    yield (
        "Inputs that come from elsewhere",
        ["node", "input", *both],
        _rows((e["node"] or "an output", e["input"], e["before"], e["after"]) for e in data["wiring"]),
    )
    yield (
        "Attributes",
        ["node", "operator", "attribute", *both],
        _rows((e["node"], e["op"], e["name"], e["before"], e["after"]) for e in data["attributes"]),
    )
    yield (
        "Constants",
        ["constant", "state", *both, "relative difference", "zeros before", "zeros after"],
        _rows(
            (
                e["names"][0] or e["names"][1],
                e["state"],
                *map(_by, e["shapes"]),
                few(e.get("relative")),
                *map(share, e["zeros"]),
            )
            for e in data["weights"]["entries"]
        ),
    )
    yield (
        "Interface",
        ["name", *both],
        _rows(
            (" → ".join(n for n in dict.fromkeys(e["names"]) if n), _value(e["before"]), _value(e["after"]))
            for side in ("inputs", "outputs")
            for e in data["interface"][side]
        ),
    )
    yield (
        "Operator sets",
        ["domain", *both],
        _rows((e["domain"] or "ai.onnx", e["before"], e["after"]) for e in data["opsets"]),
    )
    yield "Metadata", ["key", *both], _rows((e["key"], e["before"], e["after"]) for e in data["metadata"])


def _rows(entries: Iterable[tuple[Any, ...]]) -> list[list[Cell]]:
    return [[code(str(first)), *("" if cell is None else str(cell) for cell in rest)] for first, *rest in entries]


def _by(shape: list[int] | None) -> str | None:
    return None if shape is None else " × ".join(map(str, shape)) or "scalar"


def _value(value: Data | None) -> str | None:
    return None if value is None else f"{value['type']} {_by(value['shape']) or 'of any shape'}"
