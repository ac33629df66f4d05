"""Relations from lines: a pattern is laid over the shapes that a node has.

Axes of size 1 belong to no dim: nothing can be removed from them, and they broadcast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from graphprune.relation.errors import FitError
from graphprune.relation.notation import Line, Side, Term, bare, read
from graphprune.relation.relation import Axes, AxisMap, Choice, Dim, Relation, Shape
from graphprune.relation.zero import Sum, Zero

Laid = list[list[tuple[str, ...]] | None]
"""For each tensor of one side the words of its axes."""


def bind(
    line: Line | str,
    inputs: Sequence[Shape | None],
    outputs: Sequence[Shape | None],
    *,
    sizes: Mapping[str, int] | None = None,
    reason: str = "the operator needs every element of it",
    statistic: str = "a statistic runs over it",
    attributes: Mapping[str, str] | None = None,
) -> Relation:
    """Lay a line over shapes.

    Args:
        line: a pattern and what is said beside it, or a pattern alone.
        inputs: shapes; None for absent inputs. Trailing operands of the pattern may be missing altogether.
        outputs: shapes; None for outputs that nobody uses.
        sizes: dims known beforehand (``g`` from an attribute).
        reason: why dims marked ``!`` are pinned.
        statistic: what runs over dims marked ``~``.
        attributes: as in :class:`Relation`, but names of dims (``{"K": "blocks size"}`` is a product).

    Raises:
        FitError: no alternative fits the ranks, or a dim has two sizes, or is known to have none.
        NotationError: the line cannot be read.
    """
    if (none := next((f"{name} = {size}" for name, size in (sizes or {}).items() if size < 1), None)) is not None:
        raise FitError(f"{none} is no size")
    whole = Line(line) if isinstance(line, str) else line
    held = attributes or {}
    for left, right in read(whole):
        laid_in, laid_out = _lay(left, inputs), _lay(right, outputs)
        if laid_in is None or laid_out is None:
            continue
        binding = _Binding(sizes or {}, whole.pattern)
        binding.measure(laid_in, inputs)
        binding.measure(laid_out, outputs)
        dims = binding.dims({name for own in held.values() for name in own.split()}, reason, statistic)
        place = {dim.name: d for d, dim in enumerate(dims)}
        relation = Relation(
            dims,
            binding.side(laid_in, inputs, place),
            binding.side(laid_out, outputs, place),
            zero=Zero.parse(whole.zero),
            sums=Sum.parse(whole.sums),
            macs=_products(whole.macs, place),
            attributes={a: tuple(place[w] for w in own.split()) for a, own in held.items()},
        )
        return replace(relation, vacant=_vacant(left, inputs, relation))
    met = ", ".join(map(str, inputs)) + " -> " + ", ".join(map(str, outputs))
    raise FitError(f"{whole.pattern!r} does not fit shapes {met}")


class _Binding:
    """Sizes and marks of the dims while a pattern is laid over shapes."""

    def __init__(self, known: Mapping[str, int], text: str) -> None:
        self.sizes: dict[str, int] = dict(known)
        self.marks: dict[str, str] = {}
        self.text = text

    def measure(self, laid: Laid, shapes: Sequence[Shape | None]) -> None:
        """Take sizes and marks from the tensors of one side."""
        for axes, shape in zip(laid, shapes, strict=False):
            if axes is not None and shape is not None:
                for words, size in zip(axes, shape, strict=True):
                    self._axis([self._name(word) for word in words], size)

    def _name(self, word: str) -> str:
        name = bare(word)
        mark = word[: len(word) - len(name)]
        if name.isdigit():
            mark, self.sizes[name] = "!", int(name)
        if mark:
            self.marks[name] = mark
        return name

    def _axis(self, names: list[str], size: int) -> None:
        unknown = [n for n in names if n not in self.sizes]
        if len(names) == 1:
            if not names[0].isdigit() or size != 1:
                self._size(names[0], size)
            return
        if size == 1:  # it broadcasts
            for n in unknown:
                self._size(n, 1)
            return
        known = prod(self.sizes[n] for n in names if n not in unknown)
        if len(unknown) > 1:
            raise FitError(f"{self.text}: the sizes of {unknown} in one axis are not known beforehand")
        if size % known or (not unknown and size != known):
            raise FitError(f"{self.text}: an axis of {size} is no product with {known}")
        if unknown:
            self._size(unknown[0], size // known)

    def _size(self, name: str, size: int) -> None:
        if self.sizes.setdefault(name, size) not in (size, 1):
            if size != 1:
                raise FitError(f"{self.text}: dim {name!r} is {self.sizes[name]} in one place and {size} in another")
        elif size != 1:
            self.sizes[name] = size

    def dims(self, held: set[str], reason: str, statistic: str) -> tuple[Dim, ...]:
        """The dims: those of more than one element, and those that an attribute holds."""
        return tuple(
            Dim(
                name,
                size,
                pinned=reason if self.marks.get(name) == "!" else None,
                statistic=statistic if self.marks.get(name) == "~" else None,
                summed=self.marks.get(name) == "+",
                choice=Choice() if self.marks.get(name) == "?" else None,
            )
            for name, size in self.sizes.items()
            if size != 1 or name in held
        )

    def side(self, laid: Laid, shapes: Sequence[Shape | None], place: Mapping[str, int]) -> tuple[Axes | None, ...]:
        """The tensors of one side."""
        built: list[Axes | None] = []
        for axes, shape in zip(laid, shapes, strict=False):
            if axes is None or shape is None:
                built.append(None)
                continue
            maps = []
            for words, size in zip(axes, shape, strict=True):
                names = map(bare, words)
                maps.append(AxisMap(tuple(place[n] for n in names if size != 1 and self.sizes[n] != 1)))
            built.append(tuple(maps))
        return tuple(built)


def _lay(side: Side, shapes: Sequence[Shape | None]) -> Laid | None:
    laid: Laid = []
    if len(shapes) > len(side):
        return None
    for terms, shape in zip(side, shapes, strict=False):
        if terms is None or shape is None:
            laid.append(None)
            continue
        axes = _expand(terms, len(shape))
        if axes is None:
            return None
        laid.append(axes)
    return laid


def _expand(terms: tuple[Term, ...], rank: int) -> list[tuple[str, ...]] | None:
    """The words of each axis for a tensor of this rank, or None if it does not fit."""
    fixed = sum(not t.variadic for t in terms)
    spare = rank - fixed
    if spare < 0 or (spare and not any(t.variadic for t in terms)):
        return None
    axes: list[tuple[str, ...]] = []
    for term in terms:
        if not term.variadic:
            axes.append(term.words)
            continue
        word = term.words[0]
        # "..." counts from the right, so that tensors of different rank line up as numpy broadcasts them
        numbers = range(spare - 1, -1, -1) if word == "..." else range(spare)
        axes += [((word if word != "..." else "b") + str(i),) for i in numbers]
    return axes


def _vacant(side: Side, shapes: Sequence[Shape | None], relation: Relation) -> dict[int, Axes]:
    """The axes of inputs that are absent, where all their dims are known."""
    place = {dim.name: d for d, dim in enumerate(relation.dims) if dim.size != 1}
    found: dict[int, Axes] = {}
    for i, terms in enumerate(side):
        if terms is None or (i < len(shapes) and shapes[i] is not None) or any(t.variadic for t in terms):
            continue
        words = [[bare(word) for word in term.words] for term in terms]
        if not any(name.isdigit() for names in words for name in names):
            found[i] = tuple(AxisMap(tuple(place[n] for n in names if n in place)) for names in words)
    return found


def _products(text: str, place: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    found = []
    for product in filter(str.strip, text.split("+")):
        dims: list[int] = []
        for word in product.split():
            if word.startswith("*") or word == "...":
                stem = "b" if word == "..." else word[1:]
                dims += [place[n] for n in place if re.fullmatch(re.escape(stem) + r"\d+", n)]
            elif word in place:
                dims.append(place[word])
        found.append(tuple(dims))
    return tuple(found)


def packed(relation: Relation, whole: str, *parts: str) -> Relation:
    """A dim that is the concatenation of products of other dims (``packed(r, "w", "n d", "n d", "n e")``).

    Raises:
        FitError: the parts do not add up to the whole.
    """
    place = {dim.name: d for d, dim in enumerate(relation.dims)}
    if whole not in place:  # the tensor that holds it is absent
        return relation
    dims, inner, start = list(relation.dims), list(relation.inner), 0
    for number, part in enumerate(parts):
        own = tuple(place[n] for n in part.split() if n in place)
        size = prod(relation.dims[d].size for d in own)
        if size > 1:
            dims.append(Dim(f"{whole}{number}", size))
            inner.append((len(dims) - 1, AxisMap((place[whole],), np.arange(start, start + size))))
            inner.append((len(dims) - 1, AxisMap(own)))
        start += size
    if start != relation.dims[place[whole]].size:
        raise FitError(f"{whole!r} of {relation.dims[place[whole]].size} is not {' + '.join(parts)}")
    return replace(relation, dims=tuple(dims), inner=tuple(inner))


def pinned(inputs: Sequence[Shape | None], outputs: Sequence[Shape | None], reason: str) -> Relation:
    """The relation of an operator that says nothing: every axis is a pinned dim of its own."""
    dims: list[Dim] = []

    def side(shapes: Sequence[Shape | None], tag: str) -> tuple[Axes | None, ...]:
        built: list[Axes | None] = []
        for i, shape in enumerate(shapes):
            if shape is None:
                built.append(None)
                continue
            maps = []
            for a, size in enumerate(shape):
                if size == 1:
                    maps.append(AxisMap(()))
                    continue
                dims.append(Dim(f"{tag}{i}a{a}", size, pinned=reason))
                maps.append(AxisMap((len(dims) - 1,)))
            built.append(tuple(maps))
        return tuple(built)

    left, right = side(inputs, "x"), side(outputs, "y")
    return Relation(tuple(dims), left, right)
