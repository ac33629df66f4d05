"""Sizes that a model accepts: which of its dims are free, and what is tried for them, the likeliest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run.first import attempt
from graphprune.run.runtime import RefusedError, generate

InputShapes = dict[str, Shape]
_BATCH = ((3, 5), (5, 7), (7, 11), (11, 13))
_SIZES = ((17, 23), (29, 41), (37, 47), (43, 61), (53, 73), (59, 97), (67, 101), (71, 103), (79, 107), (83, 109))
"""Odd primes for the first and the second witness: small ones for leading axes, where batches are, larger elsewhere."""
_COMMON = (
    ((64, 96), (96, 128)),
    ((32, 100), (32, 160)),
    ((48, 320), (48, 192)),
    ((224, 224), (256, 256)),
    ((48, 192), (48, 320)),
    ((80, 160), (80, 160)),
    ((256, 256), (320, 320)),
    ((299, 299), (299, 299)),
    ((640, 640), (640, 640)),
)
"""Heights and widths that models from the wild accept, tried in turn where free image sizes refuse primes."""


def free_dims(model: Model) -> dict[str, list[int | str]]:
    """For each input its dims: a size, or a name where the size is free.

    Files from the wild give free dims as a name, as nothing, as 0 or as -1; the last three get a name of their own.
    """
    found: dict[str, list[int | str]] = {}
    for value in model.inputs:
        if not value.type.HasField("tensor_type"):
            continue  # a sequence or a map: what reads it is pinned
        dims: list[int | str] = []
        for a, dim in enumerate(value.type.tensor_type.shape.dim):
            named = dim.dim_param if dim.dim_param not in ("", "?") else f"{value.name}.{a}"
            dims.append(dim.dim_value if dim.dim_value > 0 else named)
        found[value.name] = dims
    return found


def alternatives(model: Model, given: Mapping[str, Shape] | None = None) -> Iterator[InputShapes]:
    """Input shapes that the model may accept, the likeliest first: for runs where those of the witness fail."""
    for pair in candidates(free_dims(model), dict(given or {})):
        yield from pair


def accepted(model: Model, given: Mapping[str, Shape] | None = None, seed: int = 0) -> Iterator[dict[str, Values]]:
    """Generated inputs that a model runs on, the likeliest sizes first.

    Raises:
        InputError: it runs on none; says why it refused the first.
    """
    refused: InputError | None = None
    found = False
    for number, sizes in enumerate(alternatives(model, given)):
        feeds = generate(model, sizes, seed + number)
        error = attempt(model, feeds)
        if isinstance(error, RefusedError):
            raise error
        if error is not None:
            refused = refused or error
            continue
        found = True
        yield feeds
    if not found:
        raise InputError(f"{model.name}: {refused}; give sizes that it accepts by --input-shape")


def edges(model: Model, usual: Mapping[str, Shape], grown: Mapping[str, Sequence[int]]) -> list[InputShapes]:
    """Sizes at which a model with a state that grows begins, and goes on: no past with all the rest, one with a past.

    Args:
        model: the model.
        usual: sizes that it runs at.
        grown: inputs that hold such a state, with the axes that grow.
    """
    dims = free_dims(model)
    sizes = {d: s for n, ds in dims.items() for d, s in zip(ds, usual.get(n, ()), strict=False) if isinstance(d, str)}
    past = {dims[n][a] for n, axes in grown.items() if n in dims for a in axes if isinstance(dims[n][a], str)}
    fresh = {d for n, ds in dims.items() if n not in grown for d in ds[1:] if isinstance(d, str)} - past
    composed = _composed(dims)
    found = []
    for changed, size in ((past, 0), (fresh - composed.keys(), 1)):
        plan = {d: (size if d in changed else s,) * 2 for d, s in sizes.items()}
        laid = _laid(dims, {}, _summed(plan, composed), 0)
        if past and changed and laid != usual:
            found.append(laid)
    return found


def _composed(dims: Mapping[str, Sequence[int | str]]) -> dict[str, list[str]]:
    """Free sizes that are sums of others and of numbers, as ``past + sequence``, with what they are sums of."""
    names = {d for ds in dims.values() for d in ds if isinstance(d, str)}
    parts = {name: [part.strip() for part in name.split("+")] for name in names}
    return {n: own for n, own in parts.items() if len(own) > 1 and all(p in names or p.isdecimal() for p in own)}


def _summed(plan: Mapping[str, tuple[int, int]], composed: Mapping[str, list[str]]) -> dict[str, tuple[int, int]]:
    """A plan of sizes with those that are sums of others."""
    found = dict(plan)
    for name, parts in composed.items():
        own = [(int(part),) * 2 if part.isdecimal() else plan[part] for part in parts]
        found[name] = sum(first for first, _ in own), sum(second for _, second in own)
    return found


def check_given(model: Model, dims: dict[str, list[int | str]], given: Mapping[str, Shape]) -> None:
    """Raise InputError where a size is given for no input, or for a dim that is fixed to another."""
    for name, shape in given.items():
        if name not in dims:
            raise InputError(f"{model.name}: --input-shape names {name!r}, but its inputs are {', '.join(dims)}")
        declared = dims[name]
        fits = len(declared) == len(shape) and all(
            isinstance(d, str) or d == s for d, s in zip(declared, shape, strict=False)
        )
        if declared and not fits:
            raise InputError(f"{model.name}: input {name!r} is {declared}, which {shape} does not fit")


def candidates(dims: dict[str, list[int | str]], given: InputShapes) -> Iterator[tuple[InputShapes, InputShapes]]:
    """Pairs of input shapes to try, the likeliest first: a second one beside each, with every free size changed."""
    names = list(dict.fromkeys(d for n, ds in dims.items() if n not in given for d in ds if isinstance(d, str)))
    composed = _composed(dims)
    sized = (pair for n, shape in given.items() for pair in zip(dims.get(n, ()), shape, strict=False))
    fixed = {d: (size, size * 2) for d, size in sized if isinstance(d, str)}
    names = [n for n in names if n not in composed]
    taken = {d for ds in dims.values() for d in ds if isinstance(d, int)}
    leading = [n for n in names if any(ds and ds[0] == n for ds in dims.values())]
    plans: list[dict[str, tuple[int, int]]] = [{}]
    others = [n for n in names if n not in leading]
    for chosen, primes in ((leading, _BATCH), (others, _SIZES)):
        free = [pair for pair in primes if not taken & set(pair)] or list(primes)
        plans[0].update(zip(chosen, itertools.cycle(free), strict=False))
    images = [ds for n, ds in dims.items() if n not in given and len(ds) == 4]
    for (h, w), (h2, w2) in _COMMON if images else ():
        plan = dict(plans[0])
        for ds in images:
            spatial = [d for d in ds[1:] if isinstance(d, str)][-2:]
            channels = [d for d in ds[1:] if isinstance(d, str)][:-2]
            plan.update(dict.fromkeys(channels, (3, 3)))
            # a lone free dim of a pair is the width where the height is given, and the other way round
            sizes = [(h, h2), (w, w2)][-len(spatial) :]
            plan.update(zip(spatial, sizes, strict=False))
        plans.append(plan)
    plans.append(dict.fromkeys(names, (1, 2)))
    for plan in plans:
        whole = _summed({**fixed, **plan}, composed)
        yield _laid(dims, given, whole, 0), _laid(dims, given, whole, 1)


def _laid(
    dims: dict[str, list[int | str]], given: InputShapes, plan: Mapping[str, tuple[int, int]], which: int
) -> InputShapes:
    """Input shapes by a plan of sizes; of given ones the free dims double at the second witness."""
    found: InputShapes = {}
    for name, declared in dims.items():
        if name not in given:
            found[name] = tuple(d if isinstance(d, int) else plan[d][which] for d in declared)
            continue
        free = [isinstance(d, str) for d in declared] or [False] * len(given[name])
        found[name] = tuple(s * 2 if which and f else s for s, f in zip(given[name], free, strict=True))
    return found
