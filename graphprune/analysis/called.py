"""What groups and blocks are called: the names that a text of the user's is held against (``model.naming``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphprune.analysis.analysis import Analysis, Group
from graphprune.analysis.blocks import Block
from graphprune.model import naming, node_name


def group_names(analysis: Analysis, group: Group) -> list[str]:
    """The id of a group, and the nodes and the weights that it cuts.

    A constant that several nodes read is no name: exporters merge equal ones, and give them the name of any.
    """
    found = [group.id]
    for use, _ in analysis.weights(group):
        root = analysis.root(use)
        found += [node_name(analysis.model, use.node), *[root] * (len(analysis.model.uses.get(root, ())) == 1)]
    return list(dict.fromkeys(found))


def is_meant(analysis: Analysis, block: Block, text: str) -> bool:
    """Whether a text stands for a block: for its id, or for a module that all its nodes lie in."""
    if naming.matches(block.id, text):
        return True
    return bool(block.nodes) and all(naming.in_module(node_name(analysis.model, node), text) for node in block.nodes)


@dataclass(frozen=True)
class Inside:
    """What lies in a module, or is meant by a glob.

    Attributes:
        groups: those with a node or a weight in it.
        blocks: those all of whose nodes are.
        nodes: their places in the model.
    """

    groups: list[Group]
    blocks: list[Block]
    nodes: list[int]

    def __bool__(self) -> bool:
        return bool(self.groups or self.blocks or self.nodes)


def inside(analysis: Analysis, blocks: Sequence[Block], text: str) -> Inside:
    """What a text stands for in a model; groups that cannot be pruned are among them.

    Args:
        analysis: of the model.
        blocks: of the model.
        text: a name, a glob, or a module.
    """
    every = [*analysis.groups, *analysis.fixed]
    return Inside(
        [group for group in every if naming.meets(group_names(analysis, group), [text])],
        [block for block in blocks if is_meant(analysis, block, text)],
        [k for k in range(len(analysis.model.nodes)) if naming.matches(node_name(analysis.model, k), text)],
    )
