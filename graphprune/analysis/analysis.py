"""The analysis of a model: its groups, what they are worth, and what cannot be pruned and why."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import networkx as nx
import numpy as np
import numpy.typing as npt

from graphprune.analysis import chance, coupling, exactness, shapes, verify, web
from graphprune.analysis.coupling import Chosen, Coupled, Statistic, Traced
from graphprune.analysis.reasons import Reason
from graphprune.analysis.rulings import Rulings
from graphprune.model import AnyModel, Model, Use, load, node_name, subgraphs_in
from graphprune.model.arguments import InputShapes, checked
from graphprune.model.canonical import canonicalize
from graphprune.relation import IntArray
from graphprune.rules import find_rule
from graphprune.run.refusal import blamed

FloatArray = npt.NDArray[np.float64]


@dataclass
class Group:
    """Classes of elements, each of which must be kept or removed as a whole.

    Attributes:
        id: the first axis that it owns, ``tensor:axis``.
        kind: expert, channel, head, head_dim, state, hidden or feature.
        size: number of classes.
        labels: for each vertex of the web the class of each element, -1 for elements in no class.
        pinned: for each class, whether it cannot be removed; shape ``[size]``.
        reasons: why classes are pinned.
        statistics: what masking does not reproduce; the group is statistical where there is any.
        choices: choices that are made along it; what is removed is never chosen.
        parameters: elements of constants that each class is worth; shape ``[size]``.
        macs: multiply-accumulates at the witness shape that each class is worth; shape ``[size]``.
        interface: inputs and outputs of the graph whose shapes would change.
    """

    id: str
    kind: str
    size: int
    labels: dict[int, IntArray]
    pinned: np.ndarray
    reasons: list[Traced]
    statistics: list[Statistic]
    parameters: FloatArray
    macs: FloatArray
    interface: tuple[str, ...] = ()
    choices: tuple[Chosen, ...] = ()

    @property
    def least(self) -> int:
        """How many classes must stay: as many as are chosen at once, or one."""
        return max((-(-one.choice.count // self._narrowest(one.vertex)) for one in self.choices), default=1)

    def _narrowest(self, vertex: int) -> int:
        """The fewest elements of a vertex that one of its classes has."""
        labels = self.labels[vertex]
        counts = np.bincount(labels[labels >= 0], minlength=self.size)
        return int(counts[counts > 0].min())

    @property
    def picked(self) -> bool:
        """Whether some of its classes at a time are picked by what the model computes: experts."""
        return any(one.choice.kind for one in self.choices)

    @property
    def statistical(self) -> bool:
        """Whether removal leaves an error that the proof cannot cover."""
        return bool(self.statistics)

    @property
    def prunable(self) -> bool:
        """Whether at least one class can be removed and another stays."""
        return self.size > self.least and bool((~self.pinned).any())


@dataclass(eq=False)
class Analysis:
    """Everything that is known of a model before anything is chosen.

    Attributes:
        model: the model.
        witness: its sizes.
        web: axes, dims and their relations.
        groups: prunable groups, in order of their first weight.
        fixed: groups that cannot be pruned.
        notes: nodes without a rule and the like.
    """

    model: Model
    witness: shapes.Witness
    web: web.Web
    groups: list[Group]
    fixed: list[Group]
    notes: list[Reason] = field(default_factory=list)
    _widths: dict[str, frozenset[int]] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, list[tuple[Use, int]]] = field(default_factory=dict, init=False, repr=False)
    _roots: dict[Use, str] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def rulings(self) -> Rulings:
        """What is known of each node, also of those of models that are made of this one."""
        return Rulings(self.model, self.witness, self.web)

    @cached_property
    def looked_up(self) -> frozenset[str]:
        """Activations that are weights, picked by positions that the model chooses."""
        found: set[str] = set()
        for node, relation in zip(self.model.nodes, self.web.relations, strict=True):
            if relation is None:
                continue
            picks = ("in", 1) in relation.counts and node.input[0] in self.model.constant_names
            if picks or (relation.moves is not None and node.input[0] in found):
                found.add(node.output[0])
        return frozenset(found)

    def group(self, id: str) -> Group | None:
        """The group of this id, prunable or not."""
        return self._by_id.get(id)

    @cached_property
    def _by_id(self) -> dict[str, Group]:
        return {g.id: g for g in [*self.groups, *self.fixed]}

    def weights(self, group: Group) -> list[tuple[Use, int]]:
        """Uses of constants whose axes belong to a group, with the axis; in order of the nodes."""
        found = self._weights.get(group.id)
        if found is None:
            found = self._weights[group.id] = self.web.uses(group.labels)
        return found

    def widths(self, group: Group) -> frozenset[int]:
        """How many elements one class has in each dim that a product sums over or produces; 1 where there is none."""
        if group.id not in self._widths:
            self._widths[group.id] = frozenset(_widths(self.web, group)) or frozenset({1})
        return self._widths[group.id]

    def root(self, use: Use) -> str:
        """Name of the constant behind a use."""
        found = self._roots.get(use)
        if found is None:
            found = self._roots[use] = self.model.root(self.model.nodes[use.node].input[use.input])
        return found

    def chain(self, group: Group, reason: Traced) -> list[str]:
        """Names of the nodes on a shortest way from a weight of a group to a reason."""
        graph = dependency_graph(self, group)
        starts = [v for v in graph if v < self.web.axes and isinstance(self.web.tensor_of[v][0], Use)]
        if reason.vertex not in graph or not starts:
            return [reason.node] if reason.node else []
        path = nx.multi_source_dijkstra(graph, set(starts), reason.vertex)[1]
        names = [node_name(self.model, self.web.dim(v)[0]) for v in path if v >= self.web.axes]
        return list(dict.fromkeys(names))


@checked
def analyze(model: AnyModel, input_shapes: InputShapes | None = None, *, allow_io: bool = False) -> Analysis:
    """Find what can be pruned in a model.

    Args:
        model: a path, a ``ModelProto`` or a :class:`Model`.
        input_shapes: sizes for inputs whose free dims the program cannot guess.
        allow_io: let axes of the graph's inputs and outputs shrink where they are declared with a size.

    Raises:
        InputError: not a model, or it runs at none of the sizes tried.
    """
    with _uncollected():
        loaded = load(model)
        with blamed(loaded, input_shapes):
            canonical = canonicalize(loaded)
            witness = shapes.find_witness(canonical, input_shapes)
            return grouped(canonical, witness, web.build(canonical, witness, allow_io))


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage: of what an analysis makes nearly all stays, and would be gone through again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def grouped(model: Model, witness: shapes.Witness, net: web.Web) -> Analysis:
    """What can be pruned in a model whose web is there.

    Args:
        model: the model, in canonical form.
        witness: its sizes.
        net: its web.
    """
    analysis = Analysis(model, witness, net, [], [])
    taken: set[str] = set()
    for coupled in coupling.couple(net):
        exactness.judge(net, coupled)
        group = _group(analysis, coupled, taken)
        (analysis.groups if group.prunable else analysis.fixed).append(group)
    analysis.notes = _notes(analysis)
    if verify.always:
        verify.verify(analysis)
    return analysis


def dependency_graph(analysis: Analysis, group: Group) -> nx.Graph[int]:
    """Axes and dims that a group touches, joined where an index map leads from one to the other."""
    net = analysis.web
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(sorted(group.labels))
    for vertex in sorted(group.labels):
        for edge in net.edges[vertex]:
            if edge.axis == vertex:
                graph.add_edges_from((vertex, d) for d in edge.dims if d in group.labels)
    return graph


def _widths(net: web.Web, group: Group) -> Iterator[int]:
    for vertex, labels in group.labels.items():
        if vertex < net.axes:
            continue
        node, dim = net.dim(vertex)
        relation = net.relations[node]
        assert relation is not None
        if not relation.macs or len(labels) % group.size or (labels < 0).any():
            continue
        sides = (axes for axes in (*relation.inputs, *relation.outputs) if axes is not None)
        if not all(any(dim in a.dims for a in axes) for axes in sides):
            yield len(labels) // group.size


def _group(analysis: Analysis, coupled: Coupled, taken: set[str]) -> Group:
    net = analysis.web
    group = Group(
        _id(analysis, coupled, taken),
        "",
        coupled.size,
        coupled.labels,
        coupled.pinned,
        coupled.reasons,
        coupled.statistics,
        np.zeros(coupled.size),
        np.zeros(coupled.size),
        tuple(coupled.interface),
        tuple(coupled.choices),
    )
    counts = {id(a): _count(a, group.size) for a in {id(a): a for a in group.labels.values()}.values()}
    seen: set[tuple[str, int]] = set()
    for use, axis in analysis.weights(group):
        key = (analysis.root(use), axis)
        if key in seen:
            continue
        seen.add(key)
        vertex = net.axis_of[use] + axis
        per_element = prod(net.shapes[use]) / net.sizes[vertex]
        group.parameters += per_element * counts[id(group.labels[vertex])]
    kinds: set[str] = set()
    for vertex, labels in group.labels.items():
        if vertex >= net.axes:
            node, dim = net.dim(vertex)
            relation = net.relations[node]
            assert relation is not None
            for product in relation.macs:
                if dim in product:
                    whole = prod(relation.dims[d].size for d in product)
                    group.macs += product.count(dim) * whole / relation.dims[dim].size * counts[id(labels)]
            if relation.macs and relation.dims[dim].pinned is None:
                kinds.add(_role(analysis, node, dim))
            if any(dim in c.dims for c in relation.corrections):
                kinds.add("hidden")
    kinds.update(one.choice.kind for one in group.choices)
    order = ["expert", "head_dim", "head", "channel", "state", "hidden", "feature"]
    group.kind = next((k for k in order if k in kinds), "feature")
    return group


def _role(analysis: Analysis, node: int, dim: int) -> str:
    """What a dim is in a product: heads are what two activations have in common, head dims what they sum over."""
    relation = analysis.web.relations[node]
    assert relation is not None
    activations = [
        i
        for i, axes in enumerate(relation.inputs)
        if axes is not None
        and analysis.model.nodes[node].input[i] not in analysis.model.constant_names
        and analysis.model.nodes[node].input[i] not in analysis.looked_up
    ]
    if len(activations) < 2 or relation.kind:
        return relation.kind or "feature"
    on_output = any(dim in a.dims for axes in relation.outputs if axes for a in axes)
    on_inputs = [i for i in activations if any(dim in a.dims for a in relation.inputs[i] or ())]
    return "head" if on_output and len(on_inputs) > 1 else "head_dim"


def _count(labels: IntArray, size: int) -> FloatArray:
    return np.bincount(labels[labels >= 0], minlength=size).astype(float)


def _id(analysis: Analysis, coupled: Coupled, taken: set[str]) -> str:
    """The first axis of an activation whose elements the group tells apart, else the first axis at all."""
    net = analysis.web
    axes = [v for v in sorted(coupled.labels) if v < net.axes]
    activations = [v for v in axes if isinstance(net.tensor_of[v][0], str)]
    apart = [v for v in activations if (coupled.labels[v] >= 0).all() and len(coupled.labels[v]) == coupled.size]
    vertex = (apart or activations or axes)[0]
    tensor, axis = net.tensor_of[vertex]
    name = analysis.root(tensor) if isinstance(tensor, Use) else str(tensor)
    found, number = f"{name}:{axis}", 2
    while found in taken:
        found, number = f"{name}:{axis}#{number}", number + 1
    taken.add(found)
    return found


def _notes(analysis: Analysis) -> list[Reason]:
    notes = []
    model = analysis.model
    for i, relation in enumerate(analysis.web.relations):
        node = model.nodes[i]
        if subgraphs_in(node):
            text = f"the subgraphs of {node.op_type} are not looked into, so everything that they read stays"
            notes.append(Reason(text, node_name(model, i)))
        elif relation is not None and find_rule(node.domain, node.op_type) is None:
            name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
            notes.append(
                Reason(
                    f"operator {name} has no rule, so everything it touches stays",
                    node_name(model, i),
                    "register one under the entry point group 'graphprune.rules'",
                )
            )
    notes += chance.notes(model)
    for i, text in sorted(analysis.witness.first.holes.items()):
        notes.append(Reason(f"the shapes of its outputs are not known: {text}", node_name(model, i)))
    return notes
