"""A plan carried over to the weights of the training code: the same elements removed from a state dict.

Exporters rename weights, transpose them, join them (queries, keys and values), split them, and fold batch
normalisation into convolutions. So tensors are matched by content: in stretches of rows along the first axis, as they
are or transposed, and for folded scales by the direction of each row. Where content says too little (a bias of zeros)
the name decides, and failing that the weight of the same module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.canonical import assemble
from graphprune.relation import IntArray, Shape, Values
from graphprune.rewrite import replay
from graphprune.rewrite.plan import Plan, Slice
from graphprune.rewrite.settings import numbers

Gone = dict[int, IntArray]
"""Removed elements by axis."""


@dataclass
class Narrowed:
    """A state dict after removal.

    Attributes:
        tensors: all of them, in their order; those that nothing is removed from are the same arrays.
        removed: by name, for each axis the removed elements.
        shapes: by name the shapes before and after, for tensors that changed.
        unmatched: tensors with no counterpart in the model, which stay as they are; single numbers are not listed.
        missing: constants of the model that lose elements and have no counterpart in the state dict.
        scaled: by name a factor by which what stays is multiplied.
        sources: by name the constants of the model that hold the same elements.
        notes: what the training code must know beyond widths.
    """

    tensors: dict[str, Values]
    removed: dict[str, Gone] = field(default_factory=dict)
    shapes: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    scaled: dict[str, float] = field(default_factory=dict)
    sources: dict[str, frozenset[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _View:
    """A constant of the model, as one use of it reads it, as rows.

    Attributes:
        source: name of the constant.
        rows: shape ``[rows, *row]``.
        gone: removed elements, of the rows (axis 0) and of the axes behind.
        scaled: factor by which what stays is multiplied.
    """

    source: str
    rows: Values
    gone: Gone
    scaled: float | None


def narrow(model: Model, plan: Plan, state: Mapping[str, Values]) -> Narrowed:
    """Remove from a state dict what a plan removes from a model.

    Args:
        model: the original that the plan was made for.
        plan: the plan.
        state: tensors by name.

    Raises:
        InputError: a tensor is found in places that lose different elements; says which. Or none is found at all.
    """
    if plan.blocks:
        raise InputError(
            f"{model.name}: the plan takes out whole blocks ({plan.blocks[0].id}, ...); take these layers out of the "
            "training code and its state dict first, and give a plan for what is left"
        )
    model = assemble(model)
    replay.check_slices(plan, model)
    matcher = _Matcher(model, plan, state)
    found = Narrowed(dict(state))
    for name in state:
        gone = matcher.removed(name)
        if gone is None:
            found.unmatched += [name] if state[name].ndim else []
        elif gone:
            _cut(found, name, gone, matcher.scales.get(name))
    if not found.shapes and any(s.removed for s in plan.slices):
        raise InputError(
            f"{model.name}: no tensor of the state dict equals a weight of the model that loses anything: was the "
            "model exported from these weights?"
        )
    met = {s.consumer for s in plan.slices if s.source in matcher.matched}  # beside a weight its bias may be folded
    found.missing = sorted({s.source for s in plan.slices if s.removed and s.consumer not in met} - matcher.matched)
    found.notes = replay.notes(plan, model)
    found.notes += [
        f"{a.name} of the node that makes {a.consumer!r} is {a.after} now, was {a.before}" for a in plan.attributes
    ]
    found.notes += [str(number) for number in numbers(model, plan)]
    found.scaled, found.sources = matcher.scales, matcher.sources
    return found


def losses(model: Model, plan: Plan, tensors: Mapping[str, Values]) -> tuple[Mapping[str, Gone | None], frozenset[str]]:
    """What each of some tensors loses by a plan, as :func:`narrow` finds it; None where it has no counterpart.

    And the constants of the model that were found again.
    """
    replay.check_slices(plan, model)
    matcher = _Matcher(model, plan, tensors)
    return matcher.known, frozenset(matcher.matched)


def _cut(found: Narrowed, name: str, gone: Gone, scaled: float | None) -> None:
    value = before = found.tensors[name]
    for axis, elements in gone.items():
        value = np.delete(value, elements, axis)
    if scaled is not None:
        value = (value * scaled).astype(before.dtype)
    found.tensors[name], found.removed[name] = value, gone
    found.shapes[name] = before.shape, value.shape


class _Matcher:
    """Finds for each tensor of a state dict what it loses."""

    def __init__(self, model: Model, plan: Plan, state: Mapping[str, Values]) -> None:
        self.state = state
        self.matched: set[str] = set()
        self.scales: dict[str, float] = {}
        self.sources: dict[str, frozenset[str]] = {}
        self.views = list(_views(model, plan))
        self.known: dict[str, Gone | None] = {}
        order = sorted(state, key=lambda n: -state[n].ndim)  # vectors say least, and follow the weights beside them
        for name in order:
            self.known[name] = self._find(name)
        for name in order:
            if self.known[name] is None:
                self.known[name] = self._folded(name)
        for name in order:
            if self.known[name] is None and state[name].ndim == 1:
                self.known[name] = self._beside(name)

    def removed(self, name: str) -> Gone | None:
        """What a tensor loses, by axis; None where it has no counterpart."""
        return self.known[name]

    def _find(self, name: str) -> Gone | None:
        value = self.state[name]
        if value.ndim == 0 or value.dtype.kind not in "fV":
            return None
        places = [p for p in (_place(value, view) for view in self.views) if p is not None]
        whole = [p for p in places if p.start == 0 and p.stop == len(value)]
        named = [p for p in whole if _alike(name, p.view.source)]
        if named or whole:
            return self._agreed(name, [[p] for p in named or whole])
        found = [_chain(places, len(value)), *(_runs(value, view) for view in self.views)]
        return self._agreed(name, [c for c in found if c][:1]) if any(found) else None

    def _agreed(self, name: str, choices: list[list[_Place]]) -> Gone | None:
        """What all places say that a tensor loses; None where vectors leave it open."""
        found = [_joined(places) for places in choices]
        if any(not _same(found[0], other) for other in found[1:]):
            beside = self._beside(name) if self.state[name].ndim == 1 else None
            match = [c for c, gone in zip(choices, found, strict=True) if beside is not None and _same(gone, beside)]
            if not match:
                if self.state[name].ndim == 1:
                    return None
                sources = sorted({p.view.source for places in choices for p in places})
                raise InputError(
                    f"{name!r} equals constants of the model that lose different elements ({', '.join(sources[:3])}); "
                    "export the model with the names of the training code, so that they can be told apart"
                )
            choices, found = match, [beside]
        if found[0] is None:
            return None
        self.sources[name] = frozenset(p.view.source for places in choices for p in places)
        self.matched |= self.sources[name]
        scales = {p.view.scaled for places in choices for p in places} - {None}
        if len(scales) == 1:
            self.scales[name] = float(next(iter(scales)) or 1.0)
        return found[0]

    def _beside(self, name: str) -> Gone | None:
        """What the rows of the weight of the same module lose."""
        weight = self.known.get(f"{name.rpartition('.')[0]}.weight")
        value = self.state[name]
        own = self.state.get(f"{name.rpartition('.')[0]}.weight")
        if weight is None or own is None or len(own) != len(value):
            return None
        return {0: weight[0]} if 0 in weight else {}

    def _folded(self, name: str) -> Gone | None:
        """A weight that normalisation was folded into: its rows have the same directions, and other lengths."""
        value = self.state[name]
        if value.ndim < 2 or value.dtype.kind != "f":
            return None
        for view in self.views:
            factors = _factors(value, view.rows)
            if factors is not None:
                self.matched.add(view.source)
                self.sources[name] = frozenset({view.source})
                self._norm(factors, view.gone.get(0))
                return view.gone
        return None

    def _norm(self, factors: Values, gone: IntArray | None) -> None:
        """The batch normalisation whose scale these factors are: all its vectors lose what the weight's rows lose."""
        for name, variance in self.state.items():
            stem = name.removesuffix("running_var")
            scale = self.state.get(f"{stem}weight")
            if stem == name or scale is None or scale.shape != factors.shape:
                continue
            made = scale / np.sqrt(variance + 1e-5)
            held = np.abs(made) > 1e-6
            if held.any() and np.allclose(factors[held] / made[held], 1, atol=0.02):
                for part in ("weight", "bias", "running_mean", "running_var"):
                    self.known[stem + part] = {} if gone is None else {0: gone}


