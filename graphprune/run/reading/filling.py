"""The inputs of a model beside the one that a sample goes into: masks, positions, states that have not begun."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ValueInfoProto, helper

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Values

_STATE = re.compile(r"past|cache|state|hidden|memor|(^|[._/])[hc][n0]?$", re.IGNORECASE)
Make = Callable[[], Values]


def ending(name: str) -> str:
    """The last part of a name, in small letters: ``model/Input_IDs:0`` is ``input_ids``."""
    parts = [part for part in re.split(r"[./:]", name.lower()) if not part.isdecimal()]
    return parts[-1] if parts else name.lower()


def dtype(value: ValueInfoProto) -> np.dtype[Any]:
    """The type of an input's elements."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def dims(value: ValueInfoProto) -> list[int]:
    """The sizes of an input, 0 where they are free."""
    return [max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim]


def is_state(value: ValueInfoProto) -> bool:
    """Whether an input is by its name a state that goes round: a cache of keys and values, a recurrent state."""
    return dtype(value).kind == "f" and _STATE.search(value.name) is not None


def filled(model: Model, main: ValueInfoProto, sample: Values, roles: Mapping[str, Make], where: str) -> dict[str, Any]:
    """All inputs of a model for a batch.

    Args:
        model: the model.
        main: the input that the batch goes into.
        sample: the batch, samples along the first axis.
        roles: by the ends of names what other inputs are given.
        where: samples come from, for messages.

    Raises:
        InputError: there is an input that nothing is known for.
    """
    found: dict[str, Any] = {}
    for value in model.inputs:
        if value.name == main.name:
            found[value.name] = sample.astype(dtype(value), copy=False)
        elif (make := roles.get(ending(value.name))) is not None:
            found[value.name] = _shaped(make(), value)
        elif is_state(value):
            found[value.name] = _begun(value, main, len(sample))
        elif dtype(value).kind == "b":
            found[value.name] = np.zeros([size or 1 for size in dims(value)], bool)
        else:
            raise InputError(
                f"{where}: {model.name} also wants {value.name!r}, for which nothing is known here: give inputs by "
                "module:function"
            )
    return found


def _shaped(made: Values, value: ValueInfoProto) -> Values:
    """What a role gives, of the type and rank that the input has."""
    rank = len(dims(value))
    if made.ndim > rank and made.shape[0] == 1:
        made = made.reshape(made.shape[made.ndim - rank :])
    elif made.ndim < rank:
        made = made.reshape(*made.shape, *[1] * (rank - made.ndim))
    return made.astype(dtype(value), copy=False)


def _begun(value: ValueInfoProto, main: ValueInfoProto, batch: int) -> Values:
    """A state before its first step: zeros, and of length 0 where it grows."""
    declared, shape = value.type.tensor_type.shape.dim, dims(value)
    first = main.type.tensor_type.shape.dim
    name = first[0].dim_param if first else ""
    free = [a for a, size in enumerate(shape) if not size]
    own = next((a for a in free if name and declared[a].dim_param == name), free[0] if free else None)
    return np.zeros([batch if a == own else size for a, size in enumerate(shape)], dtype(value))
