"""How far the outputs of one model are from those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from graphprune.relation import Values

HIGH_IS_BETTER = ("cosine", "psnr", "top1")
"""Metrics of which more is better; of all others less is."""


FAR = 0.9
"""Cosine below which an output is called far from the original's."""


class Incomparable(Exception):
    """Two outputs of different shapes; the message names them."""


def metrics(expected: Values, found: Values, name: str = "output", samples: int | None = None) -> dict[str, float]:
    """How far one output is from another.

    Args:
        expected: the original's, any shape.
        found: the other's.
        name: of the output.
        samples: how many were fed.

    Returns:
        ``max_abs``, ``mean_abs``, ``max_rel``, ``mean_rel`` by Polygraphy; ``cosine``; ``psnr`` in decibels against the
        range of ``expected``; ``top1``, of class scores alone: the share of samples whose largest score is at the same
        class.

    Raises:
        Incomparable: the shapes differ.
    """
    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    if expected.shape != found.shape:
        raise Incomparable(f"output {name!r} has shape {found.shape} in place of {expected.shape}")
    if expected.dtype.kind in "OSU":  # text is the same or is not: 0 or 1
        expected, found = np.zeros(expected.shape, np.float32), np.asarray(expected != found, np.float32)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(invalid="ignore", over="ignore"):
        compare = SimpleCompareFunc(atol=float("inf"), rtol=float("inf"), check_shapes=True)
        result = compare(IterationResult({name: found}), IterationResult({name: expected}))[name]
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):  # what is infinite may well come out as not a number
        noise, span = float(np.mean((a - b) ** 2)) if a.size else 0.0, float(np.ptp(a)) if a.size else 0.0
    data = {
        "max_abs": float(result.max_absdiff),
        "mean_abs": float(result.mean_absdiff),
        "max_rel": float(result.max_reldiff),
        "mean_rel": float(result.mean_reldiff),
        "cosine": cosine(a, b),
        "psnr": float("inf") if noise == 0 else 10 * float(np.log10(span**2 / noise)) if span else float("-inf"),
    }
    if class_scores(expected, samples):
        data["top1"] = float(agreeing(expected, found).mean())
    return data


def cosine(expected: Values, found: Values) -> float:
    """The cosine of the angle between two outputs as vectors; of a vector of zeros 1 where they are equal, else 0."""
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / size if size else float(np.array_equal(a, b))


def agreeing(expected: Values, found: Values, axis: int = -1) -> npt.NDArray[np.bool_]:
    """By position whether the largest score is at the same class, of which there are so many along an axis."""
    return np.asarray(expected.argmax(axis) == found.argmax(axis))


def class_scores(value: Values, samples: int | None) -> bool:
    """Whether an output can be class scores: one row of them a sample. Maps, sequences and lists of boxes are none."""
    if value.dtype.kind != "f" or value.ndim != 2 or value.shape[1] < 2:
        return False
    return samples is None or value.shape[0] == samples


def compare(
    names: Sequence[str],
    expected: Sequence[Sequence[Values]],
    found: Sequence[Sequence[Values]],
    samples: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    """The worst of each metric over several runs.

    Args:
        names: of the outputs.
        expected, found: for each run the outputs.
        samples: for each run how many were fed.

    Raises:
        Incomparable: two outputs have different shapes.
    """
    total: dict[str, dict[str, float]] = {}
    counts = samples if samples is not None else [None] * len(expected)
    for wanted, got, fed in zip(expected, found, counts, strict=True):
        for name, a, b in zip(names, wanted, got, strict=True):
            one = metrics(np.asarray(a), np.asarray(b), name, fed)
            if name in total and ("top1" in one) != ("top1" in total[name]):
                one.pop("top1", None)  # in some runs alone it had a row a sample
                total[name].pop("top1", None)
            worse(total.setdefault(name, {}), one)
    return total


def far(outputs: Mapping[str, Mapping[str, float]]) -> str:
    """A remark on the output that is farthest from the original's, where it is far; empty where none is."""
    cosines = {name: values["cosine"] for name, values in outputs.items() if not values["cosine"] >= FAR}
    if not cosines:
        return ""
    name = min(cosines, key=lambda n: -1.0 if np.isnan(cosines[n]) else cosines[n])
    others = f", and so {'is' if len(cosines) == 2 else 'are'} {len(cosines) - 1} more" if len(cosines) > 1 else ""
    return (
        f"warning: output {name!r} is far from the original's (cosine {cosines[name]:.4f}){others}; --min-cosine "
        f"{FAR:g} would make this a failure"
    )


def worse(total: dict[str, float], one: Mapping[str, float]) -> None:
    """Keep the worse of two values of each metric in ``total``; what is not a number is worst."""
    for key, value in one.items():
        if key not in total or np.isnan(value):
            total[key] = value
        elif not np.isnan(total[key]):
            total[key] = min(total[key], value) if key in HIGH_IS_BETTER else max(total[key], value)
