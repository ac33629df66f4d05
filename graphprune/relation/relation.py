"""Relations: what an operator says about the axes of its tensors.

A node declares its own *local dims*, as an einsum does with letters, and for each axis of each input and output a
map that says which element of which local dim an element of that axis belongs to. Nothing here knows ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from graphprune.relation import printing
from graphprune.relation.window import Window
from graphprune.relation.zero import NEVER, Sum, Zero

IntArray = npt.NDArray[np.int64]
Shape = tuple[int, ...]
Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice along a dim, by what stands at its elements: a softmax shares out, a top-k picks.

    An element at which ``neutral`` stands is never chosen, so that it may as well not be there. Where the dim is still
    on an output, elements that are never chosen are zero on it.

    Attributes:
        neutral: -inf where the largest are chosen, inf where the smallest are.
        count: how many are chosen at once: fewer must not be left.
        kind: what users call an element that is chosen, or empty.
        by: the input that holds what is chosen by.
    """

    neutral: float = -inf
    count: int = 1
    kind: str = ""
    by: int = 0


@dataclass(frozen=True, slots=True)
class Dim:
    """A local dim of one node.

    Attributes:
        name: its letter or word in the notation.
        size: number of elements at the witness shape.
        pinned: why none of its elements can be removed, or None.
        statistic: the mean and the variance that run over this dim, in words, or None. Their mean is not kept exact.
        summed: a sum runs over the dim although it stays on the output (a norm): exact only where what is removed
            is zero.
        choice: what is chosen along the dim, or None.
    """

    name: str
    size: int
    pinned: str | None = None
    statistic: str | None = None
    summed: bool = False
    choice: Choice | None = None

    def __str__(self) -> str:
        mark = "!" if self.pinned else "~" if self.statistic else "+" if self.summed else "?" if self.choice else ""
        return mark + self.name


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Where the elements of one axis belong.

    Either a row-major product of local dims (``lookup`` is None; an axis of size 1 is the empty product), or one
    local dim through a lookup: element ``e`` of the axis belongs to element ``lookup[e]`` of the dim, or to none
    where that is -1.
    """

    dims: tuple[int, ...]
    lookup: IntArray | None = None

    def __post_init__(self) -> None:
        if self.lookup is not None and len(self.dims) != 1:
            raise ValueError(f"a lookup goes to exactly one dim, not to {len(self.dims)}")


Axes = tuple[AxisMap, ...]
Slot = tuple[str, int]
"""``("in", i)`` or ``("out", i)``; for what is kept also ``("dim", d)``, which has one axis."""
Kept = Callable[[Slot, int], IntArray]


@dataclass(frozen=True, slots=True)
class Operand:
    """An input that holds sizes or positions, and so must follow when axes shrink.

    Attributes:
        input: index of the input that holds it; -1 where only an attribute does.
        refit: ``refit(value, kept)`` returns the value that the operand must have after removal, or None where an
            absent operand may stay absent. ``value`` is the original one, None if absent; ``kept(slot, axis)`` the
            elements of an axis that stay, as original indices, ascending. An entry that may stay as it is must come
            back unchanged.
        attribute: set where the operand is held by this attribute and not by an input.
        drops: attributes that contradict an operand that was absent and is now written out.
        infers: whether one entry may be -1, to be inferred from the others.
    """

    input: int
    refit: Callable[[Values | None, Kept], Values | None]
    attribute: str | None = None
    drops: tuple[str, ...] = ()
    infers: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """What keeps a statistic the same when the dims that it runs over shrink from n elements to k in all.

    A mean over n that has become one over k is multiplied by k/n; a root mean square that divides is made up for by a
    gain times (k/n) ** -0.5 and an epsilon times n/k.

    Attributes:
        target: what is multiplied: ``("in", i)``, ``("out", i)``, or the name of an attribute.
        power: it is multiplied by ``(k / n) ** power``.
        dims: the dims that the statistic runs over.
        default: value of the attribute where it is absent.
    """

    target: Slot | str
    power: float
    dims: tuple[int, ...]
    default: float = 0.0


@dataclass(frozen=True, slots=True)
class Relation:
    """What one node says about the axes of its inputs and outputs.

    Attributes:
        dims: the local dims.
        inputs: for each input its axes, or None where the input is absent or takes no part (a shape operand).
        outputs: the same for outputs.
        zero: when removed elements of the outputs are zero.
        sums: the products that sums and statistics run over, where they are not those of ``zero``.
        macs: multiply-accumulates, as sums of products of dims: each inner tuple is one product. Empty: none. Where it
            is one alone, output 0 is what ``zero`` says: the product of its factors, summed, and what is added to it;
            unless it ``bends``.
        attributes: attributes that hold the size of a dim, or the product of several (``{"group": (1,)}``).
        operands: inputs and attributes that hold sizes or positions.
        kind: what users call the dims that it computes (``channel``), or empty.
        corrections: what keeps statistics exact.
        masks: for inputs whose neutral element is not 0, the input that holds it (a zero point), or None where masking
            leaves them as they are (a scale).
        inner: dims that are in turn made of others, each as ``(dim, axis map)``: a packed projection is a dim that is
            cut into stretches, each of them heads times head size.
        degrees: for inputs in which output 0 is homogeneous, of which degree: where the input is multiplied by s, it is
            multiplied by ``s ** degree``.
        joint: whether multiplying all inputs by s multiplies output 0 by s (a sum).
        rounds: whether it rounds what it computes to steps.
        bends: whether what its products come to is scaled, or goes through a function, before it is output 0.
        signs: where each output is the sum of the products that ``zero`` says, element by element but for what is
            summed over or averaged, the sign of each product; see :attr:`terms`.
        mixed: dims of a node that is more than a sum of products, along which it is one all the same: outputs that have
            the dim are linear in the inputs that ``zero`` names, and what has it not sums over the pairs of ``sums``.
        isotropic: dims along which lengths alone count: an orthogonal change of basis along them passes, provided that
            gains are the same for all elements.
        level: dims along which the same number may be added to all elements of input 0: nothing changes (a softmax).
        centring: dims along which the mean is taken off first, and lengths alone count then.
        moves: where output 0 is input 0 as it is, in the order of these axes, and cut into axes anew; None: it is not.
        vacant: for inputs that are absent the axes that they would have, where the pattern says it.
        window: the window that a convolution slides over its input, where its geometry is known.
        counts: for integer tensors whose values are positions along a dim, that dim: the indices that a top-k makes,
            and those by which something is looked up.
        picks: ``picks(kept)`` gives, for axes of output 0 that the operands cannot cut right any more, the positions
            that must be picked from them; the operands then leave these axes whole.
        numbers: for inputs whose values are numbers of elements of a dim, that dim (indices that the model computes).
        compares: whether output 0 depends on nothing but how elements of its inputs compare: which are equal, and which
            of two is larger.
    """

    dims: tuple[Dim, ...]
    inputs: tuple[Axes | None, ...]
    outputs: tuple[Axes | None, ...]
    zero: Zero = field(default_factory=Zero)
    sums: Sum = NEVER
    macs: tuple[tuple[int, ...], ...] = ()
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    operands: tuple[Operand, ...] = ()
    kind: str = ""
    corrections: tuple[Correction, ...] = ()
    masks: Mapping[int, int | None] = field(default_factory=dict)
    inner: tuple[tuple[int, AxisMap], ...] = ()
    rounds: bool = False
    degrees: Mapping[int, float] = field(default_factory=dict)
    joint: bool = False
    bends: bool = False
    signs: tuple[int, ...] | None = None
    mixed: tuple[int, ...] = ()
    isotropic: tuple[int, ...] = ()
    centring: tuple[int, ...] = ()
    level: tuple[int, ...] = ()
    moves: tuple[int, ...] | None = None
    vacant: Mapping[int, Axes] = field(default_factory=dict)
    window: Window | None = None
    counts: Mapping[Slot, int] = field(default_factory=dict)
    picks: Callable[[Kept], Mapping[int, IntArray]] | None = None
    numbers: Mapping[int, int] = field(default_factory=dict)
    compares: bool = False

    def renumbered(self) -> Relation:
        """The same where whoever removes elements numbers the rest anew: dims that numbers speak of are not pinned."""
        named = set(self.numbers.values())
        dims = tuple(replace(dim, pinned=None) if d in named else dim for d, dim in enumerate(self.dims))
        return replace(self, dims=dims)

    def reach(self, axes: Axes) -> set[int]:
        """The dims of a tensor's axes, and those that these are made of or make."""
        found = {d for axis in axes for d in axis.dims}
        grown = bool(self.inner)
        while grown:
            linked = [{dim, *axis.dims} for dim, axis in self.inner]
            more = set().union(*(group for group in linked if group & found)) - found
            found |= more
            grown = bool(more)
        return found

    @property
    def terms(self) -> tuple[tuple[int, tuple[int, ...]], ...] | None:
        """The products of inputs that outputs are sums or means of, each with its sign; None where they are more."""
        products = self.zero.of(0).products
        if self.signs is not None:
            return tuple(zip(self.signs, products, strict=True))
        if self.moves is not None:
            return ((1, (0,)),)
        plain = len(self.macs) == 1 and not self.bends and not self.rounds and not self.zero.of(0).divisors
        return tuple((1, product) for product in products) if plain and products else None

    def slots(self) -> list[tuple[Slot, Axes]]:
        """Every tensor that takes part, with its axes: inputs first."""
        found: list[tuple[Slot, Axes]] = [(("in", i), a) for i, a in enumerate(self.inputs) if a is not None]
        found += [(("out", i), a) for i, a in enumerate(self.outputs) if a is not None]
        return found

    def __str__(self) -> str:
        return printing.whole(self)


