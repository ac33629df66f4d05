"""``graphprune explain MODEL MODULE``: what lies in a module, or is meant by a glob."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from graphprune.analysis import Analysis, blocks
from graphprune.analysis.called import inside
from graphprune.cli import report
from graphprune.cli.options import number
from graphprune.errors import InputError
from graphprune.model import naming, node_name


def module_data(analysis: Analysis, name: str) -> dict[str, Any]:
    """Groups, blocks and nodes of a module.

    Raises:
        InputError: nothing is called so, and nothing lies in a module of that name.
    """
    own = blocks.find_blocks(analysis).blocks
    found, nodes = inside(analysis, own, name), range(len(analysis.model.nodes))
    if not found:
        known = [group.id for group in (*analysis.groups, *analysis.fixed)]
        known += [block.id for block in own]
        known += [node_name(analysis.model, k) for k in nodes]
        hint = naming.near(name, known, 3, "; 'graphprune inspect' lists the groups")
        raise InputError(f"{analysis.model.name}: no node, tensor, group or module is called {name!r}{hint}")
    return {
        "module": name,
        "groups": [report.group_data(analysis, group) for group in found.groups if not report.local(analysis, group)],
        "blocks": [report.block_data(analysis, block) for block in found.blocks],
        "nodes": [node_name(analysis.model, k) for k in found.nodes],
    }


def print_module(out: Console, data: dict[str, Any], verbose: bool) -> None:
    """A line for each group and block."""
    counts = ", ".join(f"{len(data[what])} {what}" for what in ("groups", "blocks", "nodes"))
    out.print(Text(f"module {data['module']}: {counts}"))
    for group in data["groups"]:
        worth = f"{number(group['parameters'])} parameters, {number(group['macs'])} MACs"
        out.print(Text(f"group {group['id']}: {group['kind']}, {group['size']} classes, {_state(group)}; {worth}"))
    for block in data["blocks"]:
        worth = f"{number(block['parameters'])} parameters, {number(block['macs'])} MACs"
        out.print(Text(f"block {block['id']}: {worth}"))
    shown = data["nodes"] if verbose else data["nodes"][:12]
    more = f", ... and {len(data['nodes']) - len(shown)} more (-v)" if len(shown) < len(data["nodes"]) else ""
    if shown:
        out.print(Text(f"nodes: {', '.join(shown)}{more}"))


def _state(group: dict[str, Any]) -> str:
    if not group["prunable"]:
        return f"not prunable, {group['reasons'][0]['reason']}" if group["reasons"] else "not prunable"
    return "statistical" if group["statistical"] else "exact"
