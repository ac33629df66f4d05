"""Tensors that both models have and that all data passes: where the student can be held to the original on the way.

They are the dominators of the outputs (Cooper, Harvey and Kennedy, 2001) among tensors that depend on a trained weight.
"""

from __future__ import annotations

from collections.abc import Set

import networkx as nx

from graphprune.model import Model

SEAMS = 6
"""So many are taken, evenly by the products that lie between them."""
_START, _END = "", "\0"  # no tensor has these names


def find_seams(student: Model, weights: Set[str], shared: Set[str], most: int = SEAMS) -> list[str]:
    """Tensors to hold a student to the original at, in the order in which data passes them.

    Args:
        student: the model in training.
        weights: what is trained in it.
        shared: tensors that the original has too.
        most: how many, at most.
    """
    depth: dict[str, int] = {}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in student.nodes:
        inner = [n for n in node.input if n in depth]
        if not inner and not any(n in weights for n in node.input):
            continue
        passed = max((depth[n] for n in inner), default=0) + any(n in weights for n in node.input)
        for output in (o for o in node.output if o):
            depth[output] = passed
            graph.add_edges_from((n, output) for n in inner) if inner else graph.add_edge(_START, output)
    ends = [o for o in student.output_names if o in depth]
    graph.add_edges_from((o, _END) for o in ends)
    if not ends:
        return []
    above = nx.immediate_dominators(graph, _START)
    chain, at = [], above[_END]
    while at != _START:
        chain.append(at)
        at = above[at]
    first = {depth[name]: name for name in chain if name in shared and name not in ends}
    levels = sorted(first)
    picked = {levels[round(k * (len(levels) - 1) / max(most - 1, 1))] for k in range(most)} if levels else set()
    return [first[level] for level in sorted(picked)]
