"""Whether a fit is only good at home: errors before and after it, on calibration inputs and on others made of them.

Least squares knows the calibration inputs alone, and can overfit them (RCPU, arXiv 2510.07782); what it holds out is of
the same kind. So outputs of the model before and after the fits are held against the original's on inputs of other
kinds as well. An error that a fit makes larger there is told, with its numbers: the result stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run.calibration import Batches, first
from graphprune.run.elsewhere import elsewhere
from graphprune.run.runtime import Feeds, run, session

HOME = "calibration"
SAMPLES = 8
"""Calibration samples that are looked at."""
WORSE = 1.25
"""A fit that makes an error so many times as large is only good at home."""


@dataclass(frozen=True)
class Place:
    """Inputs of one kind, with the relative errors of outputs: ``|f - g| / |g|``, g the original's.

    Attributes:
        inputs: ``calibration``, ``scaled``, ``noisy``, ``shuffled`` or ``generated``.
        before, after: the fits.
    """

    inputs: str
    before: float
    after: float

    @property
    def worse(self) -> bool:
        """Whether the fits do harm there."""
        return self.after > WORSE * self.before and self.after > 1e-3


@dataclass(frozen=True)
class Abroad:
    """What was found on inputs of every kind, the calibration inputs first."""

    places: tuple[Place, ...] = ()

    def notes(self) -> list[str]:
        """What the user should know."""
        far = [p for p in self.places[1:] if p.worse]
        if not far:
            return []
        home = self.places[0]
        told = ", ".join(f"{p.inputs} {p.before:.2g}, now {p.after:.2g}" for p in far)
        return [
            f"the fit is good at home only: relative error of outputs on calibration inputs {home.before:.2g}, now "
            f"{home.after:.2g}; on others {told}; if such inputs occur, have some among the calibration inputs"
        ]


def look(
    original: Model, models: tuple[Model, Model], batches: Batches, restrict: Callable[[Values, str], Values], seed: int
) -> Abroad:
    """Hold two models against the original, on the first calibration inputs and on others made of them.

    Args:
        original: as it runs.
        models: before and after the fits.
        batches: gives the calibration inputs.
        restrict: takes out of a tensor of the original, by name, what was removed from it.
        seed: of what is made.
    """
    places: dict[str, list[Feeds]] = {}
    for feeds in first(batches, SAMPLES):
        places.setdefault(HOME, []).append(feeds)
        for name, made in elsewhere(original, feeds, seed):
            places.setdefault(name, []).append(made)
    there = {i.name for i in models[0].inputs}
    cut = {
        name: [{n: restrict(v, n) for n, v in feeds.items() if n in there} for feeds in own]
        for name, own in places.items()
    }
    found: list[Place] = []
    wanted = _outputs(original, places)
    now = [_outputs(model, cut) for model in models]
    for name in places:
        with suppress(KeyError):  # inputs of a kind that a model does not run on
            before, after = (_error(wanted[name], own[name], restrict) for own in now)
            found += [Place(name, before, after)] if np.isfinite([before, after]).all() else []
    return Abroad(tuple(found) if found and found[0].inputs == HOME else ())


def _outputs(model: Model, places: Mapping[str, Sequence[Feeds]]) -> dict[str, list[dict[str, Values]]]:
    """What a model makes of inputs of each kind that it runs on."""
    found = {}
    with session(model) as active:
        names = [o.name for o in active.get_outputs()]
        given = {i.name for i in active.get_inputs()}
        for name, own in places.items():
            with suppress(InputError):
                found[name] = [
                    dict(zip(names, run(active, {n: v for n, v in feeds.items() if n in given}), strict=True))
                    for feeds in own
                ]
    return found


def _error(
    wanted: Sequence[Mapping[str, Values]],
    found: Sequence[Mapping[str, Values]],
    restrict: Callable[[Values, str], Values],
) -> float:
    """The relative error of all outputs together, each beside its own size; NaN where there are none of numbers."""
    shares = []
    for name in wanted[0]:
        was, now = [restrict(one[name], name) for one in wanted], [one[name] for one in found if name in one]
        if (
            len(now) != len(was)
            or was[0].dtype.kind != "f"
            or any(a.shape != b.shape for a, b in zip(was, now, strict=True))
        ):
            continue
        lost = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(was, now, strict=True))
        whole = sum(float(np.square(a, dtype=np.float64).sum()) for a in was)
        shares += [lost / whole] if whole > 0 else []
    return float(np.sqrt(np.mean(shares))) if shares else float("nan")
