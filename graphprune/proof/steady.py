"""The two models of a proof without rounding and without chance.

Whether a sum that lies between two steps goes to the one or the other depends on the order in which it was taken, and
that order changes when what is summed over shrinks: one tie moves an activation by a step, and what follows by as much
as it likes. Structure is proven where that has no say: quantised activations are carried as floats, which keep the
scale, the zero point and the range of their type, and are not rounded. In the same way random draws are replaced, which
would differ from one run to the next.

What is replaced is told by the original (see ``graphprune.rules.floating``), and is the same in both models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import ModelProto, NodeProto, helper

from graphprune.analysis import Analysis
from graphprune.analysis.chance import drawn
from graphprune.analysis.web import view
from graphprune.model import Model
from graphprune.model.messages import copy_all_but
from graphprune.relation import Relation
from graphprune.rules.floating import FLOATS, STAND_INS, Maker
from graphprune.rules.node import Unruled


@dataclass
class Steady:
    """What is replaced in the models of a proof.

    Attributes:
        analysis: of the original.
        replaced: nodes with a stand-in, by their first output.
        carried: tensors of steps that are floats, with the type of these.
        steps: tensors that quantisers make: what they round to is compared beside the proof.
        rounds: whether anything still rounds.
        drawn: nodes that draw at random and are replaced.
    """

    analysis: Analysis
    replaced: dict[str, int] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    rounds: bool = False
    drawn: list[int] = field(default_factory=list)

    @property
    def unrounded(self) -> bool:
        """Whether any rounding is taken out."""
        return len(self.replaced) > len(self.drawn)

    def __call__(self, model: Model) -> Model:
        """The masked original, or the pruned model, with what stands for its nodes."""
        if not self.replaced:
            return model
        proto = ModelProto()
        copy_all_but(model.proto, proto, {"graph"})
        copy_all_but(model.graph, proto.graph, {"node", "value_info"})
        proto.graph.value_info.extend(v for v in model.graph.value_info if v.name not in self.carried)
        for output in proto.graph.output:
            if output.name in self.carried:
                output.CopyFrom(onnx.ValueInfoProto(name=output.name))
        for node in model.nodes:
            index = self.replaced.get(node.output[0]) if node.output else None
            if index is None:
                proto.graph.node.append(node)
                continue
            make = _maker(self.analysis, index, self.carried, node)
            results = STAND_INS[_key(node)](make)
            proto.graph.node.extend(make.nodes)
            pairs = [(r, o) for r, o in zip(results, node.output, strict=False) if o]
            proto.graph.node.extend(helper.make_node("Identity", [r], [o]) for r, o in pairs)
        return Model(proto, model.path, lazy=model.lazy)


def _key(node: NodeProto) -> tuple[str, str]:
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


def _maker(analysis: Analysis, index: int, carried: Mapping[str, int], node: NodeProto | None = None) -> Maker:
    original, types = analysis.model.nodes[index], analysis.witness.first.types
    kinds = [[types.get(n, 0) if n else 0 for n in names] for names in (original.input, original.output)]
    return Maker(node or original, view(analysis.model, analysis.witness, index), kinds[0], kinds[1], carried)


def find_steady(analysis: Analysis, rounding: bool = True) -> Steady:
    """What can be replaced: whatever rounds or draws, where all that reads its steps can read floats as well.

    Args:
        analysis: of the original.
        rounding: whether rounding is to be taken out, or chance alone.
    """
    found = Steady(analysis)
    refused: set[int] = set()
    rounds = _rounding(analysis) if rounding else set()
    drawing = {i for i in drawn(analysis.model) if _key(analysis.model.nodes[i]) in STAND_INS and _outside(analysis, i)}
    if not rounds and not drawing:
        return found
    _carry(analysis, rounds, refused, found)
    if refused:  # then what they stand on is left to round as well, and what read that
        found.replaced, found.carried = {}, {}
        _carry(analysis, rounds - refused, set(), found)
    nodes, relations = analysis.model.nodes, analysis.web.relations
    left = {i for i in rounds if nodes[i].output[0] not in found.replaced}
    found.rounds = any((relation := relations[i]) is not None and relation.rounds for i in left)
    found.steps = [nodes[i].output[0] for i in sorted(rounds - left) if nodes[i].output[0] in found.carried]
    found.drawn = sorted(drawing)
    found.replaced |= {nodes[i].output[0]: i for i in found.drawn}
    return found


def _outside(analysis: Analysis, index: int) -> bool:
    """Whether a node is in the main graph, and is written as one node."""
    layout = analysis.model.layout
    return layout is None or layout.of(analysis.model.nodes[index]) == 0


def _rounding(analysis: Analysis) -> set[int]:
    """Nodes that round an activation: those whose relation says so, and those that do nothing else."""
    model, sizes = analysis.model, analysis.witness.first.values
    found = set()
    for index, (node, relation) in enumerate(zip(model.nodes, analysis.web.relations, strict=True)):
        rounds = (relation is not None and relation.rounds) or node.op_type == "Round"
        if rounds and not any(o in model.constant_names or o in sizes for o in node.output if o):
            found.add(index)
    return found


def _carry(analysis: Analysis, rounding: set[int], refused: set[int], found: Steady) -> None:
    """Follow floats from what rounds to what reads them as steps.

    Args:
        refused: is told which nodes cannot be replaced, and which others they read.
    """
    model, types = analysis.model, analysis.witness.first.types
    maker: dict[str, int] = {}
    for index, node in enumerate(model.nodes):
        reads = [n for n in [*node.input, *model.captured.get(index, ())] if n in found.carried]
        if not reads and index not in rounding:
            continue
        held = [o for o in node.output if o and types.get(o, 0) not in FLOATS]
        if _replaceable(analysis, index, found.carried):
            found.replaced[node.output[0]] = index
            kind = _maker(analysis, index, found.carried).kind
        elif _moves(analysis, index, found.carried):
            kind = found.carried[reads[0]]
        else:
            refused.add(index)
            waiting = list(reads)
            while waiting:
                made_by = maker[waiting.pop()]
                if made_by not in refused:
                    refused.add(made_by)
                    waiting += [n for n in model.nodes[made_by].input if n in maker]
            continue
        found.carried.update((o, kind) for o in held)
        maker.update((o, index) for o in held)


def _replaceable(analysis: Analysis, index: int, carried: Mapping[str, int]) -> bool:
    steady = STAND_INS.get(_key(analysis.model.nodes[index]))
    if steady is None or not _outside(analysis, index):
        return False
    try:
        steady(_maker(analysis, index, carried))
    except (Unruled, KeyError):
        return False
    return True


def _moves(analysis: Analysis, index: int, carried: Mapping[str, int]) -> bool:
    """Whether a node passes numbers on as they are, and asks nothing of their type."""
    node, types = analysis.model.nodes[index], analysis.witness.first.types
    relation: Relation | None = analysis.web.relations[index]
    if relation is None or relation.rounds or not _outside(analysis, index):
        return False
    kinds = [types.get(n, 0) for n in node.input if n]
    place = next((k for k, n in enumerate(node.input) if n in carried), -1)
    kind = types.get(node.input[place], 0)
    passed = relation.zero.follows(place) and all(types.get(o, 0) == kind for o in node.output if o)
    return place >= 0 and passed and kinds.count(kind) == 1