@dataclass(frozen=True)
class _Place:
    """Rows ``start`` to ``stop`` of a tensor are rows of a view, from ``offset`` on."""

    start: int
    stop: int
    offset: int
    view: _View


def _views(model: Model, plan: Plan) -> Iterator[_View]:
    """Every constant of floats, as each of its uses reads it, as rows; matrices also transposed."""
    cut = {(s.consumer, s.input): s for s in plan.slices}
    slices: dict[str, list[Slice]] = {}
    direct = set()
    for name in model.sources:
        for use in model.uses.get(name, []):
            key = model.nodes[use.node].output[0], use.input
            direct.add(key)
            slices.setdefault(name, []).append(cut.get(key) or Slice(*key, name, name, {}))
    for entry in plan.slices:  # reached through nodes that pass constants on, which themselves lose nothing
        if (entry.consumer, entry.input) not in direct and entry.source in model.sources:
            slices[entry.source] = [s for s in slices.get(entry.source, []) if s.removed] + [entry]
    for name, entries in slices.items():
        source = model.sources[name]
        if source.kind == "fill" or not source.shape or prod(source.shape) < 2:
            continue
        value = model.array(name)
        if value.dtype.kind not in "fV":
            continue
        for one in {repr((sorted(e.removed.items()), e.scaled)): e for e in entries}.values():
            gone, scaled = {int(a): np.asarray(e) for a, e in one.removed.items()}, one.scaled
            yield from _as_rows(name, value, gone, scaled)


