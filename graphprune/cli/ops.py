"""``graphprune ops``."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.boundary import printing
from graphprune.cli.options import output_options, show
from graphprune.rules import Entry, operators


@click.command("ops")
@click.option("--markdown", is_flag=True, help="As the table in graphprune/rules/OPERATORS.md.")
@output_options
def command(markdown: bool, json_to: str | None, verbose: bool, quiet: bool) -> None:
    """List the operators that have a rule, and those that pin what they touch, with the reason."""
    entries = operators()
    if markdown:
        with printing():
            click.echo(as_markdown(entries), nl=False)
        return
    data = {"operators": [{"domain": e.domain, "op": e.op, "pins": e.pins, "text": e.text} for e in entries]}
    show(data, json_to, quiet, lambda out: _print(out, entries))


def _print(out: Console, entries: Iterable[Entry]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("operator", "", "what its rule says, or why it pins"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        name = f"{entry.domain}:{entry.op}" if entry.domain else entry.op
        table.add_row(name, "pins" if entry.pins else "rule", Text(entry.text.replace("``", "")))
    out.print(table)


def as_markdown(entries: Iterable[Entry]) -> str:
    """The table as Markdown, a section for each domain."""
    lines = [
        "# Operators",
        "",
        "Made by `graphprune ops --markdown`. An operator without an entry pins what it touches, and `inspect` names",
        "the node. The notation is explained in `graphprune/relation/notation.py`.",
    ]
    domain = None
    for entry in entries:
        if entry.domain != domain:
            domain = entry.domain
            lines += ["", f"## {domain or 'ai.onnx'}", "", "| operator | | |", "|---|---|---|"]
        text = entry.text.replace("``", "`").replace("|", "\\|")
        lines.append(f"| {entry.op} | {'pins' if entry.pins else 'rule'} | {text} |")
    return "\n".join(lines) + "\n"
