"""What a group couples: its operators, the axes that live and die together, and what a plan takes of them."""

from __future__ import annotations

from collections.abc import Callable

from graphprune.analysis import Analysis, Group
from graphprune.cli.options import number
from graphprune.cli.pictures.cut import Cut
from graphprune.cli.pictures.drawing import Box, Picture, shortened
from graphprune.model import Use, node_name
from graphprune.relation import Slot

MOST = 120
"""Boxes of a picture that can still be read."""
Place = int | str
"""A node, or an input or output of the graph."""
Flow = tuple[Place, Place, str, int]
"""From where to where, by which tensor, along which axis."""


def group_picture(cut: Cut, group: Group) -> Picture:
    """The operators of a group, and the axes between them that it ties together.

    Operators that only pass the axis on, one behind the other, are one box.
    """
    analysis = cut.analysis
    net = analysis.web
    picture = Picture(_title(cut, group))
    nodes = sorted({net.dim(v)[0] for v in group.labels if v >= net.axes})
    flows = _flows(analysis, group, nodes)
    chains = _chains(nodes, flows, lambda n: bool(_rows(cut, group, n)))
    home: dict[Place, Place] = {node: chain[0] for chain in chains for node in chain}
    shown = chains[:MOST]
    for chain in shown:
        picture.boxes[chain[0]] = _box(cut, group, chain)
    hidden = len(chains) - len(shown)
    if hidden:
        picture.title.append(f"... and {hidden} more boxes, which are left out")
    for start, end, tensor, axis in flows:
        if home.get(start, start) == home.get(end, end):
            continue
        for key in (start, end):
            if isinstance(key, str):
                what, _, name = key.partition(" ")
                picture.boxes.setdefault(key, Box(what, name, role="outside", dashed=True))
        ends = home.get(start, start), home.get(end, end)
        if all(key in picture.boxes for key in ends):
            picture.arrow(*ends, f"axis {axis}: {cut.size(net.axis_of[tensor] + axis)}")
    return picture


def _title(cut: Cut, group: Group) -> list[str]:
    state = "not prunable" if not group.prunable else "statistical" if group.statistical else "exact"
    title = [f"{cut.analysis.model.name}: group {group.id}"]
    title.append(
        f"{group.size} {group.kind} classes, {state}, worth {number(group.parameters.sum())} parameters and "
        f"{number(group.macs.sum())} MACs"
    )
    if group.pinned.any():
        reason = f": {group.reasons[0]}" if group.reasons else ""
        title.append(f"{int(group.pinned.sum())} classes stay{reason}")
    title += cut.told()
    if cut.plan is not None:
        gone = len(cut.removed.get(group.id, ()))
        title.append(f"the plan removes {gone} of its classes" if gone else "the plan removes none of its classes")
    return title


def _flows(analysis: Analysis, group: Group, nodes: list[int]) -> list[Flow]:
    model = analysis.model
    inside, outputs = set(nodes), set(model.output_names)
    found: list[Flow] = []
    for node in nodes:
        for slot, tensor, axis in _axes(analysis, group, node):
            if isinstance(tensor, Use):
                continue
            maker = model.producer.get(tensor)
            if slot[0] == "in" and maker is None:
                found.append((f"input {tensor}", node, tensor, axis))
            elif slot[0] == "in" and maker in inside:
                found.append((maker, node, tensor, axis))
            elif slot[0] == "out" and tensor in outputs:
                found.append((node, f"output {tensor}", tensor, axis))
    return found


def _axes(analysis: Analysis, group: Group, node: int) -> list[tuple[Slot, str | Use, int]]:
    """Axes of a node's tensors that belong to the group."""
    net, relation = analysis.web, analysis.web.relations[node]
    found: list[tuple[Slot, str | Use, int]] = []
    for slot, maps in relation.slots() if relation is not None else ():
        for axis in range(len(maps)):
            vertex = net.axis(node, slot, axis)
            if vertex is not None and vertex in group.labels:
                tensor = net.tensors[(node, slot)]
                if isinstance(tensor, str | Use):
                    found.append((slot, tensor, axis))
    return found


def _rows(cut: Cut, group: Group, node: int) -> list[str]:
    """Weights of a node that the group has an axis of."""
    net = cut.analysis.web
    return [
        f"{shortened(cut.analysis.root(tensor))} axis {axis}: {cut.size(net.axis_of[tensor] + axis)}"
        for _, tensor, axis in _axes(cut.analysis, group, node)
        if isinstance(tensor, Use)
    ]


def _chains(nodes: list[int], flows: list[Flow], weighty: Callable[[int], bool]) -> list[list[int]]:
    """Nodes in order, those that only pass on joined with the one before."""
    behind: dict[int, set[Place]] = {}
    ahead: dict[int, set[Place]] = {}
    for start, end, *_ in flows:
        if isinstance(end, int):
            behind.setdefault(end, set()).add(start)
        if isinstance(start, int):
            ahead.setdefault(start, set()).add(end)
    plain = {n for n in nodes if not weighty(n) and len(behind.get(n, ())) <= 1}
    chains: dict[int, list[int]] = {}
    for node in nodes:
        before = next(iter(behind.get(node, ())), None)
        if node in plain and before in plain and isinstance(before, int) and len(ahead.get(before, ())) == 1:
            chain = chains[before]
            chain.append(node)
            chains[node] = chain
        else:
            chains[node] = [node]
    return list({id(chain): chain for chain in chains.values()}.values())


def _box(cut: Cut, group: Group, chain: list[int]) -> Box:
    analysis = cut.analysis
    model, net = analysis.model, analysis.web
    node = chain[0]
    title = ", ".join(dict.fromkeys(model.nodes[n].op_type for n in chain))
    title += f" ({len(chain)} operators)" if len(chain) > 1 else ""
    rows = _rows(cut, group, node)
    relation = net.relations[node]
    product = relation is not None and bool(relation.macs)
    if product and relation is not None:
        made = {d for axes in relation.outputs if axes for a in axes for d in a.dims}
        own = [v for v in group.labels if v >= net.axes and net.dim(v)[0] == node]
        roles = {"makes" if net.dim(v)[1] in made else "sums over" for v in own}
        rows.insert(0, f"{' and '.join(sorted(roles))} the classes")
    changed = any("→" in row for row in rows)
    return Box(title, node_name(model, node), rows, "cut" if changed else "product" if product else "other")
