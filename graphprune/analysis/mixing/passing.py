"""What one node does to the classes of a group: which changes of basis it lets through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.mixing.mixing import Gain, Meeting, NotLinear, Strand
from graphprune.analysis.web import Edge, Tensor
from graphprune.model import Use
from graphprune.relation import Relation

if TYPE_CHECKING:
    from graphprune.analysis.mixing.walk import Walk


class Passing:
    """One node.

    Args:
        walk: which it is a step of.
        node: its index.
        relation: what it says.
        dims: its dims that the group labels.
    """

    def __init__(self, walk: Walk, node: int, relation: Relation, dims: set[int]) -> None:
        self.walk, self.node, self.relation, self.dims = walk, node, relation, dims
        self.inputs = [i for i, axes in enumerate(relation.inputs) if axes and relation.reach(axes) & dims]
        self.outputs = [k for k, axes in enumerate(relation.outputs) if axes and relation.reach(axes) & dims]

    def judge(self) -> None:
        """Join strands that meet in it.

        Raises:
            NotLinear: it is more than linear along these dims.
        """
        relation, dims = self.relation, self.dims
        if not any(axes is not None for axes in relation.outputs) or self._squares():
            return  # what makes nothing reads sizes
        if dims <= set(relation.isotropic) | set(relation.centring):
            self._norm()
        elif dims <= set(relation.mixed):
            self._mixed()
        elif relation.terms is not None:
            there = {i for i, axes in enumerate(relation.inputs) if axes is not None}
            self._linear([(sign, term) for sign, term in relation.terms if there.issuperset(term)])
        else:
            raise self._no("is not linear along it")

    def _no(self, text: str) -> NotLinear:
        node = self.walk.analysis.model.nodes[self.node]
        name = self.walk.net.names[self.node]
        return NotLinear(f"node {name!r} ({node.op_type}) {text}", name)

    def _tensor(self, side: str, place: int) -> Tensor:
        return self.walk.net.tensors[(self.node, (side, place))]

    def _constant(self, place: int) -> Use | None:
        tensor = self._tensor("in", place)
        return tensor if isinstance(tensor, Use) else None

    def _squares(self) -> bool:
        """Whether it squares each element, or passes squares on."""
        read = {self._tensor("in", i) for i in self.inputs}
        held = read & self.walk.squares
        twice = any(len([i for i in term if i in self.inputs]) == 2 for _, term in self.relation.terms or ())
        power = self.relation.terms is None and dict(self.relation.degrees) == {0: 2.0}
        if self.outputs and len(read) == 1 and not held and (power or (twice and len(self.inputs) == 2)):
            self.walk.squares.add(self._tensor("out", self.outputs[0]))
            self._join(self.inputs[:1], [], bent=True)
            self.walk.normed += self._strands("in", self.inputs[0])
            return True
        if not held:
            return False
        if self.outputs and self.relation.moves is not None:  # a conversion
            self.walk.squares.add(self._tensor("out", self.outputs[0]))
        elif self.outputs or self.relation.terms is None or len(self.inputs) > 1:
            raise self._no("computes with its squares")
        return True

    def _norm(self) -> None:
        """Orthogonal changes pass: from what is summed up to what is made of it, beside gains."""
        products = self.relation.zero.of(0).products
        gains = [i for i in self.inputs if self._constant(i) and any(i in p and len(p) > 1 for p in products)]
        behind = [
            i for i in self.inputs if i not in gains and (i,) in products and len(products) > 1 and self._constant(i)
        ]
        before = [i for i in self.inputs if i not in gains and i not in behind]
        made = [k for k in self.outputs if not gains or set(gains) & set(self.relation.zero.of(k).factors)]
        if gains and all(
            set(gains) <= set(p) for p in products
        ):  # of several inputs that are summed, none stands behind
            before, behind = before + behind, []
        self._join(before, [k for k in self.outputs if k not in made], bent=True)
        self._join(behind, made, bent=True)
        centring = bool(self.dims & set(self.relation.centring))
        self._across(before, made, centring)
        own = tuple(s for k in made for s in self._strands("out", k))
        self.walk.gains += [Gain(use, own) for i in gains if (use := self._constant(i)) is not None]
        self.walk.centred += [self.node] if centring else []

    def _across(self, before: Sequence[int], made: Sequence[int], centring: bool = False) -> None:
        """One space, but not one segment."""
        read = self.walk.about if centring else self.walk.normed
        read += [s for i in before for s in self._strands("in", i)]
        self.walk.fed += [s for k in made for s in self._strands("out", k)]
        self._join(before, made, near=False)

    def _mixed(self) -> None:
        """A fused node: what has the dim is linear in what it is made of, and sums run over pairs."""
        for k in self.outputs:
            self._join([i for i in self.relation.zero.of(k).factors if i in self.inputs], [k])
        over = self.relation.sums.products if not self.outputs else ()
        pairs = [product for product in over if len([i for i in product if i in self.inputs]) == 2]
        if not self.outputs and not pairs:
            raise self._no("sums over it inside")
        for left, right in pairs:
            self._meet(left, right)

    def _linear(self, terms: list[tuple[int, tuple[int, ...]]]) -> None:
        """A sum of products."""
        if set(self.relation.zero.of(0).divisors) & set(self.inputs):
            raise self._no("divides by it")
        carried = [[i for i in term if i in self.inputs] for _, term in terms]
        if not self.outputs:
            self._summed(carried)
        elif all(len(own) == 1 for own in carried):
            self._join([own[0] for own in carried], self.outputs)
        elif not self._gain(carried) and not self._mean_off(terms, carried):
            text = "adds to it what is the same for all" if any(not own for own in carried) else "multiplies it"
            raise self._no(f"{text} element by element")

    def _summed(self, carried: list[list[int]]) -> None:
        """A sum over the classes: of products of two, or a mean that is to be taken off."""
        for own in carried:
            if len(own) == 2:
                self._meet(*own)
            elif len(own) == 1:
                mean = any(
                    c.target == ("out", 0) and c.power == 1 and self.dims == set(c.dims)
                    for c in self.relation.corrections
                )
                made = self._tensor("out", 0)
                uses = self.walk.analysis.model.uses.get(str(made), [])
                if not mean or isinstance(made, Use) or made in self.walk.analysis.model.output_names:
                    raise self._no("sums it up as it stands")
                self.walk.means[made] = (self._tensor("in", own[0]), len(uses))

    def _gain(self, carried: list[list[int]]) -> bool:
        """Whether it multiplies a vector by a constant, element by element."""
        if len(carried) != 1 or len(carried[0]) != 2 or len(self.outputs) != 1:
            return False
        uses = {i: use for i in carried[0] if (use := self._constant(i)) is not None}
        if len(uses) != 1:
            return False
        other = next(i for i in carried[0] if i not in uses)
        own = tuple(self._strands("out", self.outputs[0]))
        self.walk.gains += [Gain(use, own) for use in uses.values()]
        self._across([other], self.outputs)
        return True

    def _mean_off(self, terms: list[tuple[int, tuple[int, ...]]], carried: list[list[int]]) -> bool:
        """Whether it takes the mean of a vector off it."""
        if len(terms) != 2 or [len(own) for own in carried] != [1, 0] or [sign for sign, _ in terms] != [1, -1]:
            return False
        mean = self.walk.net.tensors.get((self.node, ("in", terms[1][1][0])))
        place = carried[0][0]
        if mean not in self.walk.means or self.walk.means[mean][0] != self._tensor("in", place):
            return False
        self.walk.means[mean] = (self.walk.means[mean][0], self.walk.means[mean][1] - 1)
        self.walk.taken_off.append((self.node, place))
        self.walk.bent += self._strands("in", place)
        self._across([place], self.outputs, centring=True)
        return True

    def _meet(self, left: int, right: int) -> None:
        """A sum over products of two inputs: what the one changes by, the other is to undo."""
        self.walk.meetings.append(Meeting(self.node, left, right))
        self._join([left], [], near=False)
        self._join([right], [], sign=-1, near=False)

    def _strands(self, side: str, place: int) -> list[Strand]:
        """The strands of a tensor."""
        found = [
            (edge.axis, k)
            for edge in self._edges(side, place)
            for k in range(len(self.walk.strands.get(edge.axis, ())))
        ]
        return list(dict.fromkeys(found))

    def _join(
        self, inputs: Iterable[int], outputs: Iterable[int], sign: int = 1, bent: bool = False, near: bool = True
    ) -> None:
        """Join the strands of tensors with those of the dims that they have.

        Args:
            inputs, outputs: the tensors.
            sign: beside the dims.
            bent: whether they change by orthogonal matrices alone.
            near: whether nothing but linear steps lies between them.
        """
        met: dict[Strand, Strand] = {}
        for side, places in (("in", inputs), ("out", outputs)):
            for place in places:
                for edge in self._edges(side, place):
                    for axis, dim in self._pairs(edge):
                        self.walk.spaces.join(axis, dim, sign)
                        self.walk.bent += [axis] if bent else []
                        if near:
                            self.walk.near.join(axis, met.setdefault(dim, axis))

    def _edges(self, side: str, place: int) -> Iterator[Edge]:
        """Where axes of a tensor meet dims of the node."""
        net = self.walk.net
        axes = (self.relation.inputs if side == "in" else self.relation.outputs)[place] or ()
        start = net.axis_of[self._tensor(side, place)]
        for a, axis in enumerate(axes):
            yield from (e for e in net.edges[start + a] if e.node == self.node and e.map is axis)

    def _pairs(self, edge: Edge) -> Iterator[tuple[Strand, Strand]]:
        """Strands of an axis, each with the one of a dim that it lies on."""
        walk, net = self.walk, self.walk.net
        own = walk.strands.get(edge.axis)
        sizes = [net.sizes[d] for d in edge.dims]
        for k, dim in enumerate(edge.dims):
            there = walk.strands.get(dim)
            if own is None or there is None:
                continue
            elements = own if edge.map.lookup is None else edge.map.lookup[own]
            if edge.map.lookup is None and len(sizes) > 1:
                elements = np.unravel_index(own, sizes)[k]
            strand_of = np.full(net.sizes[dim], -1)
            strand_of[there] = np.arange(len(there))[:, None]
            met = strand_of[elements]
            if (met != met[:, :1]).any():
                raise self._no("puts its classes side by side in another order")
            yield from (((edge.axis, j), (dim, int(s))) for j, s in enumerate(met[:, 0]) if s >= 0)
