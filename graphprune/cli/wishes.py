"""How much is to go, and what users say of single groups, regions and widths, as options."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.passes.choose.steering import Steering, load
from graphprune.passes.recipes import Wish

F = TypeVar("F", bound=Callable[..., Any])
_PLAIN = (
    "steps",
    "criterion",
    "uniform",
    "align",
    "include",
    "exclude",
    "allow_statistical",
    "uniform_widths",
    "search",
    "rotate",
)
"""Options that are called as what they become."""


def wish_options(function: F) -> F:
    """``--ratio``, ``--for`` and what steers, gathered as ``wish``."""

    @functools.wraps(function)
    def gathered(
        *arguments: Any,
        ratios: tuple[float | None, dict[str, float]],
        limits: dict[str, float],
        backend: str | None,
        steer: Path | None,
        **others: Any,
    ) -> Any:
        plain = {name: others.pop(name) for name in _PLAIN}
        names = ("min_width", "before", "after", "keep_first", "keep_last", "keep_heads")
        steering = Steering(ratios[1], limits, **{name: others.pop(name) for name in names})
        if steer is not None:
            steering = steering.over(load(steer))
        wish = Wish(ratios[0] or 0.0, backend=backend, steering=steering, **plain)
        return function(*arguments, wish=wish, **others)

    for option in _OPTIONS:
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def _ratios(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    all_: float | None = None
    own: dict[str, float] = {}
    for text in given:
        glob, share = _shared(text)
        if glob is not None:
            own = {**{g: s for g, s in own.items() if g != glob}, glob: share}
        elif all_ is not None:
            raise click.BadParameter(f"{text!r} is the second for all groups; of some of them it is GLOB={text}")
        else:
            all_ = share
    return all_, own


def _limits(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        glob, share = _shared(text)
        found = {**{g: s for g, s in found.items() if g != glob}, "*" if glob is None else glob: share}
    return found


def _shared(text: str) -> tuple[str | None, float]:
    """``GLOB=SHARE``, or a share alone; ``30%`` is 0.3."""
    glob, equals, share = text.rpartition("=")
    try:
        return (glob if equals else None), float(share[:-1]) / 100 if share.endswith("%") else float(share)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a share, as 0.3, nor GLOB=0.3") from None


_OPTIONS = (
    click.option("--allow-statistical", is_flag=True, help="Also groups that a mean runs over, at a reported error."),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Not these: groups, nodes, weights, modules, or globs; repeatable.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Only these: groups, nodes, weights, modules, or globs; repeatable.",
    ),
    click.option("--steer", type=click.Path(path_type=Path), metavar="FILE", help="The same from a file."),
    click.option("--keep-heads", is_flag=True, help="What leads to one alone of several last layers stays whole."),
    click.option("--keep-last", type=int, default=0, help="So many of the last layers with weights stay whole."),
    click.option("--keep-first", type=int, default=0, help="So many of the first layers with weights stay whole."),
    click.option("--after", multiple=True, metavar="NAME", help="Only what lies behind a tensor, node or module."),
    click.option("--before", multiple=True, metavar="NAME", help="Only what lies before a tensor, node or module."),
    click.option("--min-width", type=int, help="No group becomes narrower."),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="GLOB=SHARE",
        callback=_limits,
        help="At most this share of such groups, as of --include; repeatable.",
    ),
    click.option(
        "--for",
        "backend",
        metavar="NAME[:TYPE]|FILE.toml",
        help="The runtime, for widths that pay there: tensorrt, qnn, rknn:int8 (passes/choose/README.md has all).",
    ),
    click.option(
        "--align", type=int, help="Round widths up to a multiple of this; 4 where it costs little if not given."
    ),
    click.option(
        "--uniform-widths", is_flag=True, help="Layers that repeat keep one width, as configurations want it."
    ),
    click.option(
        "--search",
        metavar="CANDIDATES|TIME",
        help="Look for which layers give how much, on held-out --calibration inputs: 40 candidates, 10m.",
    ),
    click.option(
        "--rotate/--no-rotate",
        default=None,
        help="Put heads, bottlenecks and hidden sizes into principal directions first, which is exact; with "
        "--calibration if not given.",
    ),
    click.option("--uniform", is_flag=True, help="The same share of every group, whatever --calibration shows."),
    click.option(
        "--criterion",
        metavar="NAME",
        help="auto (if not given: obs with --calibration, else magnitude), activation, fisher, taylor, snip, "
        "movement, random, or another's.",
    ),
    click.option("--steps", type=int, default=1, show_default=True, help="In how many rounds it goes; each fits."),
    click.option(
        "--ratio",
        "ratios",
        multiple=True,
        metavar="SHARE|GLOB=SHARE",
        callback=_ratios,
        help="Share of each group's classes to remove, 0 to below 1; of some groups: 'head/*=0'; repeatable.",
    ),
)
