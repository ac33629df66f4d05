"""``graphprune diff``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.options import change, number, output_options, shape_options, show
from graphprune.cli.pages.asking import report_option
from graphprune.cli.pages.sections.differences import matched_by
from graphprune.cli.watching import watched
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
        out.print(Text("".join(sign if sign.isprintable() else "?" for sign in line)), soft_wrap=True)


def lines(data: dict[str, Any], most: int | None = None) -> list[str]:
    """A diff in words, line by line.

    Args:
        data: the JSON of a diff.
        most: entries of each part; all where it is None.
    """
    found = _head(data)
    for title, rows in _parts(data):
        if rows:
            found += ["", f"{title} ({len(rows)})"]
            found += [line for row in rows[:most] for line in row]
            if most is not None and len(rows) > most:
                found.append(f"  ... and {len(rows) - most} more (-v lists all)")
    return found + [f"note: {note}" for note in data["notes"]]


def _head(data: dict[str, Any]) -> list[str]:
    one, other = data["models"]
    by = matched_by(data)
    nodes = data["matched"]["nodes"]
    found = [f"A  {one['file']}", f"B  {other['file']}", ""]
    for key, unit in (("parameters", ""), ("macs", ""), ("bytes", "B"), ("nodes", "")):
        title = {"macs": "MACs"}.get(key, key)
        if one[key] is not None and other[key] is not None:
            row = f"{title:12}{number(one[key]) + unit:>10}{number(other[key]) + unit:>10}"
            found.append(f"{row}{change(one[key], other[key]):>10}")
    found += ["", f"{nodes} nodes are in both" + (f" ({by})" if by else "")]
    renamed = len(data["operators"]["renamed"])
    if renamed:
        found.append(f"{renamed} of them have another name")
    counts = [f"{count} {state}" for state, count in data["weights"]["counts"].items() if count]
    if counts:
        found.append(f"constants: {', '.join(counts)}")
    folded = sum(e["folded"] for e in data["wiring"])
    if folded:
        found.append(f"{folded} inputs of nodes are constants now, and were computed")
    if data["same"]:
        found.append("nothing differs" + (" but names or metadata" if renamed or data["metadata"] else ""))
    return found


def _parts(data: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Titles and rows of all parts, each row in lines; cut vectors go without saying where their layer is told."""
    operators, weights = data["operators"], data["weights"]["entries"]
    told = [e for e in weights if e["kind"] == "weight" and e["state"] != "cut"]
    told.sort(key=lambda e: -(e.get("relative") or 0))
    interface = [(side[:-1], e) for side in ("inputs", "outputs") for e in data["interface"][side]]
    return [
        ("widths", _aligned([(e["op"], _to(_shape, e), e["state"], e["node"]) for e in data["widths"]])),
        ("operators, how many of a type", _aligned([(e["op"], _to(str, e)) for e in operators["types"]])),
        ("nodes removed", _aligned([(e["op"], e["node"]) for e in operators["removed"] if e["op"] != "Identity"])),
        ("nodes added", _aligned([(e["op"], e["node"]) for e in operators["added"] if e["op"] != "Identity"])),
        ("nodes that became another operator", _aligned([(_to(str, e), e["node"]) for e in operators["changed"]])),
        ("inputs that come from elsewhere", [_wire(e) for e in data["wiring"] if not e["folded"]]),
        ("attributes", _aligned([(e["op"], e["name"], _to(_told, e), e["node"]) for e in data["attributes"]])),
        ("weights that are not just cut", [_weight(e) for e in told]),
        (
            "sizes and other numbers that changed",
            [_weight(e) for e in weights if e["kind"] == "number" and None not in e["shapes"]],
        ),
        ("interface", [[f"  {side} {_names(e['names'])}", f"    {_to(_value, e)}"] for side, e in interface]),
        ("operator sets", _aligned([(e["domain"] or "ai.onnx", _to(_told, e)) for e in data["opsets"]])),
        ("metadata", _aligned([(e["key"], _to(_short, e)) for e in data["metadata"]])),
    ]


def _to(word: Callable[[Any], str], entry: dict[str, Any]) -> str:
    return f"{word(entry['before'])} -> {word(entry['after'])}"


def _aligned(rows: list[tuple[str, ...]]) -> list[list[str]]:
    """Rows of one line each, columns below each other; the last column, the name of a node, may be as long as it is."""
    sizes = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    return [
        ["  " + "  ".join([*(f"{cell:{size}}" for cell, size in zip(row, sizes[:-1], strict=False)), row[-1]])]
        for row in rows
    ]


def _weight(entry: dict[str, Any]) -> list[str]:
    told = [entry["state"]]
    shapes, types, values = (entry[key] for key in ("shapes", "types", "values"))
    known = [s for s in shapes if s is not None]
    told.append(" -> ".join(map(_shape, known if known[0] != known[-1] else known[:1])))
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
    return [f"  {_names(entry['names'])}", f"    {', '.join(told)}", *where]


def _wire(entry: dict[str, Any]) -> list[str]:
    where = "an output of the graph" if entry["node"] is None else f"{entry['node']} input {entry['input']}"
    return [f"  {where}", f"    was {entry['before'] or 'left out'}", f"    now {entry['after'] or 'left out'}"]


def _names(names: list[str | None]) -> str:
    known = [n for n in names if n is not None]
    return known[0] if known[0] == known[-1] else " -> ".join(known)


def _value(value: dict[str, Any] | None) -> str:
    return "none" if value is None else f"{value['type']} {_shape(value['shape'])}"


def _shape(shape: list[Any] | None) -> str:
    return "of any shape" if shape is None else "x".join(map(str, shape)) or "scalar"


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _short(value: Any, most: int = 32) -> str:
    text = " ".join(_told(value).split())
    return text if len(text) <= most else f"{text[:most]}..."