def push(axis: AxisMap, labels: IntArray, which: int, sizes: list[int]) -> IntArray:
    """Labels of a dim, seen on an axis.

    Args:
        axis: the axis.
        labels: a label for each element of the dim, shape ``[size of the dim]``; -1 is none.
        which: the place of the dim among ``axis.dims``.
        sizes: sizes of the dims of the axis.

    Returns:
        A label for each element of the axis.
    """
    if axis.lookup is not None:
        return np.where(axis.lookup >= 0, labels[axis.lookup], -1)
    if len(sizes) == 1:
        return labels
    shape = [1] * len(sizes)
    shape[which] = -1
    return np.broadcast_to(labels.reshape(shape), sizes).reshape(-1)


def constant_along_others(labels: IntArray, sizes: list[int]) -> list[int]:
    """Which factors of a composite axis determine its labels alone, most elements first.

    Args:
        labels: a label for each element of the axis, shape ``[prod(sizes)]``.
        sizes: sizes of its factors, row-major.
    """
    box = labels.reshape(sizes)
    found = []
    for f in range(len(sizes)):
        first = box[tuple(slice(None) if i == f else slice(0, 1) for i in range(len(sizes)))]
        if (box == first).all():
            found.append(f)
    if len(found) < 2:
        return found
    return sorted(found, key=lambda f: (-len(np.unique(np.take(box, range(sizes[f]), f))), f))
