"""The notation of relations: one line an operator.

``n (g i) !*x, (g o) i !*k, (g o) -> n (g o) !*y`` reads: three inputs, one output; a word is an axis and the local
dim that it belongs to; brackets make one axis of several dims, row-major; ``*x`` stands for as many axes as are left,
each a dim of its own (``x0``, ``x1``, ...); ``...`` is the same, right-aligned and broadcast as numpy does; a number
is a pinned dim of that size; ``1`` is an axis without a dim; ``_`` an input that takes no part.

Marks before a word: ``!`` pinned (no element can be removed), ``~`` a mean and a variance run over the dim, ``+`` a
sum does.
``|`` separates alternatives; the first whose ranks fit is taken.

Axes of size 1 belong to no dim: nothing can be removed from them, and they broadcast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np

from graphprune.relation import Axes, AxisMap, Dim, Relation, Shape


class NotationError(ValueError):
    """A line that cannot be read, whatever shapes it meets: a slip of whoever wrote it."""


class FitError(NotationError):
    """A line that is well formed, and does not fit the shapes that it meets."""


@dataclass(frozen=True, slots=True)
class Term:
    """One axis of a pattern: its words, or a variadic word."""

    words: tuple[str, ...]
    variadic: bool = False


Side = tuple[tuple[Term, ...] | None, ...]

_TOKEN = re.compile(r"\s*(\.\.\.|[!~+]?\*?[A-Za-z0-9]+|[()])")


@cache
def parse(pattern: str) -> tuple[tuple[Side, Side], ...]:
    """Read a pattern into its alternatives, each ``(inputs, outputs)``.

    Raises:
        NotationError: with the pattern and the rule of the notation that it breaks.
    """
    alternatives = []
    for text in pattern.split("|"):
        sides = text.split("->")
        if len(sides) != 2:
            raise NotationError(f"{text.strip()!r}: exactly one '->' must stand between inputs and outputs")
        alternatives.append((_side(sides[0], text), _side(sides[1], text)))
    return tuple(alternatives)


def _side(text: str, whole: str) -> Side:
    return tuple(None if part.strip() == "_" else _tensor(part, whole) for part in text.split(","))


def _tensor(text: str, whole: str) -> tuple[Term, ...]:
    terms: list[Term] = []
    bracket: list[str] | None = None
    place = 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotationError(f"{whole.strip()!r}: cannot read {text[place:]!r}")
        token, place = match[1], match.end()
        if token == "(":
            if bracket is not None:
                raise NotationError(f"{whole.strip()!r}: brackets do not nest")
            bracket = []
        elif token == ")":
            if bracket is None:
                raise NotationError(f"{whole.strip()!r}: ')' without '('")
            terms.append(Term(tuple(bracket)))
            bracket = None
        elif bracket is not None:
            if "*" in token or token == "...":
                raise NotationError(f"{whole.strip()!r}: {token!r} stands for several axes and cannot be in brackets")
            bracket.append(token)
        else:
            variadic = "*" in token or token == "..."
            terms.append(Term((token.replace("*", ""),), variadic))
    if bracket is not None:
        raise NotationError(f"{whole.strip()!r}: '(' is not closed")
    if sum(t.variadic for t in terms) > 1:
        raise NotationError(f"{whole.strip()!r}: one tensor can hold only one variadic word")
    return tuple(terms)


@cache
def read_zero(expression: str) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """``"0*1+2"`` as products ``((0, 1), (2,))`` and divisors ``()``; ``"0/1"`` as ``((0,),)`` and ``(1,)``.

    ``"always"`` is the product of nothing, which nothing can keep from being zero.

    Raises:
        NotationError: it is neither.
    """
    if expression == "always":
        return ((),), ()
    if expression and _ZERO.fullmatch(expression) is None:
        raise NotationError(f"{expression!r}: what is zero is a sum of products of inputs by number, as in '0*1+2'")
    products, divisors = [], []
    for term in filter(None, expression.split("+")):
        above, _, below = term.partition("/")
        if below:
            divisors.append(int(below))
        if above:
            products.append(tuple(int(f) for f in above.split("*")))
    return tuple(products), tuple(divisors)


_TERM = r"(\d+(\*\d+)*)?(/\d+)?"
_ZERO = re.compile(rf"{_TERM}(\+{_TERM})*")


@cache
def read(pattern: str, zero: str = "", sums: str = "", macs: str = "") -> tuple[tuple[Side, Side], ...]:
    """Read a pattern and all that is said beside it; the first reading is kept.

    Args:
        pattern, zero, sums, macs: as in :func:`bind`.

    Returns:
        The pattern's alternatives, as :func:`parse` gives them.

    Raises:
        NotationError: one of them cannot be read, or speaks of an input or a dim that the pattern does not have.
    """
    alternatives = parse(pattern)
    count = max(len(left) for left, _ in alternatives)
    for expression in [*zero.split(";"), sums]:
        products, divisors = read_zero(expression)
        for number in [*(i for product in products for i in product), *divisors]:
            if number >= count:
                raise NotationError(f"{expression!r} speaks of input {number}, and {pattern!r} has {count}")
    terms = {term for sides in alternatives for side in sides for one in side for term in one or ()}
    words = {word.lstrip("!~+") for term in terms for word in term.words if not term.variadic}
    words |= {"..." if term.words == ("...",) else f"*{term.words[0].lstrip('!~+')}" for term in terms if term.variadic}
    for word in macs.replace("+", " ").split():
        if word not in words:
            raise NotationError(f"{macs!r} speaks of dim {word!r}, which {pattern!r} does not have")
    return alternatives


class _Binding:
    """Sizes and marks of the dims while a pattern is laid over shapes."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self.sizes: dict[str, int] = dict(known)
        self.marks: dict[str, str] = {}

    def size(self, name: str, size: int, text: str) -> None:
        if self.sizes.setdefault(name, size) not in (size, 1):
            if size != 1:
                raise FitError(f"{text}: dim {name!r} is {self.sizes[name]} in one place and {size} in another")
        elif size != 1:
            self.sizes[name] = size


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


