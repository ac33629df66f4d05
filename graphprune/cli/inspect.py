"""``graphprune inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.analysis import analyze, patterns
from graphprune.cli import report
from graphprune.cli.options import model_argument, number, output_options, shape_options, show
from graphprune.cli.pages.asking import report_option
from graphprune.cli.watching import watched
from graphprune.relation import Shape

_ROWS = 40


@click.command("inspect")
@model_argument
@click.option("--allow-io", is_flag=True, help="Also what holds a state that callers carry round (caches).")
@click.option(
    "--sparsity",
    is_flag=False,
    flag_value="2:4",
    metavar="[PATTERN]",
    help="Which weights follow a pattern, what it keeps of the others, and which sparse kernels could read.",
)
@click.option("--amount", type=float, help="For --sparsity 1xW or unstructured: share of weights that go.")
@shape_options
@output_options
@report_option
def command(
    model: Path,
    allow_io: bool,
    sparsity: str | None,
    amount: float | None,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """List what can be pruned in MODEL, what cannot, and why."""
    if sparsity is not None:
        pattern = patterns.parse(sparsity, amount)
        with watched(quiet, "analyze"):
            found = report.sparsity_data(analyze(model, input_shapes), pattern)
        show(found, json_to, quiet, lambda out: _print_sparsity(out, found, verbose))
        return
    with watched(quiet, "analyze"):
        data = report.inspection(analyze(model, input_shapes, allow_io=allow_io), allow_io)
    show(data, json_to, quiet, lambda out: _print(out, data, verbose))


def _print(out: Console, data: dict[str, Any], verbose: bool) -> None:
    sizes = ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in data["witness"].items())
    out.print(
        Text(
            f"{data['model']}: {number(data['parameters'])} parameters, {number(data['macs'])} MACs at {sizes}, "
            f"{number(data['bytes'])}B"
        )
    )
    owned, total = data["owned"], max(data["parameters"], 1)
    shares = ", ".join(f"{100 * owned[k] / total:.1f} % {w}" for k, w in _OWNED.items())
    out.print(Text(f"parameters by the groups that own a dim of their tensor: {shares}"))
    out.print(_groups(data, verbose))
    hidden = len(data["groups"]) - _ROWS
    if hidden > 0 and not verbose:
        out.print(Text(f"... and {hidden} more (-v lists all)"))
    _print_blocks(out, data, verbose)
    fixed = sorted(data["fixed"], key=lambda g: -g["parameters"])
    if fixed:
        out.print(_fixed(fixed if verbose else fixed[:10]))
        if len(fixed) > 10 and not verbose:
            out.print(Text(f"... and {len(fixed) - 10} more (-v lists all)"))
    if data["windows"]:
        out.print(
            Text(f"{data['windows']} further dims belong to one operator alone (such as kernel windows) and stay")
        )
    for note in data["notes"] if verbose else data["notes"][:5]:
        out.print(Text(f"note: node {note['node']!r}: {note['text']}"))
    if len(data["notes"]) > 5 and not verbose:
        out.print(Text(f"... and {len(data['notes']) - 5} more notes (-v lists all)"))


_OWNED = {"exact": "in exact groups", "statistical": "only in statistical ones", "none": "in none"}


def _groups(data: dict[str, Any], verbose: bool) -> Table:
    table = Table(title="prunable groups", title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("id", "left"),
        ("kind", "left"),
        ("size", "right"),
        ("tensors", "right"),
        ("parameters", "right"),
        ("MACs", "right"),
        ("removal is", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for group in data["groups"] if verbose else data["groups"][:_ROWS]:
        how = "exact"
        if group["statistical"]:
            how = f"statistical: {group['statistics'][0]['reason']}"
        if group["pinned"]:
            how += f" ({group['pinned']} classes stay: {group['reasons'][0]['reason']})"
        table.add_row(
            Text(group["id"]),
            group["kind"],
            str(group["size"]),
            str(len(group["tensors"])),
            number(group["parameters"]),
            number(group["macs"]),
            Text(how),
        )
    return table


def _print_blocks(out: Console, data: dict[str, Any], verbose: bool) -> None:
    if data["blocks"]:
        out.print(_blocks(data["blocks"] if verbose else data["blocks"][:_ROWS]))
        hidden = len(data["blocks"]) - _ROWS
        if hidden > 0 and not verbose:
            out.print(Text(f"... and {hidden} more blocks (-v lists all)"))
    for entry in data["fixed_blocks"] if verbose else data["fixed_blocks"][:5]:
        out.print(Text(f"no block: {entry['nodes']} nodes before {entry['output']!r}: {entry['reason']}"))
    if len(data["fixed_blocks"]) > 5 and not verbose:
        out.print(Text(f"... and {len(data['fixed_blocks']) - 5} more that are no blocks (-v lists all)"))


def _blocks(blocks: list[dict[str, Any]]) -> Table:
    table = Table(title="removable blocks", title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("id", "left"),
        ("depth", "right"),
        ("nodes", "right"),
        ("parameters", "right"),
        ("MACs", "right"),
        ("alike", "right"),
        ("is replaced by", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for block in blocks:
        extra = f" ({len(block['parts'])} blocks in a row)" if block["parts"] else ""
        extra += f" (with {', '.join(block['interface'])})" if block["interface"] else ""
        table.add_row(
            Text("  " * block["depth"] + block["id"]),
            str(block["depth"]),
            str(len(block["nodes"])),
            number(block["parameters"]),
            number(block["macs"]),
            str(len(block["like"])),
            Text(block["by"] + extra),
        )
    return table


def _print_sparsity(out: Console, data: dict[str, Any], verbose: bool) -> None:
    layers, pattern = data["layers"], data["pattern"]
    follow, eligible = (sum(e[key] for e in layers) for key in ("follows", "eligible"))
    out.print(
        Text(
            f"{data['model']}: products with a weight: {len(layers)}; weights that follow {pattern}: {follow}, that "
            f"TensorRT's sparse kernels could read: {eligible}"
        )
    )
    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("node", "left"),
        ("outputs", "right"),
        ("sums", "right"),
        ("axis", "right"),
        (pattern, "left"),
        ("magnitude kept", "right"),
        ("sparse kernels", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for entry in layers if verbose else layers[:_ROWS]:
        axis = entry["axis"] is not None
        table.add_row(
            Text(entry["node"]),
            str(entry["outputs"]) if axis else "",
            str(entry["sums"]) if axis else "",
            str(entry["axis"]) if axis else "",
            "follows" if entry["follows"] else "dense",
            "" if entry["kept_magnitude"] is None else f"{100 * entry['kept_magnitude']:.1f} %",
            Text("; ".join(entry["reasons"]) or "could read it"),
        )
    out.print(table)
    if len(layers) > _ROWS and not verbose:
        out.print(Text(f"... and {len(layers) - _ROWS} more (-v lists all)"))


def _fixed(groups: list[dict[str, Any]]) -> Table:
    table = Table(title="not prunable", title_justify="left", box=None, pad_edge=False)
    for name, justify in (
        ("id", "left"),
        ("size", "right"),
        ("parameters", "right"),
        ("why", "left"),
        ("through", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for group in groups:
        reason: dict[str, Any] = {"reason": "it has one class", "chain": []}
        reason = group["reasons"][0] if group["reasons"] else reason
        chain = reason["chain"]
        through = " > ".join(chain if len(chain) < 4 else [chain[0], "...", chain[-1]])
        table.add_row(
            Text(group["id"]), str(group["size"]), number(group["parameters"]), Text(reason["reason"]), Text(through)
        )
    return table
