"""``graphprune diff``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.differing import Part, counted, matched_by, named, parts, shape, totals
from graphprune.cli.harmless import on_one_line
from graphprune.cli.options import number, output_options, shape_options, show
from graphprune.cli.pages.asking import report_option
from graphprune.cli.watching import watched
from graphprune.cli.words import change
from graphprune.cli.writing import told
from graphprune.model import paths
from graphprune.relation import Shape
from graphprune.verdict.diff import diff

_ROWS, _WIDEST = 20, 32


@click.command("diff")
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option("--exit-code", is_flag=True, help="Exit with 1 where more differs than names and metadata.")
@click.option("--no-run", is_flag=True, help="Look at the files alone: MACs are not counted.")
@shape_options
@output_options
@report_option
def command(
    before: Path,
    after: Path,
    exit_code: bool,
    no_run: bool,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Say what changed from model A to model B: widths, operators, weights, attributes, interface.

    Nodes are matched by what they compute, by their weights, names and neighbours, so that models may be renamed,
    pruned, simplified or saved by another tool.
    """
    paths.reads("A", before)
    paths.reads("B", after)
    with watched(quiet, "compare"):
        found = diff(before, after, input_shapes, run=not no_run)
    data = found.to_json()

    def printed(out: Console) -> None:
        print_diff(out, data, verbose)
        if written := told():
            out.print(Text(written), soft_wrap=True)

    show(data, json_to, quiet, printed)
    if exit_code and not found.same:
        click.get_current_context().exit(1)


def print_diff(out: Console, data: dict[str, Any], verbose: bool = False) -> None:
    """A diff in words; names stand whole, at the head or the end of a line, without what would steer a terminal."""
    for line in lines(data, None if verbose else _ROWS):
        out.print(Text(on_one_line(line)), soft_wrap=True)


def lines(data: dict[str, Any], most: int | None = None) -> list[str]:
    """A diff in words, line by line.

    Args:
        data: the JSON of a diff.
        most: entries of each part; all where it is None.
    """
    found = _head(data)
    for title, rows in _parts(data):
        if rows:
            found += ["", f"{title[0].lower()}{title[1:]} ({len(rows)})"]
            found += [line for row in rows[:most] for line in row]
            if most is not None and len(rows) > most:
                found.append(f"  ... and {len(rows) - most} more (-v lists all)")
    return found + [f"note: {note}" for note in data["notes"]]


def _head(data: dict[str, Any]) -> list[str]:
    one, other = data["models"]
    by = matched_by(data)
    nodes = data["matched"]["nodes"]
    found = [f"A  {one['file']}", f"B  {other['file']}", ""]
    for title, unit, before, after in totals(data):
        found.append(f"{title:12}{number(before) + unit:>10}{number(after) + unit:>10}{change(before, after):>10}")
    found += ["", f"{nodes} nodes are in both" + (f" ({by})" if by else "")]
    renamed = len(data["operators"]["renamed"])
    if renamed:
        found.append(f"{renamed} of them have another name")
    if counted(data):
        found.append(f"constants: {counted(data)}")
    folded = sum(e["folded"] for e in data["wiring"])
    if folded:
        found.append(f"{folded} inputs of nodes are constants now, and were computed")
    if data["same"]:
        found.append("nothing differs" + (" but names or metadata" if renamed or data["metadata"] else ""))
    return found


def _parts(data: dict[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Titles and rows of all parts, each row in lines; cut vectors go without saying where their layer is told."""
    weights = data["weights"]["entries"]
    told = [e for e in weights if e["kind"] == "weight" and e["state"] != "cut"]
    told.sort(key=lambda e: -(e.get("relative") or 0))
    for part in parts(data):
        if part.title == "Interface":
            yield "weights that are not just cut", [_weight(e) for e in told]
            numbers = [e for e in weights if e["kind"] == "number" and None not in e["shapes"]]
            yield "sizes and other numbers that changed", [_weight(e) for e in numbers]
        yield part.title, _long(part) if part.long else _aligned(part)


def _aligned(part: Part) -> list[list[str]]:
    """Rows of one line each, columns below each other; the last column, the name, may be as long as it is."""
    word = _short if part.title == "Metadata" else str
    rows = [
        (*row.facts, *([f"{word(row.before)} -> {word(row.after)}"] if part.paired else []), *row.more, row.name)
        for row in part.rows
    ]
    sizes = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    return [
        ["  " + "  ".join([*(f"{cell:{size}}" for cell, size in zip(row, sizes[:-1], strict=False)), row[-1]])]
        for row in rows
    ]


def _long(part: Part) -> list[list[str]]:
    return [
        [f"  {' '.join([*row.facts, row.name])}", f"    was {row.before}", f"    now {row.after}"] for row in part.rows
    ]


def _weight(entry: dict[str, Any]) -> list[str]:
    told = [entry["state"]]
    shapes, types, values = (entry[key] for key in ("shapes", "types", "values"))
    known = [s for s in shapes if s is not None]
    told.append(" -> ".join(map(shape, known if known[0] != known[-1] else known[:1])))
    if None not in types and types[0] != types[1]:
        told.append(f"{types[0]} -> {types[1]}")
    if any(v is not None for v in values) and entry["kind"] == "number":
        told.append(" -> ".join(str(v) for v, s in zip(values, shapes, strict=True) if s is not None))
    if entry.get("relative"):
        told.append(f"differs by {100 * entry['relative']:.3g} % of its norm")
    zeros = entry["zeros"]
    if None not in zeros and abs(zeros[0] - zeros[1]) > 1e-3:
        told.append(f"zeros {100 * zeros[0]:.1f} % -> {100 * zeros[1]:.1f} %")
    if "stored" in entry:
        told.append(f"stored {entry['stored'][0]} -> {entry['stored'][1]}")
    where = [f"    read by {entry['node']}"] if entry["node"] and entry["kind"] == "number" else []
    return [f"  {named(entry['names'])}", f"    {', '.join(told)}", *where]


def _short(value: str | None, most: int = 32) -> str:
    text = " ".join((value or "").split())
    return text if len(text) <= most else f"{text[:most]}..."
