"""Whether there is room to run a model on inputs of other sizes than those of its witness."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphprune.analysis.shapes import NoRoomError, Witness, WitnessError, follow
from graphprune.errors import InputError
from graphprune.model import Model, limits
from graphprune.relation import Shape


def check_room(model: Model, witness: Witness, sizes: Mapping[str, Shape]) -> None:
    """See before a model is run on given inputs that there is room for what it makes of them.

    Where it surely has, by what it takes at its witness, nothing is computed.

    Args:
        model: the model that the witness is of.
        witness: sizes that it runs at.
        sizes: of the inputs that it is to be run on.

    Raises:
        InputError: there is none; says at which node.
    """
    facts = witness.first
    grown = max((prod(s) / max(prod(facts.inputs[n]), 1) for n, s in sizes.items() if n in facts.inputs), default=1)
    made = sum(limits.size(shape, facts.types[n]) for n, shape in facts.shapes.items() if n in facts.types)
    if made * max(grown, 1) ** 2 <= limits.limit():  # an attention grows with the square
        return
    try:
        follow(model, {n: tuple(sizes.get(n, s)) for n, s in facts.inputs.items()})
    except NoRoomError as error:
        raise InputError(f"{model.name}: on inputs of {_listed(sizes)}: {error}") from error
    except WitnessError:
        return  # what it refuses is told where it runs


def _listed(sizes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name}={limits.shown(shape)}" for name, shape in sizes.items())
