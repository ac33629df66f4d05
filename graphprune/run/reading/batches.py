"""Models that take a fixed number of samples at a time: what is left over of the last batch cannot be fed."""

from __future__ import annotations

from pathlib import Path

from graphprune.errors import InputError
from graphprune.model import Model


def short(place: Path, what: str, count: int, batch: int, model: Model) -> InputError:
    """Samples do not make one batch."""
    return InputError(
        f"{place}: holds {count} {what}, fewer than the batch of {batch} that {model.name} takes at a time; give more, "
        "or a model whose batch is free"
    )


def told(place: Path, what: str, count: int, batch: int, model: Model) -> str:
    """How many samples are left over, in words; empty where none is.

    Args:
        place: where they come from.
        what: they are.
        count: how many there are.
        batch: how many the model takes at a time; 0 where that is free.
        model: the model.

    Raises:
        InputError: they do not make one batch.
    """
    if 0 < count < batch:
        raise short(place, what, count, batch, model)
    left = count % batch if batch else 0
    return f"{left} of {count} left out, since {batch} make a batch" if left else ""
