"""What a routed layer loses without some of its experts, measured: they are never chosen, others are in their place.

How often an expert is used, by how much it is weighed and how large its output is (router-weighted activation, REAP:
Lasby et al. 2025) foresee what dropping it takes away, and not what the next in line gives instead. Here the layer
alone runs, on what the original feeds it, with -inf for the experts that are gone in front of every choice; with y
what it makes and y' what it makes then, over all elements and samples,

    loss = sum (y - y')^2 / sum (y - mean y)^2

1. Each expert is taken out alone: the order in which they go.
2. The first k are taken out together, for every k: what a group loses when so many go, by what no sum of single losses
   knows (two experts that stand in for each other).

The layer is what lies between its choice and the end of the smallest branch around it, or the outputs of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis import Analysis, Group
from graphprune.analysis.blocks import Blocks, find_blocks
from graphprune.model import Model, Use
from graphprune.relation import Values
from graphprune.run import calibration
from graphprune.run.moments import FloatArray
from graphprune.run.runtime import Feeds, part, run, session, upto

_RUNS = 4096
"""About so many times samples are looked at for each group: of many experts fewer samples."""
_SAMPLES = 8, 64
"""Samples at least and at most."""


def losses(analysis: Analysis, groups: Sequence[Group], feeds: Sequence[Feeds]) -> dict[str, FloatArray]:
    """By group id what is lost once a class and all that are worth less are never chosen; shape ``[classes]``.

    Args:
        analysis: of the model.
        groups: groups of classes that are picked.
        feeds: calibration inputs; where there are none nothing is measured.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    blocks = find_blocks(analysis) if groups and feeds else None
    found = {}
    for group in groups if blocks is not None else ():
        assert blocks is not None
        layer = Layer.of(analysis, group, blocks)
        if layer is not None:
            low, high = _SAMPLES
            some = calibration.first(lambda: feeds, min(max(_RUNS // group.size, low), high))
            found[group.id] = _order(group, layer, layer.inputs(some))
    return found


def _order(group: Group, layer: Layer, inputs: Sequence[Feeds]) -> FloatArray:
    free = np.flatnonzero(~group.pinned)
    order = free[np.argsort(layer.lost(np.eye(group.size, dtype=bool)[free], inputs), kind="stable")]
    most = min(group.size - group.least, len(order))
    first = np.zeros((most, group.size), bool)
    for k in range(most):
        first[k:, order[k]] = True
    along = np.maximum.accumulate(layer.lost(first, inputs))
    found = np.full(group.size, np.inf)
    found[order] = float(along.max(initial=0)) + 1.0 + np.arange(len(order))  # of those that must stay: more than all
    found[order[:most]] = along
    return found


@dataclass(frozen=True)
class Layer:
    """A layer that chooses, as a model of its own.

    Attributes:
        group: the classes that it chooses from.
        whole: the model that it is of.
        model: the layer; which classes are kept is fed to it.
        reads: what of the original is fed to it.
        fed: weights that may be fed to it.
        masks: by input of ``model`` the class of each element, in the shape of that input.
    """

    group: Group
    whole: Model
    model: Model
    reads: tuple[str, ...]
    fed: tuple[str, ...]
    masks: dict[str, Values]

    @staticmethod
    def of(analysis: Analysis, group: Group, blocks: Blocks, weights: Sequence[Use] = ()) -> Layer | None:
        """The layer of a group; None where it is in a body that cannot be run alone.

        Args:
            analysis: of the model.
            group: the group.
            blocks: of the model.
            weights: uses of constants that belong to the layer, and can be fed to it.
        """
        model, whole = analysis.model, analysis.model.runnable
        fed = dict.fromkeys(map(analysis.root, weights))
        starts = {model.nodes[analysis.web.dim(one.vertex)[0]].output[0] for one in group.choices}
        starts |= {next(o for o in model.nodes[use.node].output if o) for use in weights}
        if not starts or any(name not in whole.producer for name in starts):
            return None
        ends = _ends(analysis, group, blocks)
        inside = _between(whole, starts, ends)
        nodes, masks = _masked(analysis, group, [whole.nodes[i] for i in inside])
        made = {o for node in nodes for o in node.output}
        read = dict.fromkeys(n for node in nodes for n in node.input if n and n not in made and n not in masks)
        for index in inside:
            read.update(dict.fromkeys(n for n in whole.captured.get(index, ()) if n not in made))
        constant = [n for n in read if n in whole.constant_names]
        needed = _needed(whole, constant)
        before = [node for node in whole.nodes if set(node.output) & needed and not set(node.output) & fed.keys()]
        reads = tuple(n for n in read if n not in whole.constant_names)
        kinds = analysis.witness.first.types
        inputs = [helper.make_tensor_value_info(n, kinds[n], None) for n in reads]
        inputs += [helper.make_tensor_value_info(n, TensorProto.BOOL, labels.shape) for n, labels in masks.items()]
        inputs += [helper.make_tensor_value_info(n, whole.sources[n].dtype, whole.sources[n].shape) for n in fed]
        all_read = {n for node in [*before, *nodes] for n in node.input} | set(read)
        layer = part(whole, [*before, *nodes], all_read, inputs, ends)
        return Layer(group, whole, layer, reads, tuple(fed), masks)

    def inputs(self, feeds: Sequence[Feeds]) -> list[Feeds]:
        """What the original feeds to the layer, for each batch."""
        made = [n for n in self.reads if n in self.whole.producer]
        found: list[Feeds] = []
        with session(upto(self.whole, made)) as active:
            names = {i.name for i in active.get_inputs()}
            for one in feeds:
                given = {n: v for n, v in one.items() if n in names}
                found.append(
                    {n: one[n] for n in self.reads if n in one} | dict(zip(made, run(active, given, made), strict=True))
                )
        return found

    @cached_property
    def weights(self) -> Feeds:
        """Those that are fed, as they are."""
        return {name: self.whole.array(name) for name in self.fed}

    def lost(self, gone: np.ndarray, inputs: Sequence[Feeds], weights: Feeds | None = None) -> FloatArray:
        """What is lost without some classes.

        Args:
            gone: tries, shape ``[tries, classes]``, bool.
            inputs: of the layer.
            weights: others that the layer has then.

        Returns:
            For each try the squared error of its outputs beside their variance.
        """
        error, spread, other = np.zeros(len(gone)), 0.0, {**self.weights, **(weights or {})}
        nothing = np.zeros(self.group.size, bool)
        with session(self.model) as active:
            for one in inputs:
                made = run(active, {**one, **self.weights, **self._kept(nothing)})
                wanted = [np.asarray(v, np.float64) for v in made]
                spread += sum(float(np.square(a - a.mean()).sum()) for a in wanted)
                for number, classes in enumerate(gone):
                    found = run(active, {**one, **other, **self._kept(classes)})
                    error[number] += sum(float(np.square(a - b).sum()) for a, b in zip(wanted, found, strict=True))
        return error / max(spread, 1e-30)

    def _kept(self, gone: np.ndarray) -> dict[str, Values]:
        stay = ~np.append(gone, False)  # the last entry stands for no class
        return {name: stay[labels] for name, labels in self.masks.items()}


def _ends(analysis: Analysis, group: Group, blocks: Blocks) -> tuple[str, ...]:
    """What the layer makes: the end of the smallest branch that holds all choices, else the outputs of the model."""
    nodes = {analysis.web.dim(one.vertex)[0] for one in group.choices}
    around = [b for b in blocks.blocks if b.kind == "branch" and nodes <= set(b.nodes)]
    if around:
        return (min(around, key=lambda b: len(b.nodes)).exit,)
    return tuple(analysis.model.output_names)


def _between(model: Model, starts: set[str], ends: Sequence[str]) -> list[int]:
    """Indices of the nodes on the ways from what makes some tensors to others."""
    behind: set[str] = set(starts)
    after = []
    for index, node in enumerate(model.nodes):
        if behind & {*node.output, *node.input, *model.captured.get(index, ())}:
            behind.update(o for o in node.output if o)
            after.append(index)
    wanted, found = set(ends), []
    for index in reversed(after):
        node = model.nodes[index]
        if wanted & set(node.output):
            wanted.update([*node.input, *model.captured.get(index, ())])
            found.append(index)
    return found[::-1]


def _needed(model: Model, constants: Sequence[str]) -> set[str]:
    """Constants, and what they are made of."""
    found, front = set(constants), list(constants)
    while front:
        maker = model.producer.get(front.pop())
        for name in model.nodes[maker].input if maker is not None else ():
            if name and name not in found:
                found.add(name)
                front.append(name)
    return found


def _masked(analysis: Analysis, group: Group, nodes: Sequence[NodeProto]) -> tuple[list[NodeProto], dict[str, Values]]:
    """The nodes with what is never chosen in front of every choice, where the inputs that are told apart say so."""
    net, model = analysis.web, analysis.model
    fillers: dict[str, list[NodeProto]] = {}
    redirected: dict[str, dict[int, str]] = {}
    masks: dict[str, Values] = {}
    for one in group.choices:
        node, position = net.dim(one.vertex)[0], one.choice.by
        first = net.axis_of[net.tensors[(node, ("in", position))]]
        name, maker = model.nodes[node].input[position], model.nodes[node].output[0]
        axes = net.shapes[name]
        kept = name
        for axis in (a for a in range(len(axes)) if first + a in group.labels):
            number = len(masks)
            mask, never, after = (f"{word} {number} of {group.id}" for word in ("stay", "never", "seen"))
            masks[mask] = group.labels[first + axis].reshape([-1 if a == axis else 1 for a in range(len(axes))])
            kind = helper.tensor_dtype_to_np_dtype(analysis.witness.first.types[name])
            value = numpy_helper.from_array(np.array(one.choice.neutral).astype(kind))
            fillers.setdefault(maker, []).append(helper.make_node("Constant", [], [never], value=value))
            fillers[maker].append(helper.make_node("Where", [mask, kept, never], [after]))
            kept = after
        redirected.setdefault(maker, {})[position] = kept
    found: list[NodeProto] = []
    for node_proto in nodes:
        changed = redirected.get(node_proto.output[0], {})
        if changed:
            found += fillers.get(node_proto.output[0], [])
            fresh = NodeProto()
            fresh.CopyFrom(node_proto)
            for position, name in changed.items():
                fresh.input[position] = name
            node_proto = fresh
        found.append(node_proto)
    return found, masks
