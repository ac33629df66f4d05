"""Sparse by magnitude: the smallest weights go, in every block of a pattern, or one by one.

- In blocks: those that the pattern lets stay (see ``graphprune.analysis.patterns``).
- One by one: LAMP (Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, ICLR 2021) sets the share of
  each layer: a weight scores its square beside the sum of the squares of all in its layer that are no smaller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from graphprune.analysis import sparsity
from graphprune.analysis.patterns import Mask, Pattern, Unstructured
from graphprune.analysis.sparsity import Layer
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.canonical import canonicalize
from graphprune.model.editor import Editor
from graphprune.passes.sparse.masks import BY_GRADIENTS
from graphprune.passes.sparse.targets import Target
from graphprune.relation import Values

Weigh = Callable[[Layer, Values], Values]
"""What a weight as its node reads it is worth, from its magnitudes."""


@dataclass(frozen=True)
class Thinned:
    """A weight that has become sparse.

    Attributes:
        target: the weight and what reads it.
        kept_magnitude: share of its magnitude that stayed, before anything was fitted.
        kept: share of its elements that stayed.
        method: by which it was chosen what stays.
    """

    target: Target
    kept_magnitude: float
    kept: float
    method: str = "magnitude"


def mask(
    model: Model,
    flat: Model,
    targets: Sequence[Target],
    pattern: Pattern,
    weigh: Weigh | None = None,
    method: str = "magnitude",
) -> tuple[Model, list[Thinned]]:
    """Set the smallest weights to zero.

    Args:
        model: the model; it is not changed.
        flat: the same in canonical form.
        targets: the weights.
        pattern: the pattern; of single weights by magnitude each layer has a share of its own.
        weigh: what else a weight is worth than its magnitude.
        method: what this is; by gradients layers compete, and each has a share of its own.
    """
    counts: Mapping[str, int] = {}
    if isinstance(pattern, Unstructured) and (weigh is None or method in BY_GRADIENTS):
        counts = _adaptive(flat, targets, pattern.amount, weigh)
    base = model if all(t.weight in model.sources for t in targets) else flat
    editor, found = Editor(base), []

    def one(target: Target) -> tuple[Thinned, Callable[[], Values]]:
        choice = partial(_gone, target=target, pattern=pattern, count=counts.get(target.weight), weigh=weigh)
        real = sparsity.real(flat, target.layers[0])
        gone = choice(real)
        thinned = Thinned(target, share(real, gone), 1 - np.count_nonzero(gone) / gone.size, method)
        if editor.outside(target.weight):  # written one at a time, and not held until then
            return thinned, partial(_again, flat, target, choice)
        value = _written(flat, target, gone)
        return thinned, lambda: value

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for thinned, value in pool.map(one, targets):
            found.append(thinned)
            if editor.outside(thinned.target.weight):
                editor.replace_later(thinned.target.weight, value)
            else:
                editor.replace(thinned.target.weight, value())
    return editor.finish(), found


def rewound(model: Model, first: Model, targets: Sequence[Target]) -> Model:
    """Another model with the zeros of this one, and all else as it is there: values before anything was fitted.

    Weights that win the lottery start where they started (Frankle and Carbin, ICLR 2019; Renda, Frankle and Carbin,
    ICLR 2020); what is trained here is the original, so that is where they go back to.

    Args:
        model: the model whose zeros stay.
        first: the same before weights were fitted.
        targets: the sparse weights.

    Raises:
        InputError: the other model has no such weights.
    """
    flat, editor = canonicalize(model), Editor(first)
    for target in targets:
        source, now = first.sources.get(target.weight), flat.sources.get(target.weight)
        if source is None or now is None or source.shape != now.shape:
            raise InputError(
                f"{model.name}: weight {target.weight!r} cannot go back to what it was: leave out --rewind"
            )
        gone = sparsity.real(flat, target.layers[0]) == 0
        editor.replace(target.weight, _written(first, target, gone))
    return editor.finish()


def beside(first: Model, made: Model, thinned: Sequence[Thinned]) -> list[Thinned]:
    """Sparse weights with the share that stayed of the magnitude that they had before the first of several rounds."""
    before, after = canonicalize(first), canonicalize(made)

    def one(entry: Thinned) -> Thinned:
        layer = entry.target.layers[0]
        if entry.target.weight not in before.sources:
            return entry
        real, now = sparsity.real(before, layer), sparsity.real(after, layer)
        return replace(entry, kept_magnitude=share(real, now == 0)) if real.shape == now.shape else entry

    return [one(entry) for entry in thinned]


def share(real: Values, gone: Mask) -> float:
    """The share of a magnitude that stays."""
    whole, kept = float(real.sum(dtype=np.float64)), float((real * ~gone).sum(dtype=np.float64))
    return kept / whole if whole > 0 else 1.0


def _gone(real: Values, target: Target, pattern: Pattern, count: int | None, weigh: Weigh | None) -> Mask:
    scores = _scores(real, target, weigh)
    if count is None:
        return ~pattern.kept(scores, target.layers[0].axis or 0)
    found = np.zeros(real.size, bool)
    found[np.argpartition(scores.reshape(-1), count - 1)[:count] if count else []] = True
    return found.reshape(real.shape)


def _scores(real: Values, target: Target, weigh: Weigh | None) -> Values:
    """What weights are worth, by their magnitudes, to all that reads them."""
    return real if weigh is None else np.asarray(np.sum([weigh(layer, real) for layer in target.layers], axis=0))


def _again(model: Model, target: Target, choice: partial[Mask]) -> Values:
    return _written(model, target, choice(sparsity.real(model, target.layers[0])))


def _written(model: Model, target: Target, gone: Mask) -> Values:
    origin = target.layers[0].origin
    assert origin is not None
    return origin.write(model.array(target.weight), gone)


def _adaptive(model: Model, targets: Sequence[Target], amount: float, weigh: Weigh | None = None) -> Mapping[str, int]:
    """How many elements of each weight go: by LAMP, or those of all that are worth least."""
    scores: dict[str, npt.NDArray[np.float32]] = {}
    for target in targets:
        own = np.sort(_scores(sparsity.real(model, target.layers[0]), target, weigh).reshape(-1))
        if weigh is None:
            squares = own.astype(np.float64) ** 2
            above = np.cumsum(squares[::-1])[::-1]
            own = squares / np.maximum(above, 1e-300)
        scores[target.weight] = own.astype(np.float32)
    every = np.concatenate(list(scores.values()))
    count = int(amount * len(every))
    if not count:
        return dict.fromkeys(scores, 0)
    limit = np.partition(every, count - 1)[count - 1]
    return {name: int(np.searchsorted(own, limit, "right")) for name, own in scores.items()}
