"""The notation of relations: one line an operator.

``n (g i) !*x, (g o) i !*k, (g o) -> n (g o) !*y`` reads: three inputs, one output; a word is an axis and the local
dim that it belongs to; brackets make one axis of several dims, row-major; ``*x`` stands for as many axes as are left,
each a dim of its own (``x0``, ``x1``, ...); ``...`` is the same, right-aligned and broadcast as numpy does; a number
is a pinned dim of that size; ``1`` is an axis without a dim; ``_`` an input that takes no part.

Marks before a word: ``!`` pinned (no element can be removed), ``~`` a mean and a variance run over the dim, ``+`` a
sum does, ``?`` a choice is made along it by what stands at its elements (a softmax, a top-k).
``|`` separates alternatives; the first whose ranks fit is taken.

Axes of size 1 belong to no dim: nothing can be removed from them, and they broadcast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from graphprune.relation.errors import NotationError
from graphprune.relation.zero import Sum, Zero


@dataclass(frozen=True, slots=True)
class Term:
    """One axis of a pattern: its words, or a variadic word."""

    words: tuple[str, ...]
    variadic: bool = False


Side = tuple[tuple[Term, ...] | None, ...]

_TOKEN = re.compile(r"\s*(\.\.\.|[!~+?]?\*?[A-Za-z0-9]+|[()])")


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


@dataclass(frozen=True, slots=True)
class Line:
    """A pattern, and what is said beside it.

    Attributes:
        pattern: see the module's docstring.
        zero, sums: as in ``Relation``, in the notation of ``graphprune.relation.zero``.
        macs: sums of products of dims, ``"n g i o *k *y"``.
    """

    pattern: str
    zero: str = ""
    sums: str = ""
    macs: str = ""


@cache
def read(line: Line) -> tuple[tuple[Side, Side], ...]:
    """Read a line; the first reading is kept.

    Returns:
        The pattern's alternatives, as :func:`parse` gives them.

    Raises:
        NotationError: a part of it cannot be read, or speaks of an input or a dim that the pattern does not have.
    """
    alternatives = parse(line.pattern)
    count = max(len(left) for left, _ in alternatives)
    for own in (*Zero.parse(line.zero).sums, Sum.parse(line.sums)):
        for number in own.inputs:
            if number >= count:
                raise NotationError(f"{str(own)!r} speaks of input {number}, and {line.pattern!r} has {count}")
    terms = {term for sides in alternatives for side in sides for one in side for term in one or ()}
    words = {bare(word) for term in terms for word in term.words if not term.variadic}
    words |= {"..." if term.words == ("...",) else f"*{bare(term.words[0])}" for term in terms if term.variadic}
    for word in line.macs.replace("+", " ").split():
        if word not in words:
            raise NotationError(f"{line.macs!r} speaks of dim {word!r}, which {line.pattern!r} does not have")
    return alternatives


def bare(word: str) -> str:
    """A word without its mark."""
    return word.lstrip("!~+?")
