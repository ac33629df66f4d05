"""What has become of the operators of one wave, and where that is kept for another run of the same job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from graphprune.passes.kept import Kept
from graphprune.relation import Values
from graphprune.run.moments import FloatArray


@dataclass(frozen=True)
class Fit:
    """One operator, before and after; errors are squared, held out, relative to the variance of what is wanted.

    Attributes:
        node: name of the node.
        weight: name of its weight in the pruned model.
        before, after: errors.
        kept: whether the fit was kept.
    """

    node: str
    weight: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Settled:
    """What has become of one operator.

    Attributes:
        fit: before and after, None where nothing was to be fitted.
        weight: as it is now, None where it stays.
        shift: what its bias gains, None where it stays.
        stayed: of a weight that became sparse, the share of its magnitude and of its elements that stayed.
    """

    fit: Fit | None
    weight: Values | None = None
    shift: FloatArray | None = None
    stayed: tuple[float, float] | None = None


def write(kept: Kept | None, number: int, wave: Sequence[Settled]) -> None:
    """Keep what has become of a wave."""
    if kept is None:
        return
    told = [[None if one.fit is None else astuple(one.fit), one.stayed] for one in wave]
    found: dict[str, Values] = {"told": np.asarray(json.dumps(told))}
    for place, one in enumerate(wave):
        found |= {f"{place}/weight": one.weight} if one.weight is not None else {}
        found |= {f"{place}/shift": one.shift} if one.shift is not None else {}
    kept.write(found, number)


def read(kept: Kept | None, number: int) -> list[Settled] | None:
    """What became of a wave in an earlier run of the same job, None where that is not known."""
    found = None if kept is None else kept.read(number)
    if found is None:
        return None
    return [
        Settled(
            None if fit is None else Fit(*fit),
            found.get(f"{place}/weight"),
            found.get(f"{place}/shift"),
            None if stayed is None else (stayed[0], stayed[1]),
        )
        for place, (fit, stayed) in enumerate(json.loads(str(found["told"])))
    ]


def read_all(kept: Kept | None, count: int) -> list[list[Settled]]:
    """What became of the first waves of an earlier run, as far as that is known."""
    found: list[list[Settled]] = []
    while len(found) < count and (one := read(kept, len(found))) is not None:
        found.append(one)
    return found
