"""The pass that takes means out of weights, so that norms need not: a layer norm becomes a root mean square.

What enters a layer norm is a sum of what weights write. Where each of these is centred, ``W - mean(W)`` along what it
writes, the sum has a mean of zero, as the norm would have made it; then the norm is a root mean square, over which
classes can be removed exactly (see ``graphprune.rewrite.corrections``) and an orthogonal basis changed (SliceGPT,
2401.15024, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from onnx import NodeProto

from graphprune.analysis import Analysis, Group
from graphprune.analysis.mixing import Mixing, NotLinear, find_mixing
from graphprune.analysis.reasons import Reason
from graphprune.analysis.web import Tensor
from graphprune.errors import InputError
from graphprune.model import Use, node_name
from graphprune.model.editor import Editor
from graphprune.passes.basis import absorb, constants
from graphprune.passes.basis.proven import proven
from graphprune.passes.basis.scope import Changed, asked
from graphprune.passes.contract import Pass
from graphprune.passes.rounds import Base, Reference
from graphprune.passes.state import State
from graphprune.relation import Values
from graphprune.rules.node import Unruled
from graphprune.rules.uncentred import UNCENTRED, Maker


class Centred(Changed):
    """Groups whose norms take off no mean any more, and those that do."""


@dataclass(frozen=True)
class Centre(Pass):
    """Take the mean out of every weight that writes to a layer norm, and out of the norm.

    Attributes:
        include: globs on group ids and node names: these and no others.
        exclude: globs on group ids and node names: not these.
    """

    name: ClassVar[str] = "centre"

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def requires(self, state: State) -> Sequence[str]:
        """Something will be cut."""
        return (
            () if state.will("cut") else ("no pass 'cut' is ahead: a norm without a mean alone makes nothing smaller",)
        )

    def call(self, state: State) -> State:
        """Centre what writes, and replace norms, group by group."""
        if state.plan.groups:
            raise InputError(
                "classes were chosen before 'centre', of which some would be others behind it; put it first"
            )
        state.progress.begin(self.name)
        analysis = state.analysis()
        mixings, stayed = _centred(analysis, asked(analysis, self.include, self.exclude))
        values: dict[Use, Values] = {}
        counts: dict[str, int] = {}
        editor = Editor(analysis.model)
        for mixing in mixings:
            why = _hindrance(analysis, mixing)
            if why is not None:
                stayed[mixing.group.id] = why
                continue
            _write_centred(analysis, mixing, values)
            counts[mixing.group.id] = _replace(analysis, editor, mixing)
        found = Centred(counts, stayed)
        if not counts:
            return state.having(found)
        constants.write(analysis, editor, values)
        model = editor.finish()
        plan = replace(state.plan, bases={**state.plan.bases, "centred": counts})
        return state.having(found, Base(model), Reference(model), model=model, plan=plan)

    def ensures(self, before: State, after: State) -> State:
        """The model without means does what it did."""
        return proven(before, after, "centred", "centred")


def _centred(analysis: Analysis, groups: Sequence[Group]) -> tuple[list[Mixing], dict[str, Reason]]:
    """Groups with norms that take off a mean, and those of them that no change of basis passes."""
    found, stayed = [], {}
    for group in groups:
        if not group.statistical:
            continue
        try:
            mixing = find_mixing(analysis, group)
        except NotLinear as no:
            stayed[group.id] = no.reason
            continue
        if mixing.centred or mixing.taken_off:
            found.append(mixing)
    return found, stayed


def _hindrance(analysis: Analysis, mixing: Mixing) -> Reason | None:
    """Why the writers of a group cannot be centred, None where they can."""
    for segment in mixing.segments.values():
        if not segment.centred:
            continue
        if segment.fed:
            return Reason("what a norm or a gain makes is normed again (post-norm), and its mean is not zero")
        if segment.normed or segment.meetings:
            return Reason("it is also read as it is, with its mean")
        why = constants.hindrance(analysis, [*segment.written, *_tied(analysis, mixing, segment.written)])
        if why is not None:
            return Reason(why)
    trial = Editor(analysis.model)
    for node in mixing.centred:
        proto, name = analysis.model.nodes[node], node_name(analysis.model, node)
        label = f"node {name!r} ({proto.op_type})"
        if (proto.domain, proto.op_type) not in UNCENTRED:
            return Reason(f"nothing stands for {label} without its mean", name)
        try:
            _root_mean(analysis, trial, node)
        except Unruled as no:
            return Reason(f"{label}: {no}", name)
    return None


def _tied(analysis: Analysis, mixing: Mixing, written: Sequence[Use]) -> list[Use]:
    """Readers of the same constants that lose nothing with the mean: they sum over what has a mean of zero itself."""
    tensors = analysis.web.tensors
    found = []
    for segment in mixing.segments.values():
        gains = [g for g in mixing.gains if any(mixing.segments[mixing.segment_of[s]] is segment for s in g.strands)]
        shifted = any(analysis.model.array(analysis.root(use)).any() for use in segment.written)
        if not segment.fed or shifted or not all(absorb.uniform(analysis, mixing, gain) for gain in gains):
            continue
        for meeting in segment.meetings:
            both = [tensors[(meeting.node, ("in", i))] for i in (meeting.left, meeting.right)]
            for one in both:
                found += _behind(analysis, one)
    roots = {analysis.root(use) for use in written}
    return [use for use in found if analysis.root(use) in roots]


def _behind(analysis: Analysis, tensor: Tensor) -> list[Use]:
    """The constant that a tensor is, or is made of by nodes with one input."""
    if not isinstance(tensor, str):
        return [tensor] if isinstance(tensor, Use) else []
    name = tensor
    while name in analysis.model.constant_names and name in analysis.model.producer:
        node = analysis.model.producer[name]
        if Use(node, 0) in analysis.web.axis_of:
            return [Use(node, 0)]
        name = analysis.model.nodes[node].input[0]
    return []


def _write_centred(analysis: Analysis, mixing: Mixing, values: dict[Use, Values]) -> None:
    """Take the mean out of everything that writes to a norm."""
    for segment in mixing.segments.values():
        if not segment.centred:
            continue
        for use in [*segment.written, *_tied(analysis, mixing, segment.written)]:
            axis, own = constants.strands(analysis, mixing, use)
            held = values[use] if use in values else analysis.model.array(analysis.root(use))
            last = np.array(np.moveaxis(held, axis, -1), np.float64)
            for elements in own:
                last[..., elements] -= last[..., elements].mean(-1, keepdims=True)
            values[use] = np.ascontiguousarray(np.moveaxis(last, -1, axis)).astype(held.dtype)


def _replace(analysis: Analysis, editor: Editor, mixing: Mixing) -> int:
    """Replace norms by root mean squares, and what takes off a mean by what it takes it off; returns how many."""
    model = analysis.model
    for node, place in mixing.taken_off:
        for use in model.uses.get(model.nodes[node].output[0], []):
            editor.redirect(use.node, use.input, model.nodes[node].input[place])
    for node in mixing.centred:
        for number, one in enumerate(made := _root_mean(analysis, editor, node)):
            if number < len(made) - 1:
                editor.insert(one, node)
            else:
                editor.nodes[node].CopyFrom(one)
    return len(mixing.taken_off) + len(mixing.centred)


def _root_mean(analysis: Analysis, editor: Editor, node: int) -> list[NodeProto]:
    """The nodes that stand for a norm."""
    model = analysis.model
    proto = model.nodes[node]
    types, first = analysis.witness.first.types, proto.output[0]
    rank = len(analysis.witness.shape(proto.input[0]) or ())
    make = Maker(
        proto,
        model.opsets.get("", 1),
        types[proto.input[0]],
        rank,
        lambda value: editor.constant(first, value, node),
        lambda: editor.name(first),
    )
    shifts = [name for name in proto.input[2:] if name and model.root(name) in model.sources]
    UNCENTRED[(proto.domain, proto.op_type)](make, any(model.array(model.root(name)).any() for name in shifts))
    if make.nodes and not make.nodes[-1].name:
        make.nodes[-1].name = proto.name
    return make.nodes