def bind(
    pattern: str,
    inputs: Sequence[Shape | None],
    outputs: Sequence[Shape | None],
    *,
    sizes: Mapping[str, int] | None = None,
    reason: str = "the operator needs every element of it",
    statistic: str = "a statistic runs over it",
    zero: str = "",
    sums: str = "",
    macs: str = "",
    attributes: Mapping[str, str] | None = None,
) -> Relation:
    """Lay a pattern over shapes.

    Args:
        pattern: see the module's docstring.
        inputs: shapes; None for absent inputs. Trailing operands of the pattern may be missing altogether.
        outputs: shapes; None for outputs that nobody uses.
        sizes: dims known beforehand (``g`` from an attribute).
        reason: why dims marked ``!`` are pinned.
        statistic: what runs over dims marked ``~``.
        zero, sums, attributes: as in :class:`Relation`; attributes name dims (``{"K": "blocks size"}`` is a product).
        macs: sums of products of dims, ``"n g i o *k *y"``.

    Raises:
        FitError: no alternative fits the ranks, or a dim has two sizes.
        NotationError: the line cannot be read.
    """
    for left, right in read(pattern, zero, sums, macs):
        laid_in, laid_out = _lay(left, inputs), _lay(right, outputs)
        if laid_in is None or laid_out is None:
            continue
        binding = _Binding(sizes or {})
        for laid, shapes in ((laid_in, inputs), (laid_out, outputs)):
            for axes, shape in zip(laid, shapes, strict=False):
                if axes is not None and shape is not None:
                    _sizes_of(axes, shape, binding, pattern)
        built = _build(laid_in, laid_out, inputs, outputs, binding, reason, statistic, zero, macs, attributes or {})
        return replace(built, sums=sums, vacant=_vacant(left, inputs, built))
    met = ", ".join(map(str, inputs)) + " -> " + ", ".join(map(str, outputs))
    raise FitError(f"{pattern!r} does not fit shapes {met}")


