"""``graphprune ops``."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.boundary import printing
from graphprune.cli.options import output_options, show
from graphprune.rules import Entry, operators, rule
from graphprune.rules.examples import examples


@click.command("ops")
@click.option("--markdown", is_flag=True, help="As the table in graphprune/rules/OPERATORS.md.")
@click.option("--lines", is_flag=True, help="What each rule says of an example, as in graphprune/rules/LINES.txt.")
@output_options
def command(markdown: bool, lines: bool, json_to: str | None, verbose: bool, quiet: bool) -> None:
    """List the operators that have a rule, and those that pin what they touch, with the reason."""
    entries = operators()
    if markdown or lines:
        with printing():
            click.echo(as_lines() if lines else as_markdown(entries), nl=False)
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


def as_lines() -> str:
    """Every example of an operator, and beneath it what its rule says of it."""
    found = [
        "Made by `graphprune ops --lines`: for each operator with a rule a node (inputs -> outputs, attributes; `_` is",
        "absent, `()` a scalar, `=` an operand of known values), and what the rule says of it. Patterns are explained",
        "in graphprune/relation/notation.py, what stands in brackets in graphprune/relation/relation.py.",
    ]
    domain = None
    for example in examples():
        node = example.node
        if node.domain != domain:
            domain = node.domain
            found += ["", f"# {domain or 'ai.onnx'}", ""]
        found += [f"{node.op}: {example.text}", f"    {rule(node)}"]
    return "\n".join(found) + "\n"


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
