"""Expressions that write ONNX nodes: ``g * (1 - y * y)`` is three nodes on a tape.

A :class:`Term` is a tensor by name, with its type and what is known of its dimensions; every operation on terms appends
the nodes that compute it. So a rule of a derivative reads as it would in a table of derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.gradients.dims import Dim as Dim
from graphprune.gradients.dims import Dims as Dims
from graphprune.gradients.dims import broadcast as broadcast
from graphprune.gradients.dims import same as same
from graphprune.gradients.dims import stretched
from graphprune.model import names
from graphprune.model.bodies import subgraphs

Number: TypeAlias = "int | float"
Array = npt.NDArray[Any]

INT = TensorProto.INT64
BOOL = TensorProto.BOOL


@dataclass
class Tape:
    """Nodes in the order in which they were written, and the constants that they read.

    Attributes:
        taken: names that are in use; new ones are added.
        nodes: the nodes.
        constants: by name.
        steep: whether gradients may be infinite where nothing is wrong, so that none may be multiplied by zero.
    """

    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    steep: bool = True
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict, repr=False)

    @classmethod
    def beside(cls, graph: GraphProto) -> Tape:
        """A tape whose new names are not those of a graph, its nodes or its bodies."""
        return cls(names.of(graph) | set(_labels(graph)))

    def inner(self) -> Tape:
        """A tape for a body of a node on this one: it shares names and constants, and has nodes of its own."""
        return Tape(self.taken, [], self.constants, self.steep, self._known)

    def fresh(self, stem: str) -> str:
        """A name that nothing has yet."""
        name, number = stem, 1
        while name in self.taken:
            name, number = f"{stem}_{number}", number + 1
        self.taken.add(name)
        return name

    def constant(self, value: npt.ArrayLike, kind: int = INT) -> Term:
        """A constant, the same for equal values.

        Args:
            value: its elements.
            kind: its ``TensorProto`` type.
        """
        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(kind))
        key = (kind, array.shape, array.tobytes())
        if key not in self._known:
            name = self.fresh("constant")
            self.constants[name] = numpy_helper.from_array(array, name)
            self._known[key] = name
        return Term(self, self._known[key], kind, array.shape, array)

    def op(
        self,
        op_type: str,
        *inputs: Term | None,
        kind: int | None = None,
        dims: Dims | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Term:
        """The output of a node.

        Args:
            op_type: its operator.
            *inputs: its inputs, None where one is left out.
            kind: type of the output, by default that of the first input.
            dims: what is known of the output's dimensions.
            domain: of the operator.
            **attributes: of the node; those that are None are left out.
        """
        return self.ops(op_type, *inputs, kinds=(kind,), dims=(dims,), domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Term | None,
        kinds: Sequence[int | None],
        dims: Sequence[Dims | None] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[Term, ...]:
        """The outputs of a node, as many as ``kinds``; as :meth:`op`."""
        made = [self.fresh(f"{op_type}_output") for _ in kinds]
        given = {k: v for k, v in attributes.items() if v is not None}
        read = [t.name if t is not None else "" for t in inputs]
        self.nodes.append(helper.make_node(op_type, read, made, self.fresh(f"{op_type}_node"), domain=domain, **given))
        first = next((t.kind for t in inputs if t is not None), TensorProto.FLOAT)
        sizes = dims or [None] * len(made)
        return tuple(Term(self, n, first if k is None else k, d) for n, k, d in zip(made, kinds, sizes, strict=True))

    def join(self, parts: Sequence[Term], axis: int = 0) -> Term:
        """Tensors joined along an axis."""
        if len(parts) == 1:
            return parts[0]
        values = [p.value for p in parts if p.value is not None]
        if len(values) == len(parts):
            return self.constant(np.concatenate(values, axis), parts[0].kind)
        return self.op("Concat", *parts, axis=axis)

    def total(self, parts: Sequence[Term]) -> Term:
        """The sum of terms of one shape."""
        return parts[0] if len(parts) == 1 else self.op("Sum", *parts, dims=next((p.dims for p in parts), None))


def _labels(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.name
        for inner in subgraphs(node):
            yield from _labels(inner)


@dataclass(frozen=True, eq=False)
class Term:
    """A tensor in an expression.

    Attributes:
        tape: where nodes that read it are written.
        name: of the tensor.
        kind: its ``TensorProto`` type.
        dims: its dimensions as far as they are known, None where not even their number is.
        value: its elements, where it is a constant that is at hand.
    """

    tape: Tape
    name: str
    kind: int
    dims: Dims | None = None
    value: Array | None = field(default=None, repr=False)

    @property
    def rank(self) -> int | None:
        """How many dimensions it has."""
        return None if self.dims is None else len(self.dims)

    def on(self, tape: Tape) -> Term:
        """The same tensor, read by nodes on another tape."""
        return Term(tape, self.name, self.kind, self.dims, self.value)

    def like(self, value: npt.ArrayLike) -> Term:
        """A constant of this term's type."""
        return self.tape.constant(value, self.kind)

    def _with(self, other: Term | Number, op: str, kind: int | None = None, swapped: bool = False) -> Term:
        term = other if isinstance(other, Term) else self.like(other)
        left, right = (term, self) if swapped else (self, term)
        return self.tape.op(op, left, right, kind=kind, dims=broadcast(left.dims, right.dims))

    def __add__(self, other: Term | Number) -> Term:
        return self._with(other, "Add")

    def __radd__(self, other: Number) -> Term:
        return self._with(other, "Add", swapped=True)

    def __sub__(self, other: Term | Number) -> Term:
        return self._with(other, "Sub")

    def __rsub__(self, other: Number) -> Term:
        return self._with(other, "Sub", swapped=True)

    def __mul__(self, other: Term | Number) -> Term:
        return self._with(other, "Mul")

    def __rmul__(self, other: Number) -> Term:
        return self._with(other, "Mul", swapped=True)

    def __truediv__(self, other: Term | Number) -> Term:
        return self._with(other, "Div")

    def __rtruediv__(self, other: Number) -> Term:
        return self._with(other, "Div", swapped=True)

    def __pow__(self, other: Term | Number) -> Term:
        return self._with(other, "Pow")

    def __matmul__(self, other: Term) -> Term:
        dims: Dims | None = None
        if self.dims is not None and other.dims is not None and min(len(self.dims), len(other.dims)) > 1:
            batch = broadcast(self.dims[:-2], other.dims[:-2]) or ()
            dims = (*batch, self.dims[-2], other.dims[-1])
        return self.tape.op("MatMul", self, other, dims=dims)

    def __neg__(self) -> Term:
        return self.unary("Neg")

    def __lt__(self, other: Term | Number) -> Term:
        return self._with(other, "Less", BOOL)

    def __gt__(self, other: Term | Number) -> Term:
        return self._with(other, "Greater", BOOL)

    def __le__(self, other: Term | Number) -> Term:
        return self._with(other, "LessOrEqual", BOOL)

    def __ge__(self, other: Term | Number) -> Term:
        return self._with(other, "GreaterOrEqual", BOOL)

    def equals(self, other: Term | Number) -> Term:
        """Where both are the same."""
        return self._with(other, "Equal", BOOL)

    def __and__(self, other: Term) -> Term:
        return self._with(other, "And", BOOL)

    def __or__(self, other: Term) -> Term:
        return self._with(other, "Or", BOOL)

    def __invert__(self) -> Term:
        return self.unary("Not")

    def unary(self, op: str, kind: int | None = None, **attributes: Any) -> Term:
        """An operator that works on each element alone: ``x.unary("Exp")``."""
        return self.tape.op(op, self, kind=kind, dims=self.dims, **attributes)

    def where(self, yes: Term | Number, no: Term | Number) -> Term:
        """Elements of ``yes`` where this one is true, else of ``no``; one of both is a term."""
        one = yes if isinstance(yes, Term) else no
        assert isinstance(one, Term)
        a, b = (v if isinstance(v, Term) else one.like(v) for v in (yes, no))
        dims = broadcast(self.dims, broadcast(a.dims, b.dims))
        return self.tape.op("Where", self, a, b, kind=one.kind, dims=dims)

    def kept(self, g: Term) -> Term:
        """Elements of a gradient where this one is true, else zero.

        A product where all gradients are finite: ONNX Runtime takes seven times as long to choose.
        """
        return self.where(g, 0) if g.tape.steep else g * self.cast(g.kind)

    def cast(self, kind: int) -> Term:
        """The same elements in another type."""
        if kind == self.kind:
            return self
        if self.value is not None and self.value.size <= 1:
            return self.tape.constant(self.value, kind)
        return self.tape.op("Cast", self, kind=kind, dims=self.dims, to=kind)

    def shape(self) -> Term:
        """Its dimensions, a constant where they are known."""
        if self.dims is not None and all(isinstance(d, int) for d in self.dims):
            return self.tape.constant([d for d in self.dims if isinstance(d, int)])
        return self.tape.op("Shape", self, kind=INT, dims=(self.rank,))

    def size(self, axis: int) -> Term:
        """The length of one axis, with one element; ``axis`` counts from 0, or from the end below it."""
        known = self.dims[axis] if self.dims is not None else None
        if isinstance(known, int):
            return self.tape.constant([known])
        return self.tape.op("Shape", self, kind=INT, dims=(1,), start=axis, end=axis + 1 if axis != -1 else None)

    def count(self) -> Term:
        """How many elements it has, a scalar."""
        if self.dims is not None and all(isinstance(d, int) for d in self.dims):
            return self.tape.constant(int(np.prod([int(d or 0) for d in self.dims])))
        return self.tape.op("Size", self, kind=INT, dims=())

    def reshape(self, to: Term | Sequence[int]) -> Term:
        """The same elements in another shape; of a sequence, -1 stands for what is left."""
        shape = to if isinstance(to, Term) else self.tape.constant(list(to))
        dims: Dims | None = None
        if shape.value is not None and self.value is not None and shape.value.all():
            return self.tape.constant(self.value.reshape(shape.value), self.kind)
        if shape.value is not None:
            dims = tuple(int(d) if d > 0 else None for d in shape.value)
        return self.tape.op("Reshape", self, shape, dims=dims, allowzero=None)

    def shaped_as(self, other: Term) -> Term:
        """The same elements in the shape of another term."""
        if same(self.dims, other.dims):
            return self
        term = self.reshape(other.shape())
        return Term(self.tape, term.name, term.kind, other.dims)

    def transpose(self, order: Sequence[int]) -> Term:
        """Its axes in another order."""
        if list(order) == list(range(len(order))):
            return self
        dims = tuple(self.dims[k] for k in order) if self.dims is not None else None
        return self.tape.op("Transpose", self, dims=dims, perm=list(order))

    def swapped(self) -> Term:
        """Its last two axes exchanged; its rank must be known."""
        assert self.rank is not None
        order = list(range(self.rank))
        order[-2:] = order[:-3:-1]
        return self.transpose(order)

    def sum(self, axes: Sequence[int], keep: bool = True) -> Term:
        """Sums over axes."""
        return self.reduced("ReduceSum", axes, keep)

    def mean(self, axes: Sequence[int], keep: bool = True) -> Term:
        """Means over axes."""
        return self.reduced("ReduceMean", axes, keep)

    def reduced(self, op: str, axes: Sequence[int], keep: bool = True) -> Term:
        """An operator that reduces axes; none are reduced where none are named."""
        if not axes:
            return self
        dims: Dims | None = None
        if self.dims is not None:
            gone = {a % len(self.dims) for a in axes}
            kept = [1 if k in gone else d for k, d in enumerate(self.dims)]
            dims = tuple(d for k, d in enumerate(kept) if keep or k not in gone)
        return self.tape.op(op, self, self.tape.constant(list(axes)), dims=dims, keepdims=int(keep))

    def unsqueeze(self, axes: Sequence[int]) -> Term:
        """With axes of length 1, at these places of the result."""
        dims: Dims | None = None
        if self.dims is not None:
            rank = len(self.dims) + len(axes)
            places, rest = {a % rank for a in axes}, iter(self.dims)
            dims = tuple(1 if k in places else next(rest) for k in range(rank))
        return self.tape.op("Unsqueeze", self, self.tape.constant(list(axes)), dims=dims)

    def squeeze(self, axes: Sequence[int]) -> Term:
        """Without axes of length 1."""
        dims: Dims | None = None
        if self.dims is not None:
            gone = {a % len(self.dims) for a in axes}
            dims = tuple(d for k, d in enumerate(self.dims) if k not in gone)
        return self.tape.op("Squeeze", self, self.tape.constant(list(axes)), dims=dims)

    def take(self, indices: Term | Sequence[int] | int, axis: int = 0) -> Term:
        """Elements along an axis."""
        at = indices if isinstance(indices, Term) else self.tape.constant(indices)
        return self.tape.op("Gather", self, at, axis=axis)

    def cut(self, start: int | Term, stop: int | Term, axis: int, step: int = 1) -> Term:
        """A slice along an axis."""
        bounds = [b if isinstance(b, Term) else self.tape.constant([b]) for b in (start, stop)]
        return self.tape.op("Slice", self, *bounds, self.tape.constant([axis]), self.tape.constant([step]))

    def padded(self, axes: Sequence[int], before: Sequence[Term], after: Sequence[Term], dims: Dims | None) -> Term:
        """With zeros in front of and behind it along axes, or cut off where there are less than none.

        All axes are named: ONNX Runtime's optimizer transposes pads as if they were for all.
        """
        assert self.rank is not None
        places = [a % self.rank for a in axes]
        none = self.tape.constant([0])
        pads = [s[places.index(k)] if k in places else none for s in (before, after) for k in range(self.rank)]
        widths = self.tape.join(pads) if pads else none
        if widths.value is not None and not widths.value.any():
            return self
        return self.tape.op("Pad", self, widths, dims=dims)

    def zeros(self, kind: int | None = None) -> Term:
        """As many zeros, in the same shape, and in the same type unless ``kind`` is another."""
        return self.filled(0, kind)

    def filled(self, value: Number, kind: int | None = None) -> Term:
        """A tensor of the same shape, of one value; of the same type, unless ``kind`` is another."""
        chosen = self.kind if kind is None else kind
        fill = numpy_helper.from_array(np.asarray([value], helper.tensor_dtype_to_np_dtype(chosen)))
        return self.tape.op("ConstantOfShape", self.shape(), kind=chosen, dims=self.dims, value=fill)

    def sum_to(self, other: Term) -> Term:
        """Summed over what was broadcast, so that its shape is that of ``other``, which broadcasts to it."""
        axes = stretched(self.dims, other.dims)
        if axes is not None:
            return self.sum(axes).shaped_as(other)
        shape, rank = other.tape.op("Shape", other, kind=INT), self.tape.op("Size", self.shape(), kind=INT)
        missing = (rank - self.tape.op("Size", shape, kind=INT)).reshape([1])
        ones = self.tape.op("ConstantOfShape", missing, kind=INT, value=numpy_helper.from_array(np.ones(1, np.int64)))
        single = self.tape.join([ones, shape]).equals(1)
        places = self.tape.op("NonZero", single, kind=INT).reshape([-1])
        summed = self.tape.op("ReduceSum", self, places, keepdims=1, noop_with_empty_axes=1)
        return Term(self.tape, summed.reshape(shape).name, self.kind, other.dims)
