"""How good a model is beside the original: one number, higher is better.

Fidelity needs no labels: it is how much of what the original makes of held-out inputs the other makes too. Held out is
the same quarter that fits and distillation do not learn from. A function of the user's may say it otherwise.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.model.interchange import whole
from graphprune.passes.detected import NAME as DETECTIONS
from graphprune.passes.detected import Detected
from graphprune.passes.distill.losses import measure
from graphprune.passes.holding import answers
from graphprune.relation import Values
from graphprune.run import usercode
from graphprune.run.calibration import Batches
from graphprune.run.runtime import Feeds, run, session
from graphprune.run.samples import count
from graphprune.verdict import comparison, detections

FIDELITY = ("distance", "top1", "cosine", "detections")
"""The default first. ``detections`` may say a form of boxes behind a colon (see ``graphprune.verdict.detections``)."""
Function = Callable[[ModelProto], Any]
Spec = str | Function
"""One of :data:`FIDELITY`, ``module:function``, or a function from a model to a number."""


@dataclass
class Metric:
    """How good a model is.

    Attributes:
        name: of the metric.
        original: the model that others are held against.
        score: gives the number.
    """

    name: str
    original: Model
    score: Callable[[Model], float]

    def __call__(self, model: Model) -> float:
        """The score of a model; minus infinity where it makes what is not finite of what was.

        Raises:
            InputError: ONNX Runtime cannot run it, or there is nothing to compare.
            UserCodeError: a function of the user's raises.
        """
        return self.score(model)

    @cached_property
    def whole(self) -> float:
        """The score of the original itself."""
        return self(self.original)

    def drop(self, model: Model) -> float:
        """By how much the score of a model is lower than that of the original."""
        return self.whole - self(model)

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of how it was measured."""
        return self.score.notes if isinstance(self.score, Fidelity | Detected) else ()


def metric(spec: Spec, original: Model, batches: Batches | None, seed: int = 0) -> Metric:
    """A metric.

    Args:
        spec: one of

            - ``distance``: 1 less ``||a - b|| / ||a||``, over all held-out inputs, averaged over float outputs;
            - ``top1``: the share of positions at which the same class wins, of outputs that hold class scores:
              probabilities, whose sum along an axis is one, or rows of floats, one a sample;
            - ``cosine``: of each sample's output, averaged over samples, then over float outputs;
            - ``detections``, ``detections:FORM``: mean average precision of boxes, where the original's are true;
            - ``module:function``, or a function: from an ``onnx.ModelProto`` to a number.

        original: the model that others are held against.
        batches: calibration inputs, of which a quarter is held out; functions of the user's need none.
        seed: of the choice of what is held out, as of the job.

    Raises:
        InputError: there is no such metric, or it needs inputs.
        UserCodeError: the user's module raises when it is imported.
    """
    if callable(spec):
        return Metric(getattr(spec, "__name__", "metric"), original, _Own(getattr(spec, "__name__", "metric"), spec))
    if not fidelity(spec):
        if not usercode.names_one(spec):
            raise InputError(
                f"--metric {spec}: there is none of this name; choose from {', '.join(FIDELITY)}, or give "
                "module:function, from an onnx.ModelProto to a number"
            )
        return Metric(spec, original, _Own(spec, usercode.find_function(spec)))
    if batches is None:
        raise InputError(f"--metric {spec} compares outputs: give inputs by --calibration")
    if _form(spec) is not None:
        return Metric(spec, original, Detected(_form(spec) or detections.AUTO, original, batches, seed))
    return Metric(spec, original, Fidelity(spec, original, batches, seed))


def fidelity(spec: Spec) -> bool:
    """Whether a metric compares with the original, on inputs."""
    return isinstance(spec, str) and (spec in FIDELITY or _form(spec) is not None)


def _form(spec: str) -> str | None:
    """The form of boxes that ``detections`` asks for, empty where it asks for none; None of another metric."""
    name, _, form = spec.partition(":")
    return form if name == DETECTIONS else None


@dataclass
class _Own:
    """A function of the user's."""

    name: str
    function: Function

    def __call__(self, model: Model) -> float:
        with usercode.told(self.name):
            found = self.function(whole(model.source))
        value = np.asarray(found)
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise InputError(f"{self.name}: must give one number for {model.name}, not {type(found).__name__}")
        number = float(value.reshape(()))
        if math.isnan(number):
            raise InputError(f"{self.name}: gives NaN for {model.name}, and should give a number")
        return number