def _lay(side: Side, shapes: Sequence[Shape | None]) -> list[list[tuple[str, ...]] | None] | None:
    laid: list[list[tuple[str, ...]] | None] = []
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


def _bare(word: str, binding: _Binding) -> str:
    mark = word[0] if word[0] in "!~+" else ""
    name = word[len(mark) :]
    if name.isdigit():
        mark, binding.sizes[name] = "!", int(name)
    if mark:
        binding.marks[name] = mark
    return name


def _sizes_of(axes: list[tuple[str, ...]], shape: Shape, binding: _Binding, text: str) -> None:
    for words, size in zip(axes, shape, strict=True):
        names = [_bare(w, binding) for w in words]
        unknown = [n for n in names if n not in binding.sizes]
        if len(names) == 1:
            if not names[0].isdigit() or size != 1:
                binding.size(names[0], size, text)
            continue
        if size == 1:  # it broadcasts
            for n in unknown:
                binding.size(n, 1, text)
            continue
        known = prod(binding.sizes[n] for n in names if n not in unknown)
        if len(unknown) > 1:
            raise FitError(f"{text}: the sizes of {unknown} in one axis are not known beforehand")
        if size % known or (not unknown and size != known):
            raise FitError(f"{text}: an axis of {size} is no product with {known}")
        if unknown:
            binding.size(unknown[0], size // known, text)


def _build(
    laid_in: list[list[tuple[str, ...]] | None],
    laid_out: list[list[tuple[str, ...]] | None],
    inputs: Sequence[Shape | None],
    outputs: Sequence[Shape | None],
    binding: _Binding,
    reason: str,
    statistic: str,
    zero: str,
    macs: str,
    attributes: Mapping[str, str],
) -> Relation:
    names = [n for n, size in binding.sizes.items() if size != 1 or any(n in a.split() for a in attributes.values())]
    place = {n: i for i, n in enumerate(names)}
    marks = binding.marks
    dims = tuple(
        Dim(
            n,
            binding.sizes[n],
            pinned=reason if marks.get(n) == "!" else None,
            statistic=statistic if marks.get(n) == "~" else None,
            summed=marks.get(n) == "+",
        )
        for n in names
    )

    def side(laid: list[list[tuple[str, ...]] | None], shapes: Sequence[Shape | None]) -> tuple[Axes | None, ...]:
        built: list[Axes | None] = []
        for axes, shape in zip(laid, shapes, strict=False):
            if axes is None or shape is None:
                built.append(None)
                continue
            maps = []
            for words, size in zip(axes, shape, strict=True):
                bare = [w.lstrip("!~+") for w in words]
                own = tuple(place[n] for n in bare if size != 1 and binding.sizes[n] != 1)
                maps.append(AxisMap(own))
            built.append(tuple(maps))
        return tuple(built)

    return Relation(
        dims,
        side(laid_in, inputs),
        side(laid_out, outputs),
        zero=zero,
        macs=_products(macs, names, place),
        attributes={a: tuple(place[w] for w in d.split()) for a, d in attributes.items()},
    )


def _vacant(side: Side, shapes: Sequence[Shape | None], relation: Relation) -> dict[int, Axes]:
    """The axes of inputs that are absent, where all their dims are known."""
    place = {dim.name: d for d, dim in enumerate(relation.dims) if dim.size != 1}
    found: dict[int, Axes] = {}
    for i, terms in enumerate(side):
        if terms is None or (i < len(shapes) and shapes[i] is not None) or any(t.variadic for t in terms):
            continue
        words = [[word.lstrip("!~+") for word in term.words] for term in terms]
        if not any(name.isdigit() for names in words for name in names):
            found[i] = tuple(AxisMap(tuple(place[n] for n in names if n in place)) for names in words)
    return found


def _products(text: str, names: list[str], place: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    found = []
    for product in filter(str.strip, text.split("+")):
        dims: list[int] = []
        for word in product.split():
            if word.startswith("*") or word == "...":
                stem = "b" if word == "..." else word[1:]
                dims += [place[n] for n in names if re.fullmatch(re.escape(stem) + r"\d+", n)]
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
