"""Values of a pruned model for another file of the same network, that was pruned by the same plan.

A plan says what goes; a fit, a distillation and a mask change what stays, and stand in the pruned model alone. Weights
of both files are matched by what they held before anything was cut, as they are or turned. A fit may have added a bias
to a product that had none: the other file's products get what is added to those with the same weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np

from graphprune.analysis import Analysis, analyze
from graphprune.analysis.products import Product, find_products
from graphprune.errors import InputError
from graphprune.model import Model, node_name
from graphprune.model.canonical import canonicalize
from graphprune.model.editor import Editor
from graphprune.relation import Values
from graphprune.rewrite.plan import Plan
from graphprune.rules.floating import FLOATS
from graphprune.run.calibration import still

Removed = tuple[tuple[int, tuple[int, ...]], ...]
"""Removed elements by axis."""
Contents = dict[bytes, list[tuple[str, bool]]]
"""Constants by a digest of what they hold, and whether it is theirs turned."""


@dataclass
class Carried:
    """What was taken over.

    Attributes:
        model: with the values of the other pruned model.
        count: how many weights and biases changed.
        left: weights that the first result changed, which have no equal here.
        entries: what the plan is to say of weights that were fitted.
    """

    model: Model
    count: int = 0
    left: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Version:
    """A constant of a pruned model: ``result`` is what stays of ``source`` without ``removed``."""

    source: str
    removed: Removed
    result: str


def carry(plan: Plan, first: Model, fitted: Model, analysis: Analysis, pruned: Model, made: Plan) -> Carried:
    """Give a pruned file the values of another pruned file.

    Args:
        plan: of the first file.
        first: the first file.
        fitted: its pruned model.
        analysis: of the other file.
        pruned: the other file, pruned.
        made: its plan.

    Raises:
        InputError: what is said to be the pruned model is not what the plan comes to.
    """
    witness = {name: tuple(sizes) for name, sizes in plan.model["witness"].items()}
    theirs = analyze(fitted, still(witness, fitted), allow_io=True)  # of its own: a fit may have put nodes in
    whole, held, now = canonicalize(first), theirs.model, _workable(pruned)
    there = {(v.source, v.removed): v.result for v in _versions(whole, plan)}
    known = _contents(whole)
    editor, taken, count = Editor(now), dict[str, str](), 0
    for version in _versions(analysis.model, made):
        result = _counterpart(known, there, held, analysis.model.array(version.source), version)
        if result is None or version.result not in now.sources:
            continue
        taken[version.result], turned = result
        value = _value(now, version.result, held.array(taken[version.result]), turned, fitted)
        count += value is not None and _written(editor, version.result, value)
    model = _workable(editor.finish())
    by_weight = {p.weight: p for p in find_products(held, theirs.rulings, shared=True)}
    products = find_products(model, analysis.rulings, shared=True)
    ours = [(p, taken[p.weight]) for p in products if taken.get(p.weight) in by_weight]
    model, added = _biases(model, held, [(p, by_weight[source]) for p, source in ours])
    left = _left(there, held, whole, set(taken.values()))
    return Carried(model, count + added, left, _entries(plan, analysis.model, ours))


def _counterpart(
    known: Contents, there: Mapping[tuple[str, Removed], str], held: Model, value: Values, version: _Version
) -> tuple[str, bool] | None:
    """The constant of the other pruned model that a version is, and whether it is turned; None where it is not told."""
    found = []
    for source, turned in known.get(_digest(value), ()):
        result = there.get((source, _turned(version.removed) if turned else version.removed))
        if result is not None and result in held.sources:
            if source == version.source:
                return result, turned
            found.append((result, turned))
    if not found:
        return None
    first = held.array(found[0][0])
    same = all(turned == found[0][1] and np.array_equal(held.array(result), first) for result, turned in found[1:])
    return found[0] if same else None


def _written(editor: Editor, name: str, value: Values) -> bool:
    """Give a constant another value; True."""
    if editor.outside(name):
        editor.replace_later(name, lambda: value)
        return True
    return editor.replace(name, value)


def _workable(model: Model) -> Model:
    """The model, or where it has control flow its canonical form: what bodies hold can be changed there."""
    laid = canonicalize(model)
    return model if laid.layout is None else laid


def _versions(model: Model, plan: Plan) -> Iterator[_Version]:
    """What became of every constant of floats that is more than one number."""
    own: dict[str, dict[Removed, str]] = {}
    for entry in plan.slices:
        gone = sorted((int(axis), tuple(elements)) for axis, elements in entry.removed.items() if elements)
        own.setdefault(entry.source, {})[tuple(gone)] = entry.result
    for name in _held(model):
        cut = own.get(name, {})
        whole: dict[Removed, str] = {} if name in cut.values() else {(): name}  # else it was cut in its place
        for removed, result in {**whole, **cut}.items():
            yield _Version(name, removed, result)


def _held(model: Model) -> list[str]:
    """Constants of floats that are more than one number."""
    return [n for n, s in model.sources.items() if prod(s.shape) > 1 and s.kind != "fill" and s.dtype in FLOATS]


def _turned(removed: Removed) -> Removed:
    return tuple(sorted((1 - axis, elements) for axis, elements in removed))


def _contents(model: Model) -> Contents:
    """Constants by what they hold, matrices turned as well."""
    found: Contents = {}
    for name in _held(model):
        value = model.array(name)
        found.setdefault(_digest(value), []).append((name, False))
        if value.ndim == 2:
            found.setdefault(_digest(value.T), []).append((name, True))
    return found


def _digest(value: Values) -> bytes:
    digest = blake2b(f"{value.shape} {value.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


def _value(now: Model, name: str, value: Values, turned: bool, fitted: Model) -> Values | None:
    """What a constant is to hold; None where it does."""
    before, value = now.array(name), value.T if turned else value
    if before.shape != value.shape or before.dtype != value.dtype:
        raise InputError(
            f"{fitted.name}: it is not what the plan comes to: {name!r} is {before.dtype} {list(before.shape)}, and "
            f"{value.dtype} {list(value.shape)} there"
        )
    return None if np.array_equal(before, value) else value


def _biases(model: Model, held: Model, pairs: list[tuple[Product, Product]]) -> tuple[Model, int]:
    """The model with what is added to the products of the other, and how many differed."""
    editor, count = Editor(model), 0
    for ours, theirs in pairs:
        wanted, before = theirs.added(held), ours.added(model)
        if wanted is None:
            continue
        change = wanted if before is None else wanted - before
        if (change != 0).any():
            ours.shift(editor, model, change)
            count += 1
    return (editor.finish() if count else model), count


def _entries(plan: Plan, model: Model, ours: Sequence[tuple[Product, str]]) -> list[dict[str, Any]]:
    """What the first plan says of fitted weights, by the nodes of the other file and the names of its weights."""
    told = {entry.get("weight"): entry for entry in plan.compensated}
    places = {n.output[0]: k for k, n in enumerate(model.nodes) if n.output}
    return [
        {**told[source], "node": node_name(model, places[product.output]), "weight": product.weight}
        for product, source in ours
        if source in told and product.output in places
    ]


def _left(there: Mapping[tuple[str, Removed], str], held: Model, whole: Model, taken: set[str]) -> list[str]:
    """Constants that the first result changed beyond cutting, and that nothing here was given."""
    found = []
    for (source, removed), result in there.items():
        if result in taken or result not in held.sources:
            continue
        value = whole.array(source)
        for axis, elements in removed:
            value = np.delete(value, elements, axis)
        if value.shape == held.array(result).shape and not np.array_equal(value, held.array(result)):
            found.append(result)
    return found
