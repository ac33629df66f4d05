"""What a statistic must see in place of removed elements, for masking to do what removal does.

A sum over removed elements is that over the others where they are zero. A mean and a variance over n elements of which
n - k equal the mean of the others have the mean of these, and k/n times their variance::

    mean_n = mean_k,  var_n = k/n var_k
    (x - mean_n) / sqrt(var_n + eps) = sqrt(n/k) (x - mean_k) / sqrt(var_k + n/k eps)

which is the pruned norm with its corrections. So a masked original whose norms are given that mean proves what a
plainly masked one cannot: that everything was cut where it should be, in statistical groups too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import helper

from graphprune.analysis.coupling import Chosen, Statistic
from graphprune.model.editor import Editor
from graphprune.relation import AxisMap, Relation
from graphprune.rewrite.removal import Removal


def apply(editor: Editor, removal: Removal, groups: Sequence[str]) -> None:
    """Fill removed elements in front of every statistic of some groups."""
    done: set[tuple[int, int]] = set()
    for id in groups:
        group = removal.analysis.group(id)
        for statistic in group.statistics if group is not None else ():
            for position in statistic.inputs:
                node = removal.analysis.web.dim(statistic.vertex)[0]
                if (node, position) not in done:
                    done.add((node, position))
                    _Fill(editor, removal, statistic, position).run()


def never_chosen(editor: Editor, removal: Removal, groups: Sequence[str]) -> None:
    """Put in place of removed elements, in front of every choice that some groups reach, what is never chosen."""
    done: set[tuple[int, int]] = set()
    for id in groups:
        group = removal.analysis.group(id)
        for one in group.choices if group is not None else ():
            place = (removal.analysis.web.dim(one.vertex)[0], one.choice.by)
            if place not in done:
                done.add(place)
                _Fill(editor, removal, one, one.choice.by).put(one.choice.neutral)


class _Fill:
    """The nodes in front of one input of one node."""

    def __init__(self, editor: Editor, removal: Removal, reason: Statistic | Chosen, position: int) -> None:
        net = removal.analysis.web
        self.editor, self.removal, self.position = editor, removal, position
        self.node, self.centred = net.dim(reason.vertex)[0], isinstance(reason, Statistic) and reason.centred
        relation = net.relations[self.node]
        assert relation is not None
        self.relation: Relation = relation
        self.tensor = net.tensors[(self.node, ("in", position))]
        self.first = net.axis_of[self.tensor]
        self.axes: tuple[AxisMap, ...] = relation.inputs[position] or ()
        name = removal.analysis.model.nodes[self.node].input[position]
        self.name = name
        self.dtype = helper.tensor_dtype_to_np_dtype(removal.analysis.witness.first.types[name])

    def run(self) -> None:
        """Redirect the input to a tensor with its removed elements filled."""
        zero = self._constant(np.zeros((), self.dtype))
        zeroed = self._where(self.name, zero)
        result = self._where(self.name, self._mean(zeroed)) if self.centred else zeroed
        self.editor.redirect(self.node, self.position, result)

    def put(self, neutral: float) -> None:
        """Redirect the input to a tensor with a number, or the nearest there is, in place of removed elements."""
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            value = np.array(limits.min if neutral < 0 else limits.max, self.dtype)
        else:
            value = np.array(neutral).astype(self.dtype)
        self.editor.redirect(self.node, self.position, self._where(self.name, self._constant(value)))

    def _where(self, kept: str, filling: str) -> str:
        """``kept`` where elements stay, ``filling`` elsewhere."""
        for axis in range(len(self.axes)):
            gone = self.removal.gone.get(self.first + axis)
            if gone is not None and gone.any():
                shape = [-1 if a == axis else 1 for a in range(len(self.axes))]
                kept = self._op("Where", self._constant(~gone.reshape(shape)), kept, filling)
        return kept

    def _mean(self, zeroed: str) -> str:
        """The mean of what stays, over the dims of the statistic, in the shape of the input."""
        net, relation = self.removal.analysis.web, self.relation
        factors = [d for axis in self.axes for d in axis.dims or (-1,)]
        over = [place for place, d in enumerate(factors) if d >= 0 and relation.dims[d].statistic]
        vertices = [net.dim_start[self.node] + factors[place] for place in over]
        share = prod(net.sizes[v] for v in vertices) / prod(self.removal.size(v) for v in vertices)
        apart = self._reshaped(zeroed)
        for place in over:
            apart = self._reduce(apart, place)
        mean = self._op("Mul", apart, self._constant(self.dtype.type(share)))
        if len(factors) == len(self.axes):
            return mean
        wide = self._op("Expand", mean, self._sizes(zeroed))
        return self._op("Reshape", wide, self._op("Shape", zeroed))

    def _reduce(self, name: str, axis: int) -> str:
        if self.editor.model.opsets.get("", 1) < 18:
            return self._op("ReduceMean", name, axes=[axis])
        return self._op("ReduceMean", name, self._constant(np.array([axis])))

    def _reshaped(self, name: str) -> str:
        if all(len(axis.dims) <= 1 for axis in self.axes):
            return name
        return self._op("Reshape", name, self._sizes(name))

    def _sizes(self, name: str) -> str:
        """The shape with every composite axis as one axis for each of its dims."""
        whole, parts = self._op("Shape", name), []
        for place, axis in enumerate(self.axes):
            if len(axis.dims) > 1:
                parts.append(self._constant(np.array([self.relation.dims[d].size for d in axis.dims])))
            else:
                parts.append(self._op("Gather", whole, self._constant(np.array([place]))))
        return self._op("Concat", *parts, axis=0)

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        result = self.editor.name(self.name)
        self.editor.insert(helper.make_node(kind, inputs, [result], **attributes), self.node)
        return result

    def _constant(self, value: object) -> str:
        return self.editor.constant(self.name, np.asarray(value), self.node)