@dataclass
class Fidelity:
    """How much of what the original makes of held-out inputs another model makes too.

    Args:
        name: one of :data:`FIDELITY` that compare numbers.
        original: the model; it is run once.
        batches: inputs, of which a quarter is held out.
        seed: of the choice.
    """

    name: str
    original: Model
    batches: Batches
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def __call__(self, model: Model) -> float:
        """The score of a model."""
        if model is self.original:
            return 1.0 if self._wanted else 0.0
        runs, wanted, axes = self._wanted
        sums: dict[int, list[float]] = {}
        there = {value.name for value in model.runnable.inputs}
        with session(model.runnable) as active:
            for feeds, own in zip(runs, wanted, strict=True):
                found = run(active, {n: v for n, v in feeds.items() if n in there})
                for place, axis in axes.items():
                    a, b = own[place], np.asarray(found[place])
                    if a.shape == b.shape and a.size:
                        terms = _terms(self.name, a, b, count(feeds), axis)
                        sums[place] = [x + y for x, y in zip(sums.get(place, (0.0, 0.0)), terms, strict=True)]
        if not sums:
            raise InputError(
                f"{model.name}: none of its outputs has the shape of the original's; compare by a function of yours"
            )
        return float(np.mean([_ended(self.name, *one) for one in sums.values()]))

    @cached_property
    def _wanted(self) -> tuple[list[Feeds], list[list[Values]], dict[int, int]]:
        """Held-out runs, what the original makes of them, and the outputs that tell, each with its axis of classes."""
        option = f"--metric {self.name}"
        held, made, notes = answers(self.original.runnable, self.batches, self.seed, option)
        self.notes += notes
        axes = _telling(self.name, held, made)
        if not axes:
            what = "class scores" if self.name == "top1" else "floats"
            others = " or ".join(n for n in FIDELITY if n not in (self.name, DETECTIONS))
            raise InputError(
                f"{self.original.name}: none of its outputs holds {what} for --metric {self.name}; choose {others}, or "
                "give a function of yours"
            )
        return held, made, axes


def _telling(name: str, runs: Sequence[Feeds], made: Sequence[Sequence[Values]]) -> dict[int, int]:
    """The places of outputs that a metric looks at, each with the axis that classes lie along."""
    found = {}
    for place in range(len(made[0])):
        values = [outputs[place] for outputs in made]
        if values[0].dtype.kind != "f":
            continue
        if name != "top1":
            found[place] = -1
            continue
        known = measure(values)
        if known is not None and known.loss == "kl":
            found[place] = known.axis
        elif known is not None and known.loss == "squares":
            scores = (comparison.class_scores(v, count(feeds)) for v, feeds in zip(values, runs, strict=True))
            found |= {place: -1} if all(scores) else {}
    return found


def _terms(name: str, wanted: Values, found: Values, samples: int, axis: int) -> tuple[float, float]:
    """What one output of one run adds to two sums, of which :func:`_ended` makes the score."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    there = np.isfinite(a)  # a mask of the original's may hold -inf
    if not np.isfinite(b[there]).all():
        return np.inf if name == "distance" else -np.inf, 1.0
    a, b = np.where(there, a, 0), np.where(there, b, 0)
    if name == "distance":
        return float(np.square(a - b).sum()), float(np.square(a).sum())
    if name == "top1":
        agreeing = comparison.agreeing(a, b, axis)
        return float(agreeing.sum()), float(agreeing.size)
    rows = zip(a, b, strict=True) if a.ndim and len(a) == samples else [(a, b)]
    cosines = [comparison.cosine(one, other) for one, other in rows]
    return sum(cosines), float(len(cosines))


def _ended(name: str, first: float, second: float) -> float:
    if name != "distance":
        return first / second
    return 1.0 - math.sqrt(first / second) if second else (-math.inf if first else 1.0)


def identity(spec: Spec) -> str:
    """What a metric follows from: its name, and of a function of the user's the text of its module."""
    if isinstance(spec, str) and fidelity(spec):
        return spec
    name = spec if isinstance(spec, str) else f"{spec.__module__}:{getattr(spec, '__qualname__', 'metric')}"
    function = usercode.find_function(spec) if isinstance(spec, str) else spec
    module = inspect.getmodule(function)
    try:
        text = "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # typed at a prompt, or not written in Python
        text = ""
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()}"
