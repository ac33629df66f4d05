"""``graphprune explain PLAN``: what a run made of a group, and of what a node or a tensor belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from graphprune.analysis import Analysis, Group, analyze
from graphprune.analysis.called import group_names
from graphprune.cli import report
from graphprune.cli.choosing import choice_data, words
from graphprune.cli.watching import watched
from graphprune.errors import InputError
from graphprune.model import naming, node_name
from graphprune.passes.choose import choices
from graphprune.passes.choose.choices import Choices
from graphprune.relation import Shape
from graphprune.rewrite import plan
from graphprune.rewrite.original import look
from graphprune.rewrite.plan import Plan

_SILENT = "the plan does not tell why: it was made by a version that kept no choices, or not by a selection"

_LISTED = "; 'graphprune inspect' lists the groups"


def is_plan(path: Path) -> bool:
    """Whether a file is JSON, and so no model."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b"{"
    except OSError:
        return False  # whoever loads it says what is wrong


@dataclass(frozen=True)
class Answer:
    """What a plan says about a name.

    Attributes:
        data: the same for programs.
        made: what its selections chose.
    """

    data: dict[str, Any]
    made: list[Choices]


def answer(path: Path, name: str, model: Path | None, input_shapes: Mapping[str, Shape], quiet: bool) -> Answer:
    """What a plan says about a group, a block, a node or a tensor.

    Args:
        path: of the plan.
        name: of what is asked about.
        model: the original; where it is left out it is looked for beside the plan, if the plan alone does not know.
        input_shapes: sizes of its inputs, on top of those that the plan was made at.
        quiet: say nothing while it is analysed.

    Raises:
        InputError: the plan or the model cannot be read, the model is another one, or nothing is called that.
    """
    read = plan.load(path)
    made = choices.from_json(read.choices)
    data = {"plan": str(path), "model": read.model["file"], "name": name}
    found, what = _by_plan(read, made, name)
    if model is None and (what == "block" or (found and what == "group")):
        return Answer({**data, "what": what, "groups": [_told(read, made, id) for id in found]}, made)
    with watched(quiet, "analyze"):
        analysis = _analysis(read, model, input_shapes)
    if analysis is not None:
        found, what = _by_model(analysis, name) or (found, what)
    if not what:
        found = _in_module(read, made, analysis, name)
        what = "module" if found else ""
    if not what:
        raise InputError(_unknown(path, read, made, analysis, name))
    return Answer({**data, "what": what, "groups": [_told(read, made, id, analysis) for id in found]}, made)


def print_answer(out: Console, found: Answer) -> None:
    """An answer in plain words."""
    data = found.data
    if data["what"] == "block":
        out.print(Text(f"block {data['name']} was taken out"))
    elif data["what"] != "group":
        count = len(data["groups"])
        verb = "is cut by" if data["what"] == "module" else "belongs to"
        owns = f"{verb} no group" if not count else f"{verb} {count} {'group' if count == 1 else 'groups'}"
        out.print(Text(f"{data['what']} {data['name']} {owns}"))
    for group in data["groups"]:
        _print_group(out, group, found.made)


def _by_plan(read: Plan, made: list[Choices], name: str) -> tuple[list[str], str]:
    """Groups that the plan alone knows by a name, and what the name is of; empty where it does not know."""
    if any(name in (block.id, block.output) for block in read.blocks):
        return [], "block"
    if name in {entry.id for entry in read.groups} | {one.id for own in made for one in own.groups}:
        return [name], "group"
    groups = [one for own in made for one in own.groups]
    reading = [one.id for one in groups if name in one.weights]
    if reading or any(s.consumer == name for s in read.slices):
        return list(dict.fromkeys(reading)), "node"
    sources = {name, *(s.source for s in read.slices if s.result == name)}
    cutting = [one.id for one in groups if sources & {w.rpartition(":")[0] for ws in one.weights.values() for w in ws}]
    known = cutting or any(name in (s.source, s.result) for s in read.slices)
    return list(dict.fromkeys(cutting)), "tensor" if known else ""


def _by_model(analysis: Analysis, name: str) -> tuple[list[str], str] | None:
    """The same by the model; None where it has nothing of that name."""
    if analysis.group(name) is not None:
        return [name], "group"
    net, model = analysis.web, analysis.model
    for index, node in enumerate(model.nodes):
        if name in (node.name, node_name(model, index)):
            relation = net.relations[index]
            slots = [] if relation is None else list(relation.slots())
            places = [net.axis(index, slot, axis) for slot, maps in slots for axis in range(len(maps))]
            return _holding(analysis, {v for v in places if v is not None}), "node"
    tensors = [own for own in (name, *model.uses.get(name, ())) if own in net.axis_of]
    if not tensors:
        return None
    axes = {net.axis_of[own] + axis for own in tensors for axis in range(len(net.shapes[own]))}
    return _holding(analysis, axes), "tensor"


def _in_module(read: Plan, made: list[Choices], analysis: Analysis | None, name: str) -> list[str]:
    """Groups with a node or a weight in a module."""
    names = {entry.id: {entry.id} for entry in read.groups}
    for one in (one for own in made for one in own.groups):
        weights = [weight.rpartition(":")[0] for own in one.weights.values() for weight in own]
        names.setdefault(one.id, {one.id}).update(one.weights, weights)
    if analysis is not None:
        fixed = (group for group in analysis.fixed if not report.local(analysis, group))
        names |= {group.id: set(group_names(analysis, group)) for group in fixed}
    return [id for id, own in names.items() if naming.meets(own, [name])]


def _holding(analysis: Analysis, vertices: set[int]) -> list[str]:
    """Groups that have a part of some axes; those that no other operator reaches are no news."""
    fixed = [g for g in analysis.fixed if not report.local(analysis, g)]
    return [g.id for g in (*analysis.groups, *fixed) if vertices & g.labels.keys()]


def _analysis(read: Plan, model: Path | None, input_shapes: Mapping[str, Shape]) -> Analysis | None:
    """The analysis of the plan's model; None where it was not given and is not found.

    Raises:
        InputError: what was given is another model.
    """
    original = look(read, model)
    if original is None:
        return None
    shapes = {n: tuple(shape) for n, shape in read.model["witness"].items()}
    return analyze(original, {**shapes, **input_shapes}, allow_io=bool(read.interface))


def _told(read: Plan, made: list[Choices], id: str, analysis: Analysis | None = None) -> dict[str, Any]:
    """What the plan says of one group, and the model of one that could not be chosen from."""
    entry = next((one for one in read.groups if one.id == id), None)
    about = list(choices.about(made, id))
    group = None if analysis is None else analysis.group(id)
    size = entry.size if entry is not None else about[0][1].size if about else group.size if group is not None else 0
    removed = 0 if entry is None else len(entry.removed)
    chosen = sum(choice.removed for _, choice in about)
    return {
        "id": id,
        "kind": entry.kind if entry is not None else about[0][1].kind if about else group.kind if group else "",
        "size": size,
        "removed": removed,
        "folded": len(read.folded.get(id, ())),
        "reordered": entry is not None and entry.order is not None,
        "edited": bool(made) and removed != chosen,
        "choices": [choice_data(own, choice) for own, choice in about],
        "reasons": _reasons(group),
        "silent": "" if about or _reasons(group) else _SILENT,
    }


def _reasons(group: Group | None) -> list[str]:
    """Why a group that could not be chosen from stays."""
    return [] if group is None or group.prunable else list(dict.fromkeys(map(str, group.reasons)))[:3]


def _print_group(out: Console, data: dict[str, Any], made: list[Choices]) -> None:
    left = data["size"] - data["removed"]
    state = f"cut to {left} of {data['size']}" if data["removed"] else f"keeps all {data['size']}"
    out.print(Text(f"group {data['id']}: {state} {data['kind']} classes"))
    rounds = max((one.round for one in made), default=1)
    for own, choice in choices.about(made, data["id"]):
        for line in words(own, choice, rounds > 1):
            out.print(Text(f"  {line}"))
    for reason in data["reasons"]:
        out.print(Text(f"  it cannot be pruned, because {reason}"))
    if data["folded"]:
        out.print(Text(f"  {data['folded']} of them no input changes; they went first, folded into biases"))
    if data["reordered"]:
        out.print(Text("  those that stay have changed places, for a pattern of zeros"))
    if data["edited"]:
        out.print(Text(f"  the plan removes {data['removed']} of its classes, which is not what was chosen"))
    if data["silent"]:
        out.print(Text(f"  {data['silent']}"))


def _unknown(path: Path, read: Plan, made: list[Choices], analysis: Analysis | None, name: str) -> str:
    """That nothing is called so, with what comes near, or where more names could come from."""
    known = [entry.id for entry in read.groups] + [one.id for own in made for one in own.groups]
    known += [text for s in read.slices for text in (s.consumer, s.source)]
    known += [node for own in made for one in own.groups for node in one.weights]
    if analysis is not None:
        known += [g.id for g in analysis.fixed] + [
            node_name(analysis.model, i) for i in range(len(analysis.model.nodes))
        ]
    hint = naming.near(name, known, 3)
    if analysis is None and not hint:
        file = read.model["file"]
        return f"{path}: the plan knows no group, node or tensor {name!r}; --model {file} knows what it left alone"
    return f"{path}: no group, node or tensor is called {name!r}{hint or _LISTED}"
