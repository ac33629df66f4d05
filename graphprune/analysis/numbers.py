"""Integer inputs of a graph whose values are numbers of elements: ids of tokens, which look up rows of a table.

Each is followed through nodes that hand its elements on as they are. Where it looks something up, the elements of a dim
may go and the others be numbered anew (``Relation.numbers``). Where it is compared (``Relation.compares``), nothing
changes as long as the others stay in their order and constants follow; a node that reads sizes alone does not mind.
Whatever else reads it, reads it as a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import helper

from graphprune.analysis.analysis import Analysis
from graphprune.model import Model, Use, node_name
from graphprune.relation import Relation


@dataclass(frozen=True)
class Lookup:
    """A node that looks up elements of a constant.

    Attributes:
        node: its index.
        position: the input that holds their numbers.
        dim: the local dim whose elements they are.
        table: the constant, as the node reads it.
        size: how many elements there are.
    """

    node: int
    position: int
    dim: int
    table: str
    size: int


@dataclass(frozen=True)
class Numbers:
    """How an integer input of the graph is read.

    Attributes:
        input: its name.
        lookups: where its values are numbers of elements of a constant.
        compared: constants that it is compared with, as nodes read them.
        others: nodes that read it as a value, by index; -1 where the graph gives it out.
    """

    input: str
    lookups: tuple[Lookup, ...]
    compared: tuple[Use, ...]
    others: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements can be told apart: those of the shortest table."""
        return min(lookup.size for lookup in self.lookups)

    def told(self, model: Model) -> str:
        """What reads it as a value, in words."""
        names = [
            f"node {node_name(model, i)!r} ({model.nodes[i].op_type})" if i >= 0 else "an output of the graph"
            for i in self.others
        ]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def find_numbers(analysis: Analysis) -> list[Numbers]:
    """Integer inputs of the graph that look up elements of constants, in the order of the graph's inputs."""
    found = []
    for value in analysis.model.inputs:
        kind = value.type.tensor_type.elem_type
        if kind and np.issubdtype(helper.tensor_dtype_to_np_dtype(kind), np.integer):
            numbers = _followed(analysis, value.name)
            found += [numbers] if numbers.lookups else []
    return found


def _followed(analysis: Analysis, name: str) -> Numbers:
    """Every reader of an input, also of what hands its elements on."""
    model, relations = analysis.model, analysis.web.relations
    lookups, compared, others = list[Lookup](), list[Use](), list[int]()
    names, seen = [name], {name}
    while names:
        read = names.pop()
        others += [-1] * (read in model.output_names)
        others += [index for index, captured in model.captured.items() if read in captured]
        for use in model.uses.get(read, []):
            relation, node = relations[use.node], model.nodes[use.node]
            lookup = None if relation is None else _lookup(model, relation, use)
            if lookup is not None:
                lookups.append(lookup)
            elif relation is not None and relation.moves is not None and use.input == 0:
                names += [o for o in node.output if o not in seen]
                seen.update(node.output)
            elif relation is not None and relation.compares and (beside := _constants(model, use)) is not None:
                compared += beside
            elif any(analysis.witness.value(o) is None for o in node.output if o):  # else it reads sizes
                others.append(use.node)
    lookups.sort(key=lambda one: (one.node, one.position))
    uses = sorted(set(compared), key=lambda use: (use.node, use.input))
    return Numbers(name, tuple(lookups), tuple(uses), tuple(sorted(set(others))))


def _constants(model: Model, use: Use) -> list[Use] | None:
    """The other inputs of a node, None where one of them is no constant."""
    names = model.nodes[use.node].input
    beside = [Use(use.node, k) for k, name in enumerate(names) if name and k != use.input]
    return beside if all(model.root(names[one.input]) in model.sources for one in beside) else None


def _lookup(model: Model, relation: Relation, use: Use) -> Lookup | None:
    """What a node looks up in a constant by the numbers that it reads there, None where it does no such thing."""
    dim, names = relation.numbers.get(use.input), model.nodes[use.node].input
    for k, axes in enumerate(relation.inputs):
        if axes is not None and any(axis.dims == (dim,) for axis in axes) and names[k] in model.constant_names:
            assert dim is not None
            return Lookup(use.node, use.input, dim, names[k], relation.dims[dim].size)
    return None
