"""How fast models are beside each other: paired runs, interleaved, so that what disturbs one disturbs all.

Each round runs every model once, in an order that turns from round to round; the ratio of two models is the median of
the ratios within rounds, and its confidence interval comes from resampling the rounds (the percentile bootstrap: Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from graphprune import shapes
from graphprune.errors import InputError
from graphprune.model import AnyModel, Model, load
from graphprune.relation import Shape, Values
from graphprune.run import generate, run, session

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass
class Timing:
    """Time of one model.

    Attributes:
        model: its name.
        median: seconds of one run.
        low, high: first and third quartile, in seconds.
    """

    model: str
    median: float
    low: float
    high: float


@dataclass
class Ratio:
    """The first model's time divided by another's: above 1 the other is faster.

    Attributes:
        model: the other's name.
        speedup: median over the rounds.
        low, high: confidence interval of the median.
    """

    model: str
    speedup: float
    low: float
    high: float


@dataclass
class Bench:
    """What a benchmark found.

    Attributes:
        shapes: input shapes.
        threads: threads within one operator; 0 stands for the runtime's own choice.
        provider: of ONNX Runtime.
        rounds: number of rounds.
        timings: in the order of the models.
        ratios: for each model but the first.
        peak_bytes: largest resident size of the process, all models loaded.
    """

    shapes: dict[str, list[int]]
    threads: int
    provider: str
    rounds: int
    timings: list[Timing]
    ratios: list[Ratio] = field(default_factory=list)
    peak_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def bench(
    *models: AnyModel,
    input_shapes: Mapping[str, Shape] | None = None,
    threads: int = 0,
    provider: str = "CPUExecutionProvider",
    rounds: int = 50,
    warmup: int = 5,
    seed: int = 0,
) -> Bench:
    """Time models beside each other in ONNX Runtime, with all optimisations.

    Args:
        models: the models; the first is what the others are compared with.
        input_shapes: sizes for inputs; by default those that the first model accepts.
        threads: threads within one operator; 0 leaves it to the runtime.
        provider: execution provider of ONNX Runtime.
        rounds: each runs every model once.
        warmup: rounds before, that do not count.
        seed: of the generated inputs, and of the resampling.

    Raises:
        InputError: no model, too few rounds, or one that does not run at the sizes of the first.
    """
    if not models or rounds < 2:
        raise InputError("a benchmark needs at least one model and two rounds")
    loaded = [load(m) for m in models]
    chosen, feeds = _inputs(loaded[0], input_shapes, seed)
    with ExitStack() as stack:
        sessions = [stack.enter_context(_timed_session(m, threads, provider)) for m in loaded]
        given = [_for(m, feeds) for m in loaded]
        times = np.zeros((rounds, len(loaded)))
        for number in range(-warmup, rounds):
            for k in np.roll(np.arange(len(loaded)), number):
                start = time.perf_counter()
                run(sessions[k], given[k])
                if number >= 0:
                    times[number, k] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    timings = [Timing(m.name, *_quartiles(times[:, k])) for k, m in enumerate(loaded)]
    ratios = [_ratio(m.name, times[:, 0] / times[:, k], seed) for k, m in enumerate(loaded) if k]
    return Bench({n: list(s) for n, s in chosen.items()}, threads, provider, rounds, timings, ratios, peak)


def _timed_session(model: Model, threads: int, provider: str) -> Any:
    if provider not in ort.get_available_providers():
        raise InputError(f"ONNX Runtime has no {provider} here; there are {', '.join(ort.get_available_providers())}")
    return session(model, ort.GraphOptimizationLevel.ORT_ENABLE_ALL, threads=threads, provider=provider)


def _inputs(
    model: Model, input_shapes: Mapping[str, Shape] | None, seed: int
) -> tuple[Mapping[str, Shape], dict[str, Values]]:
    """The first sizes that a model accepts, and inputs of them."""
    refused: InputError | None = None
    with session(model) as active:
        for one in shapes.alternatives(model, input_shapes):
            feeds = generate(model, one, seed)
            try:
                run(active, feeds)
            except InputError as error:
                refused = refused or error
                continue
            return one, feeds
    raise InputError(f"{model.name}: {refused}; give sizes that it accepts by --input-shape")


def _for(model: Model, feeds: Mapping[str, Values]) -> dict[str, Values]:
    missing = [i.name for i in model.inputs if i.name not in feeds]
    if missing:
        raise InputError(f"{model.name}: its input {missing[0]!r} is none of the first model's")
    return {i.name: feeds[i.name] for i in model.inputs}


def _quartiles(times: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return float(median), float(low), float(high)


def _ratio(name: str, ratios: npt.NDArray[np.float64], seed: int) -> Ratio:
    rng = np.random.default_rng(seed)
    drawn: Sequence[float] = np.median(rng.choice(ratios, (_RESAMPLES, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Ratio(name, float(np.median(ratios)), float(low), float(high))
