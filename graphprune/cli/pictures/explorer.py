"""Data for Google's Model Explorer, which colours its nodes by it: groups, what a plan takes, what groups can lose.

The form is that of ``model_explorer.node_data_builder.ModelNodeData``: by graph, then by node, a value and a colour. A
file is one overlay, since the viewer takes one of each graph from a file. Nodes are named as the adapter
``model-explorer-onnx`` names them: those of the graph by name, initializers as ``[value] NAME``; nodes in bodies are
left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import jsonschema
from onnx import GraphProto, NodeProto

from graphprune.analysis import Analysis, Group, blocks
from graphprune.cli.pictures.cut import Cut
from graphprune.errors import InputError
from graphprune.model import Use, parsing, subgraphs
from graphprune.schema import schema

NO_NAME = "<main>"
"""What the adapter calls a graph without a name."""
_PALETTE = (
    "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#dbdb8d", "#9edae5", "#c7c7c7",
    "#7fb3d5", "#f0b27a", "#7dcea0", "#f1948a", "#bb8fce", "#d7bde2",
)  # fmt: skip
_HEAT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 0.5, "bgColor": "#fdbb84"}, {"stop": 1, "bgColor": "#b30000"}]


def kinds(planned: bool, studied: bool) -> list[str]:
    """Which overlays there are."""
    return ["groups", *(["removed"] if planned else []), *(["sensitivity"] if studied else [])]


def place(path: Path | None, kind: str) -> Path:
    """Where an overlay goes: groups to the file that was named, the others beside it."""
    assert path is not None
    return path if kind == "groups" else path.with_name(f"{path.name.removesuffix('.json')}.{kind}.json")


def study(path: Path, cut: Cut) -> dict[str, Any]:
    """What ``sensitivity --json`` wrote about the model.

    Raises:
        InputError: it is something else, or about another model.
    """
    try:
        data: dict[str, Any] = parsing.parsed(parsing.text(path))
        jsonschema.validate(data, schema("sensitivity"))
    except (ValueError, jsonschema.ValidationError) as error:
        reason = error.message if isinstance(error, jsonschema.ValidationError) else str(error)
        raise InputError(f"{path}: not what 'graphprune sensitivity --json' writes ({reason})") from error
    if data["model"]["sha256"] != cut.analysis.model.sha256:
        raise InputError(f"{path}: about another file than {cut.analysis.model.name}: {data['model']['file']}")
    return data


def node_data(cut: Cut, kind: str, study: dict[str, Any] | None = None) -> dict[str, Any]:
    """One overlay, as Model Explorer reads it.

    Args:
        cut: the model, and what a plan takes.
        kind: ``groups``, ``removed`` (shares of what a node makes, or a constant holds, in %) or ``sensitivity`` (the
            drop at the highest level of the groups that it makes).
        study: what ``sensitivity`` wrote.
    """
    overlay = _Overlay(cut)
    graph = cut.analysis.model.source.graph
    data: dict[str, Any] = {"name": f"graphprune: {kind}"}
    if kind == "groups":
        data["results"] = overlay.groups()
    elif kind == "removed":
        data |= {"results": overlay.removed(), "gradient": _HEAT}
    else:
        assert study is not None
        data |= {"results": overlay.drops(study), "gradient": _HEAT}
    return {graph.name if graph.HasField("name") else NO_NAME: data}


class _Overlay:
    def __init__(self, cut: Cut) -> None:
        self.cut, self.analysis = cut, cut.analysis

    @cached_property
    def keys(self) -> dict[int, str]:
        """Nodes of the analysis that are nodes of the file's main graph, with their names in the viewer."""
        producer = self.analysis.model.producer
        graph = self.analysis.model.source.graph
        return {
            producer[output]: key
            for node, key in node_keys(graph)
            for output in node.output
            if output and output in producer
        }

    @cached_property
    def constants(self) -> dict[str, list[Use]]:
        """Constants of the file by their names in the viewer, with their uses; some are nodes of their own."""
        graph = self.analysis.model.source.graph
        names = {t.name: value_key(t.name) for t in graph.initializer}
        names |= {node.output[0]: key for node, key in node_keys(graph) if node.op_type == "Constant"}
        found: dict[str, list[Use]] = {}
        for tensor in self.analysis.web.axis_of:
            if isinstance(tensor, Use) and (name := self.analysis.root(tensor)) in names:
                found.setdefault(names[name], []).append(tensor)
        return found

    def groups(self) -> dict[str, Any]:
        """By node the group of what it makes."""
        numbers = {g.id: k for k, g in enumerate(self.analysis.groups)}
        found = {}
        for key, groups in self._owned():
            group = groups[0]
            colour = _PALETTE[numbers[group.id] % len(_PALETTE)]
            found[key] = {"value": group.id, "bgColor": colour, "textColor": "#1f1f1f"}
        return found

    def removed(self) -> dict[str, Any]:
        """By node the share of what it makes that goes, by constant the share of its elements, both in %."""
        gone = _within(self.analysis, self.cut.blocks)
        found: dict[str, Any] = {}
        for node, key in self.keys.items():
            shares = [s for o in self.analysis.model.nodes[node].output if (s := self._share(o)) is not None]
            if shares or node in gone:
                found[key] = {"value": 100.0 if node in gone else max(shares)}
        for key, uses in self.constants.items():
            kept = [s for use in uses if (s := self._share(use)) is not None]
            if kept:
                found[key] = {"value": min(kept)}
        return found

    def drops(self, study: dict[str, Any]) -> dict[str, Any]:
        """By node the drop that the groups of what it makes come to alone, at the highest level that was judged.

        Of one that makes what is not finite then it is the largest of all, the top of the scale.
        """
        drops: dict[str, float] = {}
        levels = [level for one in study["sets"] for level in one["levels"]]
        most = max((level["drop"] for level in levels if level["drop"] is not None), default=1.0)
        for one in study["sets"]:
            last = next((own for own in reversed(one["levels"]) if own["removed"]), None)
            if last is not None and last["score"] is None:  # what breaks has no drop, and is as bad as can be
                drops.update((id, most) for id in one["groups"])
            elif last is not None and last["drop"] is not None:
                drops.update((id, last["drop"]) for id in one["groups"])
        return {
            key: {"value": max(known)}
            for key, groups in self._owned()
            if (known := [drops[g.id] for g in groups if g.id in drops])
        }

    def _owned(self) -> Iterator[tuple[str, list[Group]]]:
        """Keys of nodes and constants, with the groups that have an axis of what is made or held."""
        owners: dict[int, list[Group]] = {}
        for group in self.analysis.groups:
            for vertex in group.labels:
                owners.setdefault(vertex, []).append(group)
        for node, key in self.keys.items():
            found = self._of(owners, self.analysis.model.nodes[node].output)
            if found:
                yield key, found
        for key, uses in self.constants.items():
            found = self._of(owners, uses)
            made = {g.id for use in uses for g in self._of(owners, self.analysis.model.nodes[use.node].output)}
            if found:  # first what the reader makes of it: the outputs of a weight come before what it sums over
                yield key, sorted(found, key=lambda g: g.id not in made)

    def _of(self, owners: dict[int, list[Group]], tensors: Iterable[str | Use]) -> list[Group]:
        net = self.analysis.web
        found = {
            g.id: g
            for tensor in tensors
            if tensor in net.axis_of
            for axis in range(len(net.shapes[tensor]))
            for g in owners.get(net.axis_of[tensor] + axis, ())
        }
        return list(found.values())

    def _share(self, tensor: str | Use) -> float | None:
        net = self.analysis.web
        if tensor not in net.axis_of or not net.shapes[tensor]:
            return None
        start = net.axis_of[tensor]
        left = prod(self.cut.left(start + axis) for axis in range(len(net.shapes[tensor])))
        return round(100 * (1 - left / max(prod(net.shapes[tensor]), 1)), 2)


def _within(analysis: Analysis, pairs: list[tuple[str, str]]) -> set[int]:
    """Nodes of the blocks that go."""
    gone = set(pairs)
    found = blocks.find_blocks(analysis).blocks if gone else []
    return {n for block in found if block.pair in gone for n in block.nodes}


def value_key(name: str) -> str:
    """What the adapter calls a constant or an input."""
    return f"[value] {name}"


def node_keys(graph: GraphProto) -> list[tuple[NodeProto, str]]:
    """Nodes of a graph in the file's order, with what the adapter calls them.

    It has them named by ``NameFixPass`` of onnx-ir first: ``node`` where there is no name, and a number behind what is
    taken, counted over the bodies too.
    """
    counter: Counter[str] = Counter()

    def named(part: GraphProto) -> list[tuple[NodeProto, str]]:
        taken: set[str] = set()
        found = []
        for node in part.node:
            wanted = name = node.name or "node"
            while name in taken:
                counter[wanted] += 1
                name = f"{wanted}_{counter[wanted]}"
            taken.add(name)
            found.append((node, name))
            for body in subgraphs(node):
                named(body)
        return found

    return named(graph)
