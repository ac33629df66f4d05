"""How far the outputs of one model are from those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphprune.relation import Values

HIGH_IS_BETTER = ("cosine", "psnr", "top1")
"""Metrics of which more is better; of all others less is."""


class Incomparable(Exception):
    """Two outputs of different shapes; the message names them."""


def metrics(expected: Values, found: Values, name: str = "output") -> dict[str, float]:
    """How far one output is from another.

    Args:
        expected: the original's, any shape.
        found: the other's.
        name: of the output.

    Returns:
        ``max_abs``, ``mean_abs``, ``max_rel``, ``mean_rel`` by Polygraphy; ``cosine``; ``psnr`` in decibels against the
        range of ``expected``; ``top1``: the share of rows (last axis) whose largest element is the same.

    Raises:
        Incomparable: the shapes differ.
    """
    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    if expected.shape != found.shape:
        raise Incomparable(f"output {name!r} has shape {found.shape} in place of {expected.shape}")
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(invalid="ignore", over="ignore"):
        compare = SimpleCompareFunc(atol=float("inf"), rtol=float("inf"), check_shapes=True)
        result = compare(IterationResult({name: found}), IterationResult({name: expected}))[name]
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):  # what is infinite may well come out as not a number
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        noise, span = float(np.mean((a - b) ** 2)) if a.size else 0.0, float(np.ptp(a)) if a.size else 0.0
    data = {
        "max_abs": float(result.max_absdiff),
        "mean_abs": float(result.mean_absdiff),
        "max_rel": float(result.max_reldiff),
        "mean_rel": float(result.mean_reldiff),
        "cosine": float(a @ b) / size if size else float(np.array_equal(a, b)),
        "psnr": float("inf") if noise == 0 else 10 * float(np.log10(span**2 / noise)) if span else float("-inf"),
    }
    if expected.ndim > 1 and expected.shape[-1] > 1:
        data["top1"] = float((expected.argmax(-1) == found.argmax(-1)).mean())
    return data


def compare(
    names: Sequence[str], expected: Sequence[Sequence[Values]], found: Sequence[Sequence[Values]]
) -> dict[str, dict[str, float]]:
    """The worst of each metric over several runs.

    Args:
        names: of the outputs.
        expected, found: for each run the outputs.

    Raises:
        Incomparable: two outputs have different shapes.
    """
    total: dict[str, dict[str, float]] = {}
    for wanted, got in zip(expected, found, strict=True):
        for name, a, b in zip(names, wanted, got, strict=True):
            worse(total.setdefault(name, {}), metrics(np.asarray(a), np.asarray(b), name))
    return total


def worse(total: dict[str, float], one: Mapping[str, float]) -> None:
    """Keep the worse of two values of each metric in ``total``; what is not a number is worst."""
    for key, value in one.items():
        if key not in total or np.isnan(value):
            total[key] = value
        elif not np.isnan(total[key]):
            total[key] = min(total[key], value) if key in HIGH_IS_BETTER else max(total[key], value)
