"""Rows of tables that no id reaches go, and the others are numbered anew.

A table's rows, the constants that ids are compared with, and outputs that have an element for each id all speak of one
numbering. What stays keeps its order, so that comparisons of ids come to the same. Either the interface changes (ids
that the model is given, and what its outputs are over, are numbered anew), or a table in front of each lookup says
which row now holds what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from graphprune.analysis import Analysis, Group, web
from graphprune.analysis.analysis import grouped
from graphprune.analysis.numbers import Lookup, Numbers
from graphprune.analysis.rulings import first
from graphprune.errors import InputError
from graphprune.model import Model, Use, node_name
from graphprune.model.editor import Editor
from graphprune.relation import IntArray, Values
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import rewrite


@dataclass(frozen=True)
class Head:
    """An output of the graph that has an element for each id.

    Attributes:
        output: its name.
        axis: along which.
    """

    output: str
    axis: int


@dataclass(frozen=True)
class Renumbered:
    """A model whose tables hold some rows alone.

    Attributes:
        model: the model.
        plan: what was removed, in the terms of the model that it was made of.
        heads: outputs that are over fewer ids.
        compared: constants that follow: the node, by its first output, its input, and what it held and holds.
    """

    model: Model
    plan: Plan
    heads: tuple[Head, ...]
    compared: tuple[dict[str, Any], ...]


def renumber(
    analysis: Analysis, numbers: Sequence[Numbers], kept: IntArray, unknown: int | None = None, inside: bool = False
) -> Renumbered:
    """Remove every row that no id reaches.

    Args:
        analysis: of the model.
        numbers: inputs of the graph that hold ids of one numbering, all read as nothing but that.
        kept: ids that stay, ascending; among them those that the model compares with.
        unknown: the id that stands for those that go, where a table is put in front.
        inside: leave the interface as it is, and put a table in front.

    Raises:
        InputError: rows cannot go; says why.
    """
    size = numbers[0].size
    own = _freed(analysis, numbers, io=not inside)
    gone = np.setdiff1d(np.arange(size), kept)
    selection: dict[str, list[int]] = {}
    for lookup in _lookups(numbers):
        group, labels = _rows(own, lookup)
        selection[group.id] = [int(c) for c in np.sort(labels[gone])]
    heads = [] if inside else list(_heads(own, size))
    for group, _, labels in heads:
        selection[group.id] = [int(c) for c in np.sort(labels[gone])]
    done = rewrite(own, selection)
    compared = [] if inside else [use for one in numbers for use in one.compared]
    model, followed = _followed(analysis.model, done.model, compared, kept, size)
    if inside:
        assert unknown is not None
        table = np.full(size, np.searchsorted(kept, unknown), np.int64)
        table[kept] = np.arange(len(kept))
        model = before_lookups(analysis.model, model, numbers, table)
    return Renumbered(model, done.plan, tuple(head for _, head, _ in heads), tuple(followed))


def heads(analysis: Analysis, numbers: Sequence[Numbers]) -> list[Head]:
    """Outputs of the graph that have an element for each id, which may go with its row."""
    own = _freed(analysis, numbers, io=True)
    return [head for _, head, _ in _heads(own, numbers[0].size)]


def _freed(analysis: Analysis, numbers: Sequence[Numbers], io: bool) -> Analysis:
    """The analysis of the same model where what ids look up may go."""
    nodes = {lookup.node for lookup in _lookups(numbers)}
    net = web.build(analysis.model, analysis.witness, io, renumbered=nodes)
    return grouped(analysis.model, analysis.witness, net)


def _lookups(numbers: Sequence[Numbers]) -> list[Lookup]:
    return [lookup for one in numbers for lookup in one.lookups]


def _rows(own: Analysis, lookup: Lookup) -> tuple[Group, IntArray]:
    """The group whose classes are the rows of a table, and the class of each row.

    Raises:
        InputError: they cannot go.
    """
    vertex, name = own.web.dim_start[lookup.node] + lookup.dim, own.model.name
    label = f"rows of {lookup.table!r}, which node {node_name(own.model, lookup.node)!r} looks up,"
    for group in [*own.groups, *own.fixed]:
        labels = group.labels.get(vertex)
        if labels is not None and _apart(labels, group.size):
            if group.pinned.any():
                raise InputError(f"{name}: {label} cannot go: {group.reasons[0].text}; leave out --vocabulary")
            return group, labels
    raise InputError(f"{name}: {label} cannot go one by one: something ties them together; leave out --vocabulary")


def _apart(labels: IntArray, size: int) -> bool:
    return len(labels) == size and bool((np.bincount(labels[labels >= 0], minlength=size) == 1).all())


def _heads(own: Analysis, size: int) -> Iterator[tuple[Group, Head, IntArray]]:
    """Outputs of the graph with an element for each id, that may go one by one."""
    for name in own.model.output_names:
        start = own.web.axis_of.get(name)
        for axis, length in enumerate(own.web.shapes[name]) if start is not None else ():
            assert start is not None
            for group in own.groups if length == size else ():
                labels = group.labels.get(start + axis)
                if labels is not None and _apart(labels, group.size) and not group.pinned.any():
                    yield group, Head(name, axis), labels


def _followed(
    before: Model, model: Model, uses: Sequence[Use], kept: IntArray, size: int
) -> tuple[Model, list[dict[str, Any]]]:
    """The model with constants that ids are compared with as new ids."""
    editor, told = Editor(model), []
    for use in uses:
        index = place(before, model, use.node)
        root = model.root(model.nodes[index].input[use.input])
        value = model.array(root)
        changed = mapped(value, kept, size)
        told.append({"consumer": first(before.nodes[use.node]), "input": use.input,
                     "from": value.reshape(-1).tolist(), "to": changed.reshape(-1).tolist()})  # fmt: skip
        editor.redirect(index, use.input, editor.constant(root, changed, index))
    return (editor.finish() if uses else model), told


def mapped(value: Values, kept: IntArray, size: int) -> Values:
    """Ids as new ones; numbers below and above all ids stay below and above."""
    new = np.searchsorted(kept, value)
    found: Values = np.where(value < 0, value, np.where(value >= size, value - size + len(kept), new))
    return found.astype(value.dtype)


def before_lookups(named: Model, model: Model, numbers: Sequence[Numbers], table: IntArray) -> Model:
    """A model in which each lookup asks a table first which row it is to take.

    Args:
        named: the model whose nodes ``numbers`` speak of.
        model: the same, or one made of it.
        numbers: who looks what up.
        table: by id the row.
    """
    editor = Editor(model)
    for lookup in _lookups(numbers):
        index = place(named, model, lookup.node)
        name = model.nodes[index].input[lookup.position]
        held, asked = editor.constant(f"{name}/row", table, index), editor.name(f"{name}/new")
        editor.insert(helper.make_node("Gather", [held, name], [asked], name=asked), index)
        editor.redirect(index, lookup.position, asked)
    return editor.finish()


def place(named: Model, model: Model, node: int) -> int:
    """Where a node of a model is in one that was made of it.

    Raises:
        InputError: it stands in a body of control flow.
    """
    found = model.producer.get(first(named.nodes[node]))
    if found is None:
        raise InputError(
            f"{named.name}: node {node_name(named, node)!r} reads ids in a body of If, Loop or Scan, where they cannot "
            "be numbered anew; leave out --vocabulary"
        )
    return found
