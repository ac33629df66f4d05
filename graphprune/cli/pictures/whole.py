"""A block with what is around it, and the whole of a model with its blocks closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import networkx as nx

from graphprune.analysis import blocks, cost
from graphprune.analysis.blocks import Block, Blocks
from graphprune.cli.options import number
from graphprune.cli.pictures.cut import Cut
from graphprune.cli.pictures.drawing import Box, Picture
from graphprune.model import Use, node_name

MOST = 40
"""Boxes to which the whole of a model is brought where that is possible; a block may have three times as many."""


@dataclass(frozen=True)
class Unit:
    """Nodes that are one box.

    Attributes:
        nodes: their indices, ascending.
        block: the block that they are, if any.
    """

    nodes: tuple[int, ...]
    block: Block | None = None


def block_picture(cut: Cut, block: Block) -> Picture:
    """A block, its parts or its operators, with what it reads and who reads it, and what stands for it."""
    model = cut.analysis.model
    found = blocks.find_blocks(cut.analysis)
    shown = set(_shown(cut, range(len(model.nodes))))
    inside = [n for n in block.nodes if n in shown]
    units = _units(found, inside, 3 * MOST, within=block)
    around = sorted(_neighbours(cut, inside))
    picture = _picture(cut, [*units, *(Unit((n,)) for n in around)], [])
    name = f"{model.name}: block {block.id}"
    picture.title = [name, f"worth {number(block.parameters)} parameters and {number(block.macs)} MACs"]
    picture.title.append(f"without it {block.output} is {block.by}")
    if (block.output, block.by) in cut.blocks:
        picture.title.append("the plan takes it out")
    picture.title += cut.told()
    picture.inside, picture.frame = {u.nodes[0] for u in units}, block.id
    for key in list(picture.boxes):
        if key not in picture.inside:
            picture.boxes[key].dashed, picture.boxes[key].role = True, "outside"
    makers = [model.producer.get(t) for t in (block.by, block.output)]
    keys = [next((k for k in picture.boxes if k in (m, f"input {t}")), None)
            for m, t in zip(makers, (block.by, block.output), strict=True)]  # fmt: skip
    if None not in keys and keys[0] != keys[1] and keys[1] not in picture.inside:
        picture.stands.append((keys[0], keys[1], "what is left without it"))
    return picture


def overview(cut: Cut) -> Picture:
    """A whole model: blocks closed, largest opened while there is room, and what lies between them."""
    analysis = cut.analysis
    model = analysis.model
    nodes = _shown(cut, range(len(model.nodes)))
    units = _units(blocks.find_blocks(analysis), nodes, MOST)
    units = _joined(cut, units)
    total = cost.parameters(model)
    title = [
        f"{model.name}: {len(nodes)} operators, {number(total)} parameters, "
        f"{number(cost.macs(analysis))} MACs at "
        + ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in analysis.witness.inputs.items())
    ]
    if cut.plan is not None:
        gone = sum(map(len, cut.removed.values()))
        title.append(f"the plan removes {gone} classes of {len(cut.removed)} groups, and {len(cut.blocks)} blocks")
    return _picture(cut, units, [*title, *cut.told()])


def _shown(cut: Cut, nodes: Sequence[int]) -> list[int]:
    """Nodes that data goes through: not those that make constants or sizes."""
    model, values = cut.analysis.model, cut.analysis.witness.first.values
    return [n for n in nodes if not all(o in model.constant_names or o in values for o in model.nodes[n].output if o)]


def _units(found: Blocks, nodes: list[int], most: int, within: Block | None = None) -> list[Unit]:
    """Blocks that do not overlap, the largest of them opened as long as there are few; each other node by itself."""
    allowed = set(nodes)
    own = {b.id: tuple(n for n in b.nodes if n in allowed) for b in found.blocks}
    held = [b for b in found.blocks if len(own[b.id]) > 1 and (within is None or _inside(own, b, within))]
    if within is not None and len(nodes) <= most:
        return [Unit((n,)) for n in nodes]
    held.sort(key=lambda b: (-len(own[b.id]), b.nodes))
    closed = _apart(own, held)
    while closed:
        largest = max(closed, key=lambda b: len(own[b.id]))
        inner = _apart(own, [block for block in held if _inside(own, block, largest)])
        rest = len(own[largest.id]) - sum(len(own[b.id]) for b in inner)
        outside = len(nodes) - sum(len(own[b.id]) for b in closed)
        if not inner or len(closed) + outside + len(inner) + rest - 1 > most:
            break
        closed = [b for b in closed if b is not largest] + inner
    taken = {n for b in closed for n in own[b.id]}
    units = [Unit(own[b.id], b) for b in closed] + [Unit((n,)) for n in nodes if n not in taken]
    return sorted(units, key=lambda u: u.nodes[0])


def _apart(own: dict[str, tuple[int, ...]], held: list[Block]) -> list[Block]:
    """Blocks, each without a node of one before it."""
    taken: set[int] = set()
    found = []
    for block in held:
        if taken.isdisjoint(own[block.id]):
            taken.update(own[block.id])
            found.append(block)
    return found


def _inside(own: dict[str, tuple[int, ...]], block: Block, outer: Block) -> bool:
    return block.id != outer.id and set(own[block.id]) < set(own[outer.id])


def _joined(cut: Cut, units: list[Unit]) -> list[Unit]:
    """Units of no block become one where one follows the other and nothing else comes between.

    So does what goes round one step beside it (the sigmoid of a SiLU, the mean of a norm) with where it comes back.
    """
    home = {n: k for k, u in enumerate(units) for n in u.nodes}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(units)))
    graph.add_edges_from((home[a], home[b]) for a, b, _ in _edges(cut, list(home)) if home[a] != home[b])
    members = {k: list(u.nodes) for k, u in enumerate(units)}
    while sum(_merge(cut, units, graph, members, k) for k in sorted(graph)):
        pass
    found = [Unit(tuple(sorted(members[k])), units[k].block) for k in graph]
    return sorted(found, key=lambda u: u.nodes[0])


def _merge(cut: Cut, units: list[Unit], graph: nx.DiGraph[int], members: dict[int, list[int]], k: int) -> bool:
    """Let a unit be one with the one before it or behind it, if it may; whether it is now."""
    if k not in graph or units[k].block is not None or len(graph.pred[k]) != 1:
        return False
    before, behind = next(iter(graph.pred[k])), list(graph.succ[k])
    if len(graph.succ[before]) == 1:
        other = before
    elif len(behind) == 1 and graph.has_edge(before, behind[0]) and not _products(cut, members[k]):
        other = behind[0]
    else:
        return False
    if units[other].block is not None:
        return False
    members[other] += members.pop(k)
    graph.add_edges_from((p, other) for p in list(graph.pred[k]) if p != other)
    graph.add_edges_from((other, s) for s in behind if s != other)
    graph.remove_node(k)
    return True


def _products(cut: Cut, nodes: Sequence[int]) -> bool:
    return any(r is not None and r.macs for r in (cut.analysis.web.relations[n] for n in nodes))


def _edges(cut: Cut, nodes: list[int]) -> list[tuple[int, int, str]]:
    """Activations between nodes."""
    model, inside = cut.analysis.model, set(nodes)
    found = []
    for node in sorted(inside):
        for name in dict.fromkeys([*model.nodes[node].input, *model.captured.get(node, ())]):
            maker = model.producer.get(name)
            if maker in inside and maker is not None:
                found.append((maker, node, name))
    return found


def _neighbours(cut: Cut, nodes: list[int]) -> set[int]:
    model = cut.analysis.model
    inside, known = set(nodes), set(_shown(cut, range(len(model.nodes))))
    makers = {model.producer.get(name) for n in nodes for name in model.nodes[n].input}
    readers = {use.node for n in nodes for o in model.nodes[n].output for use in model.uses.get(o, ())}
    return {n for n in makers | readers if n is not None} & known - inside


def _picture(cut: Cut, units: list[Unit], title: list[str]) -> Picture:
    model = cut.analysis.model
    picture = Picture(title)
    home = {n: u.nodes[0] for u in units for n in u.nodes}
    inputs, outputs = {i.name for i in model.inputs}, set(model.output_names)
    for unit in units:
        picture.boxes[unit.nodes[0]] = _box(cut, unit)
    for node in home:
        for name in model.nodes[node].input:
            if name in inputs:
                picture.boxes.setdefault(f"input {name}", Box("input", name, role="outside", dashed=True))
                picture.arrow(f"input {name}", home[node], cut.shape(name))
        for name in model.nodes[node].output:
            if name in outputs:
                picture.boxes.setdefault(f"output {name}", Box("output", name, role="outside", dashed=True))
                picture.arrow(home[node], f"output {name}", cut.shape(name))
    for start, end, name in _edges(cut, list(home)):
        if home[start] != home[end]:
            picture.arrow(home[start], home[end], cut.shape(name))
    return picture


def _box(cut: Cut, unit: Unit) -> Box:
    model = cut.analysis.model
    counts = Counter(model.nodes[n].op_type for n in unit.nodes)
    ops = [f"{count} {op}" if count > 1 else op for op, count in counts.most_common(4)]
    ops += [f"{sum(counts.values()) - sum(c for _, c in counts.most_common(4))} more"] if len(counts) > 4 else []
    before, after = _parameters(cut, unit.nodes)
    lines = []
    if before > 2:
        lines.append(f"{number(before)}{f' → {number(after)}' if after != before else ''} parameters")
    if unit.block is None:
        title = ", ".join(ops)
        role = "cut" if after != before else "product" if _products(cut, unit.nodes) else "other"
        return Box(title, node_name(model, unit.nodes[0]), lines, role)
    gone = (unit.block.output, unit.block.by) in cut.blocks
    lines.insert(0, ", ".join(ops))
    if gone:
        lines.append("the plan takes it out")
    kind, _, _ = unit.block.id.partition(":")
    return Box(kind, unit.block.output, lines, "gone" if gone else "cut" if after != before else "block")


def _parameters(cut: Cut, nodes: Sequence[int]) -> tuple[int, int]:
    """Elements of the constants that some nodes read, before and after; shared ones count with each."""
    net, model = cut.analysis.web, cut.analysis.model
    before = after = 0
    for node in nodes:
        for k, name in enumerate(model.nodes[node].input):
            use, source = Use(node, k), model.sources.get(model.root(name))
            if source is None or not cost.elements(source):
                continue
            shape = source.shape
            start = net.axis_of.get(use)
            before += prod(shape)
            left = shape if start is None else [cut.left(start + a) for a in range(len(net.shapes[use]))]
            after += prod(left)
    return before, after
