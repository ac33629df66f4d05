"""``graphprune explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.analysis import Analysis, Group, analyze, blocks
from graphprune.cli import explain_plan, report
from graphprune.cli.explain_module import module_data, print_module
from graphprune.cli.options import number, output_options, shape_options, show
from graphprune.cli.watching import watched
from graphprune.model import node_name
from graphprune.relation import Shape


@click.command("explain")
@click.argument("model", metavar="MODEL|PLAN", type=click.Path(path_type=Path))
@click.argument("node_or_group", metavar="NODE|GROUP|BLOCK|TENSOR|MODULE")
@click.option("--model", "original", type=click.Path(path_type=Path), help="The original, where PLAN is asked.")
@shape_options
@output_options
def command(
    model: Path,
    node_or_group: str,
    original: Path | None,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Say what a group ties together, what a block holds, or what a node does to axes, and why something stays.

    A MODULE, as /encoder/layer.3, stands for all that lies in it.

    Of a PLAN that a run wrote: what it made of the group, by which numbers, and why it took no more.
    """
    if explain_plan.is_plan(model):
        found = explain_plan.answer(model, node_or_group, original, input_shapes, quiet)
        show(found.data, json_to, quiet, lambda out: explain_plan.print_answer(out, found))
        return
    if original is not None:
        raise click.UsageError(f"--model is for a plan, and {model} is none")
    with watched(quiet, "analyze"):
        analysis = analyze(model, input_shapes)
    group = analysis.group(node_or_group)
    if group is not None:
        data = {**report.group_data(analysis, group), "nodes": _nodes(analysis, group)}
        show(data, json_to, quiet, lambda out: _print_group(out, data, verbose))
        return
    block = blocks.find_blocks(analysis).get(node_or_group)
    if block is not None:
        data = report.block_data(analysis, block)
        show(data, json_to, quiet, lambda out: _print_block(out, data, verbose))
        return
    index = _find_node(analysis, node_or_group)
    if index is not None:
        data = {**report.node_data(analysis, index), **report.blocks_of(analysis, index)}
        show(data, json_to, quiet, lambda out: _print_node(out, data))
        return
    data = module_data(analysis, node_or_group)
    show(data, json_to, quiet, lambda out: print_module(out, data, verbose))


def _find_node(analysis: Analysis, name: str) -> int | None:
    for i, node in enumerate(analysis.model.nodes):
        if name in (node.name, node_name(analysis.model, i)) or name in node.output:
            return i
    return None


def _nodes(analysis: Analysis, group: Group) -> list[str]:
    net = analysis.web
    found = sorted({net.dim(v)[0] for v in group.labels if v >= net.axes})
    return [node_name(analysis.model, i) for i in found]


def _print_group(out: Console, data: dict[str, Any], verbose: bool) -> None:
    state = "not prunable" if not data["prunable"] else "statistical" if data["statistical"] else "exact"
    out.print(Text(f"group {data['id']}: {data['kind']}, {data['size']} classes, {state}"))
    out.print(Text(f"worth {number(data['parameters'])} parameters and {number(data['macs'])} MACs"))
    if data["pinned"]:
        out.print(Text(f"{data['pinned']} of its classes cannot be removed"))
    for title, entries in (("stays", data["reasons"]), ("not exact", data["statistics"])):
        for entry in entries:
            out.print(Text(f"{title} because {entry['reason']}, at {entry['at']}"))
            if entry["chain"]:
                out.print(Text(f"  reached from its weights through {' > '.join(entry['chain'])}"))
    for title, names in (("weights", data["tensors"]), ("nodes", data["nodes"])):
        shown = names if verbose else names[:12]
        more = f", ... and {len(names) - len(shown)} more (-v)" if len(shown) < len(names) else ""
        out.print(Text(f"{title} ({len(names)}): {', '.join(shown)}{more}"))


def _print_block(out: Console, data: dict[str, Any], verbose: bool) -> None:
    out.print(Text(f"block {data['id']}: {data['output']!r} can be replaced by {data['by']!r}"))
    out.print(Text(f"worth {number(data['parameters'])} parameters and {number(data['macs'])} MACs"))
    rows = (("made of", data["parts"]), ("like", data["like"]), ("takes along", data["interface"]))
    for title, names in (*rows, ("nodes", data["nodes"])):
        shown = names if verbose else names[:12]
        more = f", ... and {len(names) - len(shown)} more (-v)" if len(shown) < len(names) else ""
        if names:
            out.print(Text(f"{title} ({len(names)}): {', '.join(shown)}{more}"))


def _print_node(out: Console, data: dict[str, Any]) -> None:
    out.print(Text(f"node {data['node']} ({data['op']}): {data['relation']}"))
    if data["says"]:
        out.print(Text(f"  it says (numbers are inputs): {', '.join(data['says'])}"))
    for axis in data["axes"]:
        constant = " (constant)" if axis["constant"] else ""
        out.print(Text(f"{axis['slot']} {axis['tensor']!r}{constant}, axis {axis['axis']} of {axis['size']}:"))
        for group in axis["groups"]:
            state = (
                "exact"
                if group["prunable"] and not group["statistical"]
                else "statistical"
                if group["prunable"]
                else (f"not prunable, {group['why']}")
            )
            out.print(Text(f"  {group['classes']} classes of group {group['id']} ({group['kind']}; {state})"))
        if not axis["groups"]:
            out.print(Text("  in no group: no weight owns it"))
    out.print(Text(f"in blocks: {', '.join(data['blocks'])}" if data["blocks"] else f"in no block: {data['no_block']}"))