def _as_rows(name: str, value: Values, gone: Gone, scaled: float | None) -> Iterator[_View]:
    for lead in range(value.ndim):  # leading axes may stand for one
        shape = value.shape[: lead + 1]
        if lead and prod(shape[:-1]) > 2:  # more than the directions of a recurrent weight
            break
        marks = np.zeros(shape, bool)
        for axis in range(lead + 1):
            if axis in gone:
                marks[(slice(None),) * axis + (gone[axis],)] = True
        rows = np.flatnonzero(marks.reshape(-1))
        found = {a - lead: e for a, e in gone.items() if a > lead} | ({0: rows} if len(rows) else {})
        yield _View(name, value.reshape(-1, *value.shape[lead + 1 :]), found, scaled)
    if value.ndim == 2:
        yield _View(name, value.T, {1 - a: e for a, e in gone.items()}, scaled)
    wide = [a for a, size in enumerate(value.shape) if size > 1]
    if 0 < len(wide) < value.ndim:  # slopes of channels that were given axes of one to broadcast along
        bare = value.reshape([value.shape[a] for a in wide])
        yield from _as_rows(name, bare, {wide.index(a): e for a, e in gone.items()}, scaled)


def _place(value: Values, view: _View) -> _Place | None:
    """The longest stretch of a tensor's rows that a view holds, None where it has none that count."""
    rows = view.rows
    if value.shape[1:] != rows.shape[1:]:
        return None
    if value.dtype != rows.dtype:
        value = value.astype(rows.dtype)
    if len(value) <= len(rows):
        for offset in _starts(rows, value[0], len(value)):
            if np.array_equal(rows[offset : offset + len(value)], value):
                return _Place(0, len(value), int(offset), view)
        return None
    for start in _starts(value, rows[0], len(rows)):
        if np.array_equal(value[start : start + len(rows)], rows):
            return _Place(int(start), int(start) + len(rows), 0, view)
    return None


def _runs(value: Values, view: _View) -> list[_Place]:
    """Stretches of a view, in another order, that make up a tensor (recurrent gates); empty where none do."""
    rows = view.rows
    if value.shape[1:] != rows.shape[1:] or len(value) > len(rows) or not value.any():
        return []
    value = value.astype(rows.dtype)
    found: list[_Place] = []
    at = 0
    while at < len(value) and len(found) < _MOST_RUNS:
        best = _Place(at, at, 0, view)
        for offset in _starts(rows, value[at], 1)[:_MOST_RUNS]:
            length = min(len(value) - at, len(rows) - int(offset))
            same = (rows[offset : offset + length] == value[at : at + length]).reshape(length, -1).all(1)
            reach = length if same.all() else int(same.argmin())
            if reach > best.stop - at:
                best = _Place(at, at + reach, int(offset), view)
        if best.stop == at:
            return []
        found.append(best)
        at = best.stop
    return found if at == len(value) else []


_MOST_RUNS = 16
"""Stretches of one tensor; recurrent operators have four gates at most."""


def _starts(rows: Values, first: Values, length: int) -> IntArray:
    """Where in some rows a stretch could start: the first number of its first row is found there."""
    heads = rows[: len(rows) - length + 1].reshape(len(rows) - length + 1, -1)[:, 0]
    return np.flatnonzero(heads == first.reshape(-1)[0])


def _chain(places: list[_Place], length: int) -> list[_Place]:
    """Places that cover all rows of a tensor, one behind the other; empty where there are none."""
    by_start: dict[int, _Place] = {}
    for place in places:
        if place.start not in by_start or place.stop > by_start[place.start].stop:
            by_start[place.start] = place
    found, at = [], 0
    while at < length:
        if at not in by_start:
            return []
        found.append(by_start[at])
        at = by_start[at].stop
    return found


def _joined(places: list[_Place]) -> Gone | None:
    """What a tensor loses that is made of stretches of views; all must lose the same behind the first axis."""
    rows = []
    behind = {a: e for a, e in places[0].view.gone.items() if a}
    for place in places:
        own = place.view.gone.get(0, np.zeros(0, int))
        shifted = own - place.offset + place.start
        rows.append(shifted[(shifted >= place.start) & (shifted < place.stop)])
        if not _same({a: e for a, e in place.view.gone.items() if a}, behind):
            return None
    first = np.concatenate(rows)
    return ({0: first} if len(first) else {}) | behind


def _same(a: Gone | None, b: Gone | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def _alike(name: str, source: str) -> bool:
    """Whether the name of a tensor and that of a constant differ in a prefix only."""
    return source == name or source.endswith(f".{name}") or name.endswith(f".{source}")


def _factors(value: Values, rows: Values) -> Values | None:
    """By what each row of a tensor is multiplied in a view of the same shape; None where directions differ."""
    if value.shape != rows.shape:
        return None
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (value, rows))
    if not _parallel(a[:1], b[:1]) or not _parallel(a, b):
        return None
    return np.einsum("ij,ij->i", a, b) / np.maximum(np.einsum("ij,ij->i", a, a), 1e-30)


def _parallel(a: Values, b: Values) -> bool:
    inner = np.abs(np.einsum("ij,ij->i", a, b))
    lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    return bool((inner >= (1 - 1e-6) * lengths - 1e-30).all() and a.any() and b.any())
