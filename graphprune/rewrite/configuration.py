"""Which fields of a model's configuration say the new widths, found by comparing sizes.

A configuration (the ``config.json`` of transformers, or any JSON like it) says sizes once for all layers: by themselves
(``hidden_size``), as products (``num_attention_heads * head_dim`` rows of a projection, two or three of them where
projections are joined) and as quotients (``hidden_size / num_attention_heads`` elements of a head). So each axis of a
tensor in the state dict, and each group of heads, is an equation between fields before, and is one after. Of all new
values that sizes before and after offer for the fields, those are taken that explain the most: first axes that
changed, then axes that did not, then heads; of these those by which a size is most often one field; and of these the
fewest changes. Fields of one size and one part in these equations cannot be told apart: they change together, and where
that leaves a size unexplained it is said. Nothing knows which model it is; of the names of fields only this is read:
whether they are about sizes at all, and whether they count heads or their elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import prod
from typing import Any

from graphprune.relation import Shape
from graphprune.rewrite.settings import HEADS, Count, Number
from graphprune.rewrite.statedict import Narrowed

Path = tuple[str | int, ...]
"""Keys and places of lists that lead to a field."""

_SIZE = re.compile(r"hidden|inter|inner|embd|embed|ffn|dim|head|width|channels|mlp|units|filters|expert|rank|^d_|_kv$")
_OTHER = re.compile(r"layers?$|vocab|position|token|patch|image|kernel|type|stride|_ids?$|labels|seq|max|window|depth")
_ELEMENTS = re.compile(r"head.*(dim|size|width)|(dim|size)_head|_kv$")
"""How many elements a head has."""
_TRIES = 20_000
"""So many combinations of new values are tried at most, for fields that hang together."""
_SHOWN = 5
_TIMES = 1, 2, 3
"""How many projections are joined in one tensor."""


@dataclass(frozen=True)
class Pair:
    """A size before and after, and where it is met."""

    before: int
    after: int
    where: str

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.where} stays {self.after}"
        return f"{self.where} is {self.after} now, was {self.before}"


@dataclass(frozen=True)
class Term:
    """A product of fields: ``times * (fields[0] + twice * fields[2]) * fields[1]``, or a quotient of the first two."""

    fields: tuple[Path, ...]
    times: int = 1
    quotient: bool = False

    def at(self, values: Mapping[Path, int]) -> int:
        """What it comes to; -1 where a quotient is not whole."""
        own = [values[f] for f in self.fields]
        if self.quotient:
            return own[0] // own[1] if own[1] and own[0] % own[1] == 0 else -1
        if len(own) == 3:  # queries, and fewer keys and values
            return (own[0] + 2 * own[2]) * own[1]
        return self.times * own[0] * (own[1] if len(own) == 2 else 1)


@dataclass
class Changed:
    """What a configuration says after removal.

    Attributes:
        fields: by dotted name the value before and after, of those that change.
        values: the fields at the top that change, whole.
        unexplained: sizes that changed and that no field says, each a line.
        notes: where sizes do not say enough, each a line.
    """

    fields: dict[str, tuple[float, float]]
    values: dict[str, Any]
    unexplained: list[str]
    notes: list[str]


def changed(config: Mapping[str, Any], found: Narrowed, counts: Sequence[Count], numbers: Sequence[Number]) -> Changed:
    """The fields of a configuration that change with the tensors of a state dict.

    Args:
        config: as JSON has it.
        found: the state dict, before and after.
        counts: groups before and after.
        numbers: settings before and after.
    """
    known = {path: value for path, value in _leaves(config) if type(value) is int and value > 0}
    sizes = {path: value for path, value in known.items() if _sizes(path)}
    problem = _Problem(known, sizes, _axes(found), _heads(counts))
    best = problem.best()
    changes: dict[Path, float] = {path: value for path, value in best.items() if value != known[path]}
    left = [str(pair) for pair in problem.unexplained(best)]
    notes = [*problem.ambiguous(best), *problem.notes]
    for path, value in _leaves(config):
        afters = {n.after for n in numbers if type(value) is float and _near(n.before, value)}
        if len(afters) == 1:
            changes[path] = float(f"{afters.pop():.6g}")
        elif afters:
            left.append(f"{_dotted(path)} is {' or '.join(f'{a:.6g}' for a in sorted(afters))} now, was {value:.6g}")
    values = dict(config)
    for path, new in changes.items():
        values[str(path[0])] = _with(values[str(path[0])], path[1:], new)
    before = dict(_leaves(config))
    return Changed(
        {_dotted(path): (before[path], new) for path, new in changes.items()},
        {str(path[0]): values[str(path[0])] for path in changes},
        left,
        notes,
    )


class _Problem:
    """Sizes before and after, and the fields that may say them."""

    def __init__(
        self, known: dict[Path, int], sizes: dict[Path, int], axes: list[Pair], heads: list[tuple[Pair, bool]]
    ) -> None:
        self.known, self.sizes = known, sizes
        self.notes: list[str] = []
        changed, same = ([p for p in axes if (p.before != p.after) == wanted] for wanted in (True, False))
        self.changed = [(p, self._terms(p.before)) for p in changed]
        self.same = [(p, terms) for p in same if (terms := self._terms(p.before, False))]
        every = [(p, self._head_terms(p.before, elements)) for p, elements in heads]
        self.heads = [(p, terms) for p, terms in every if terms or p.before != p.after]

    def best(self) -> dict[Path, int]:
        """The new values."""
        offers = self._offers()
        values = dict(self.known)
        for sets in self._apart([own for own in self._alike() if own[0] in offers]):
            choices = [offers[own[0]] for own in sets]
            if prod(map(len, choices)) <= _TRIES:
                values = self._least(values, sets, product(*choices))
                continue
            names = ", ".join(_dotted(path) for own in sets for path in own)
            self.notes.append(
                f"{names} hang together in {prod(map(len, choices))} ways, of which not all were tried: see whether "
                "these fields are right; --uniform-widths leaves fewer"
            )
            before = None
            while before != values:  # one after the other, as long as that explains more
                before = values
                for own, offered in zip(sets, choices, strict=True):
                    values = self._least(values, [own], ((value,) for value in offered))
        return values

    def ambiguous(self, values: Mapping[Path, int]) -> list[str]:
        """What is to be said of fields that cannot be told apart, where one value for all does not say every size."""
        left: dict[int, set[int]] = {}
        for pair in self.unexplained(values):
            left.setdefault(pair.before, set()).add(pair.after)
        found = []
        for own in self._alike():
            others = sorted(left.get(self.sizes[own[0]], ()))
            if len(own) > 1 and others:
                shown = [*map(str, others[:_SHOWN]), *["..."] * (len(others) > _SHOWN)]
                found.append(
                    f"{', '.join(map(_dotted, own))} were all {self.sizes[own[0]]} and get {values[own[0]]}; some of "
                    f"that size are {', '.join(shown)} now: which is which, sizes do not say"
                )
        return found

    def _alike(self) -> list[list[Path]]:
        """Fields of one size that every equation has in the same places."""
        found: dict[tuple[int, bool, bool], list[Path]] = {}
        for path, size in self.sizes.items():
            found.setdefault((size, _counts(path), _ELEMENTS.search(_name(path)) is not None), []).append(path)
        return list(found.values())

    def _apart(self, sets: list[list[Path]]) -> list[list[list[Path]]]:
        """Sets of fields, in parts that no equation joins: each is chosen for itself."""
        parts = [([own], {*own}) for own in sets]
        for _, terms in (*self.changed, *self.same, *self.heads):
            fields = {path for term in terms for path in term.fields}
            met = [part for part in parts if part[1] & fields]
            if len(met) > 1:
                joined = [own for part in met for own in part[0]], {path for part in met for path in part[1]}
                parts = [joined, *(part for part in parts if part not in met)]
        return [part for part, _ in parts]

    def _least(
        self, values: dict[Path, int], sets: list[list[Path]], tried: Iterable[tuple[int, ...]]
    ) -> dict[Path, int]:
        """The values with those of some sets of fields that cost least; as they are where none costs less."""
        found, least = values, self._cost(values)
        for new in tried:
            other = {**values, **{path: n for own, n in zip(sets, new, strict=True) for path in own}}
            cost = self._cost(other)
            if cost < least:
                found, least = other, cost
        return found

    def unexplained(self, values: Mapping[Path, int]) -> list[Pair]:
        """Sizes that the new values do not say: those that changed, and those that would change with a field."""
        return [p for p, terms in (*self.changed, *self.same) if not _met(p, terms, values)]

    def _cost(self, values: Mapping[Path, int]) -> tuple[int, ...]:
        missed = (sum(not _met(p, t, values) for p, t in kind) for kind in (self.changed, self.same, self.heads))
        moved = sum(values[f] != v for f, v in self.sizes.items())
        products = sum(not any(len(t.fields) == t.times == 1 and t.at(values) == p.after for t in own)
                       for p, own in self.changed)  # fmt: skip
        return *missed, products, moved

    def _terms(self, size: int, joined: bool = True) -> list[Term]:
        """Everything that says a size: numbers of any field, and products of sizes."""
        terms = [Term((f,)) for f, v in self.known.items() if v == size]
        heads = [(f, v) for f, v in self.sizes.items() if _counts(f)]
        widths = [(f, v) for f, v in self.sizes.items() if _ELEMENTS.search(_name(f))]
        for times in _TIMES if joined else _TIMES[:1]:
            terms += [Term((f,), times) for f, v in self.sizes.items() if times > 1 and times * v == size]
            terms += [Term((f, g), times) for f, v in heads for g, w in widths if times * v * w == size]
        if joined:
            pairs = permutations(heads, 2)
            terms += [Term((f, g, h)) for (f, v), (h, u) in pairs for g, w in widths if (v + 2 * u) * w == size]
        return terms

    def _head_terms(self, size: int, elements: bool) -> list[Term]:
        """Everything that says how many heads there are (or share keys), or how many elements one has."""
        heads = [(f, v) for f, v in self.sizes.items() if _counts(f)]
        own = [(f, v) for f, v in self.sizes.items() if _ELEMENTS.search(_name(f))]
        terms = [Term((f,)) for f, v in (own if elements else heads) if v == size]
        whole = heads
        if elements:  # hidden elements over heads, where no field says it
            whole = [] if own else [(f, v) for f, v in self.sizes.items() if not _counts(f)]
        return terms + [Term((f, g), quotient=True) for f, v in whole for g, w in heads if f != g and v == w * size]

    def _offers(self) -> dict[Path, list[int]]:
        """What each field could become: sizes after of what it says alone, or as a factor."""
        offers = {f: [v] for f, v in self.sizes.items()}
        every = [*self.changed, *self.heads]
        for pair, terms in every:
            for term in terms:
                if len(term.fields) == 1 and term.fields[0] in offers and pair.after % term.times == 0:
                    offers[term.fields[0]].append(pair.after // term.times)
        alone = {f: set(values) for f, values in offers.items()}
        for pair, terms in every:
            for term in (t for t in terms if len(t.fields) == 2):
                for one, other in (term.fields, term.fields[::-1]):
                    for value in alone[other]:
                        offers[one] += _factor(term, one, value, pair.after)
        found = {f: list(dict.fromkeys(n for n in values if 0 < n <= self.sizes[f])) for f, values in offers.items()}
        return {f: values for f, values in found.items() if len(values) > 1}


def _factor(term: Term, one: Path, other: int, after: int) -> list[int]:
    """What one field must be for a term to come to a size, with the other as it is given."""
    if term.quotient:
        if one == term.fields[0]:
            return [other * after]
        return [other // after] if other % after == 0 else []
    return [after // (term.times * other)] if after % (term.times * other) == 0 else []


def _met(pair: Pair, terms: Sequence[Term], values: Mapping[Path, int]) -> bool:
    return any(term.at(values) == pair.after for term in terms)


def _sizes(path: Path) -> bool:
    return _SIZE.search(_name(path)) is not None and _OTHER.search(_name(path)) is None


def _counts(path: Path) -> bool:
    """Whether a field says how many heads there are."""
    return "head" in _name(path) and _ELEMENTS.search(_name(path)) is None


def _name(path: Path) -> str:
    """The last key: of the places in a list that of the list."""
    return next(key for key in reversed(path) if isinstance(key, str))


def _axes(found: Narrowed) -> list[Pair]:
    """Sizes of all axes before and after, each once; positions of kernels say nothing."""
    pairs: dict[tuple[int, int], Pair] = {}
    for name, value in found.tensors.items():
        same: Shape = tuple(value.shape)
        for axis, (before, after) in enumerate(zip(*found.shapes.get(name, (same, same)), strict=True)):
            if before != after or (axis < 2 and before > 1):
                pairs.setdefault((before, after), Pair(before, after, f"axis {axis} of {name}"))
    return list(pairs.values())


def _heads(counts: Sequence[Count]) -> list[tuple[Pair, bool]]:
    """How many heads there are, or elements of one, before and after; and which of the two."""
    kinds = {(c.kind, c.before, c.after) for c in counts if c.kind in HEADS}
    moved = {(kind, before) for kind, before, after in kinds if before != after}
    return [
        (Pair(before, after, kind), kind == HEADS[1])
        for kind, before, after in sorted(kinds)
        if before != after or (kind, before) not in moved  # one that stays says nothing of others as large
    ]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Numbers and their paths, in order."""
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for key, own in inner:
        yield from _leaves(own, (*path, key))


def _with(value: Any, path: Path, new: float) -> Any:
    """A value with one number within it changed."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, Mapping) else list(value)
    copy[path[0]] = _with(copy[path[0]], path[1:], new)  # type: ignore[index]
    return copy


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _near(a: float, b: float) -> bool:
    """Whether a float32 and the number that it was written as are the same."""
    return abs(a - b) <= 1e-6 * abs(b)
