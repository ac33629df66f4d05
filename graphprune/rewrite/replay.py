"""What a plan asks of a model, checked before any of it is done.

A plan is a file that people edit, and that may be of another model. What does not fit is named by the plan's file and
the entry in it; nothing is allocated by a size that only the plan knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from graphprune.analysis import Analysis, patterns
from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.rewrite import bypass
from graphprune.rewrite.plan import GroupPlan, Plan
from graphprune.run.sizing import free_dims

_MOST_ELEMENTS = 1 << 31
"""Of an input at the witness: a run holds some of them at once."""


@contextmanager
def naming(plan: Plan, place: str = "") -> Iterator[None]:
    """Put the plan's name before what is wrong, whatever finds it."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(str(plan.where)):
            raise
        raise InputError(f"{plan.where}: {place}{error}") from error


def _refused(plan: Plan, model: Model, entry: str, why: str) -> InputError:
    return InputError(f"{plan.where}: does not fit {model.name}: at {entry}: {why}")


def check_inputs(plan: Plan, model: Model) -> None:
    """Raise InputError where the witness of a plan names no input of the model, or a shape that it does not take."""
    declared = free_dims(model)
    for name, shape in plan.model["witness"].items():
        entry = f"model/witness/{name}"
        if name not in declared:
            raise _refused(plan, model, entry, f"the model has no such input; it has {', '.join(declared)}")
        dims = declared[name]
        if dims and not _takes(dims, shape):
            raise _refused(plan, model, entry, f"{_shown(shape)} is no shape of the input, which is {_shown(dims)}")
        if prod(shape) > _MOST_ELEMENTS:
            raise _refused(plan, model, entry, f"{_shown(shape)} is too large to run the model at")


def _takes(dims: Sequence[int | str], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(isinstance(d, str) or d == s for d, s in zip(dims, shape, strict=True))


def check_blocks(plan: Plan, analysis: Analysis) -> None:
    """Raise InputError where a block of a plan cannot be taken out of the model."""
    for number in range(len(plan.blocks)):
        with naming(plan, f"at blocks/{number}: "):
            bypass.check_entries(analysis, plan.blocks[: number + 1])


def check_groups(plan: Plan, analysis: Analysis) -> None:
    """Raise InputError where a group of a plan is not one of the model, or names classes that it has not.

    Args:
        plan: the plan.
        analysis: of the model without the plan's blocks.
    """
    often = Counter(g.id for g in plan.groups)
    for number, entry in enumerate(plan.groups):
        group, place = analysis.group(entry.id), f"groups/{number}"
        if group is None:
            why = f"group {entry.id!r} is not in the model; for another file of the same network give --original"
            raise _refused(plan, analysis.model, place, why)
        if often[entry.id] > 1:
            raise _refused(plan, analysis.model, place, f"group {entry.id!r} stands there {often[entry.id]} times")
        if group.size != entry.size:
            why = f"group {entry.id!r} has {group.size} classes, not {entry.size}"
            raise _refused(plan, analysis.model, f"{place}/size", why)
        _check_classes(plan, analysis.model, place, entry)


def _check_classes(plan: Plan, model: Model, place: str, entry: GroupPlan) -> None:
    for name, classes in (("removed", entry.removed), ("order", entry.order or ())):
        wrong = _outside(classes, entry.size)
        if wrong is not None:
            why = f"group {entry.id!r} has classes 0 to {entry.size - 1}, not {wrong}"
            raise _refused(plan, model, f"{place}/{name}", why)
        if len(set(classes)) < len(classes):
            raise _refused(plan, model, f"{place}/{name}", f"a class of group {entry.id!r} stands there twice")
    if entry.score is not None and len(entry.score) != entry.size:
        why = f"{len(entry.score)} scores for the {entry.size} classes of group {entry.id!r}"
        raise _refused(plan, model, f"{place}/score", why)


def check_sparsity(plan: Plan) -> None:
    """Raise InputError where weights are to follow different patterns, or one that there is not."""
    for number, entry in enumerate(plan.sparsity):
        try:
            patterns.parse(entry["pattern"], entry.get("amount"))
        except InputError as error:
            raise InputError(f"{plan.where}: at sparsity/{number}: {error}") from error
        first = plan.sparsity[0]
        if any(entry.get(key) != first.get(key) for key in ("pattern", "amount")):
            raise InputError(f"{plan.where}: at sparsity/{number}: all weights follow one pattern, that of sparsity/0")


def masks_again(entry: Mapping[str, Any]) -> bool:
    """Whether the zeros of an entry of ``sparsity`` follow from the original's weights alone."""
    return entry["method"] == "magnitude" and "rounds" not in entry


def check_slices(plan: Plan, model: Model) -> None:
    """Raise InputError where a slice of a plan names an axis or an element that the constant of the model has not."""
    for number, entry in enumerate(plan.slices):
        source = model.sources.get(entry.source)
        if source is None:
            continue  # a constant that is computed
        for name, axes in (("removed", entry.removed), ("order", entry.order or {})):
            for axis, elements in axes.items():
                place = f"slices/{number}/{name}/{axis}"
                if int(axis) >= len(source.shape):
                    why = f"constant {entry.source!r} has {len(source.shape)} axes"
                    raise _refused(plan, model, place, why)
                wrong = _outside(elements, source.shape[int(axis)])
                if wrong is not None:
                    why = f"this axis of constant {entry.source!r} has {source.shape[int(axis)]} elements; no {wrong}"
                    raise _refused(plan, model, place, why)


def notes(plan: Plan, model: Model) -> list[str]:
    """What the user should know before a plan is redone on a model: whether it was made for this very file."""
    made_for, given = plan.model["sha256"], model.sha256
    if made_for == given:
        return []
    return [
        f"{plan.where} was made for another file ({plan.model['file']}, sha256 {made_for[:12]}...) than this one "
        f"({model.name}, sha256 {given[:12]}...): right for another precision or other weights of the same network"
    ]


def _outside(elements: Sequence[int], size: int) -> int | None:
    """An element that is not one of so many."""
    return next((e for e in elements if not 0 <= e < size), None)


def _shown(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape))
