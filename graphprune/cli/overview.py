"""What ``inspect`` prints: a summary with the biggest groups, or everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from graphprune.analysis import Analysis
from graphprune.analysis.called import group_names
from graphprune.cli.options import number
from graphprune.cli.tables import Column, fits, listing
from graphprune.cli.words import plural
from graphprune.errors import InputError
from graphprune.model import naming

Data = dict[str, Any]
SORTS: Mapping[str, Callable[[Data], Any]] = {
    "macs": lambda one: (-one["macs"], -one["parameters"]),
    "parameters": lambda one: (-one["parameters"], -one["macs"]),
    "size": lambda one: -one.get("size", len(one.get("nodes", ()))),
    "id": lambda one: one["id"],
    "graph": lambda one: 0,
}
"""Orders of groups and blocks; ``graph`` is that in which the model has them."""
_BIGGEST, _FOLDED = 8, 4
"""Groups in the summary: where each takes one line, and where two."""
_WHY = 2
OWNED = {"exact": "in exact groups", "statistical": "only in statistical ones", "none": "in none"}
"""What shares of parameters and MACs are called, by the groups that own them."""


def narrowed(analysis: Analysis, data: Data, texts: Sequence[str]) -> Data:
    """What was found, without what none of some names, globs or modules stands for.

    Raises:
        InputError: one of them stands for nothing.
    """
    names = {group.id: group_names(analysis, group) for group in (*analysis.groups, *analysis.fixed)}
    names |= {block["id"]: [block["id"]] for block in data["blocks"]}
    for text in texts:
        if not naming.meets((name for own in names.values() for name in own), [text]):
            hint = naming.near(text, (name for own in names.values() for name in own))
            raise InputError(f"{data['model']}: --filter {text!r} matches no group, and no node or weight of one{hint}")
    meant = {id for id, own in names.items() if naming.meets(own, texts)}
    meant |= {block["id"] for block in data["blocks"] if _within(block, texts)}
    kept = {what: [one for one in data[what] if one["id"] in meant] for what in ("groups", "fixed", "blocks")}
    notes = [note for note in data["notes"] if naming.meets([note["node"]], texts)]
    return {**data, **kept, "fixed_blocks": [], "windows": 0, "notes": notes}


def _within(block: Data, texts: Sequence[str]) -> bool:
    return any(all(naming.in_module(node, text) for node in block["nodes"]) for text in texts)


def ordered(data: Data, sort: str) -> Data:
    """Groups and blocks in one of the :data:`SORTS`."""
    return {**data, **{what: sorted(data[what], key=SORTS[sort]) for what in ("groups", "fixed", "blocks")}}


def print_summary(out: Console, data: Data, sort: str) -> None:
    """What is prunable, how much of the model that is, what stays and why, and the biggest groups."""
    print_head(out, data)
    groups, fixed = ordered(data, sort)["groups"], data["fixed"]
    statistical = sum(group["statistical"] for group in groups)
    text = f"prunable: {plural(len(groups), 'group', 'groups')}"
    if statistical:
        text += f", {statistical} of them statistical (--allow-statistical)"
    if data["blocks"]:
        text += f"; {plural(len(data['blocks']), 'whole block', 'whole blocks')}, nested as they are (--blocks)"
    out.print(Text(text))
    for group in sorted(fixed, key=lambda one: -one["parameters"])[:_WHY]:
        why = reason(group)["reason"]
        out.print(Text(f"stays: {number(group['parameters'])} parameters hang on {group['id']}, {why}"))
    if len(fixed) > _WHY:
        out.print(Text(f"stays: {plural(len(fixed) - _WHY, 'group', 'groups')} more"))
    for note in data["notes"][:_WHY]:
        out.print(Text(f"note: node {note['node']!r}: {note['text']}"))
    if groups:
        out.print()
    rows = _group_rows(groups[:_BIGGEST])
    if not fits(out, "group", _GROUPS, rows):
        rows = rows[:_FOLDED]
    listing(out, "group", _GROUPS, rows)
    hidden = [plural(len(groups) - len(rows), "more group", "more groups")] if len(groups) > len(rows) else []
    out.print(
        Text(
            f"{', '.join([*hidden, 'blocks and all that stays'])}: --all, or --filter NAME, with --sort KEY; explain ID"
        )
    )


def print_head(out: Console, data: Data) -> None:
    """The model, and how much of it groups own."""
    sizes = ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in data["witness"].items())
    costs = f"{number(data['parameters'])} parameters, {number(data['macs'])} MACs at {sizes}, {number(data['bytes'])}B"
    out.print(Text(f"{data['model']}: {costs}"))
    for what, key, whole in (("parameters", "owned", "parameters"), ("MACs", "owned_macs", "macs")):
        own, total = data[key], max(data[whole], 1)
        shares = [f"{100 * own[k] / total:.1f} % {text}" for k, text in OWNED.items() if own[k] * 2000 > total]
        if shares:
            out.print(Text(f"{what}: {', '.join(shares)}"))


def print_all(out: Console, data: Data, verbose: bool) -> None:
    """Every group, block and reason."""
    print_head(out, data)
    listing(out, "group", _GROUPS, _group_rows(data["groups"]), title="\nprunable groups")
    listing(out, "block", _BLOCKS, [_block_row(block) for block in data["blocks"]], title="\nremovable blocks")
    for entry in data["fixed_blocks"]:
        out.print(Text(f"no block: {entry['nodes']} nodes before {entry['output']!r}: {entry['reason']}"))
    listing(out, "group", _FIXED, [_fixed_row(one, verbose) for one in data["fixed"]], title="\nnot prunable")
    if data["windows"]:
        out.print(
            Text(f"{data['windows']} further dims belong to one operator alone (such as kernel windows) and stay")
        )
    for note in data["notes"]:
        out.print(Text(f"note: node {note['node']!r}: {note['text']}"))


def reason(group: Data) -> Data:
    """The first reason why a group cannot be pruned, with the operators that lead there."""
    return group["reasons"][0] if group["reasons"] else {"reason": "it has one class", "chain": []}


_GROUPS = (
    Column("kind", text=True),
    Column("size"),
    Column("tensors"),
    Column("parameters"),
    Column("MACs"),
    Column("removal is", text=True),
)


def _group_rows(groups: Sequence[Data]) -> list[list[str]]:
    return [
        [
            group["id"],
            group["kind"],
            str(group["size"]),
            str(len(group["tensors"])),
            number(group["parameters"]),
            number(group["macs"]),
            _how(group),
        ]
        for group in groups
    ]


def _how(group: Data) -> str:
    how = f"statistical: {group['statistics'][0]['reason']}" if group["statistical"] else "exact"
    return f"{how} ({group['pinned']} classes stay: {group['reasons'][0]['reason']})" if group["pinned"] else how


_BLOCKS = (
    Column("depth"),
    Column("nodes"),
    Column("parameters"),
    Column("MACs"),
    Column("alike"),
    Column("is replaced by", text=True),
)


def _block_row(block: Data) -> list[str]:
    extra = f" ({len(block['parts'])} blocks in a row)" if block["parts"] else ""
    extra += f" (with {', '.join(block['interface'])})" if block["interface"] else ""
    worth = number(block["parameters"]), number(block["macs"])
    return [
        block["id"],
        str(block["depth"]),
        str(len(block["nodes"])),
        *worth,
        str(len(block["like"])),
        block["by"] + extra,
    ]


_FIXED = (Column("size"), Column("parameters"), Column("why", text=True), Column("through", text=True))


def _fixed_row(group: Data, verbose: bool) -> list[str]:
    why = reason(group)
    chain = why["chain"]
    through = " > ".join(chain if len(chain) < 4 or verbose else [chain[0], "...", chain[-1]])
    return [group["id"], str(group["size"]), number(group["parameters"]), why["reason"], through]
