"""Targets as options, and what is shown of how they were met."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.options import number
from graphprune.passes.aim.meet import Meet, Met
from graphprune.passes.metric import FIDELITY

F = TypeVar("F", bound=Callable[..., Any])


def target_options(function: F) -> F:
    """``--target`` and what says how it is met, gathered as ``meet``: None where none is given."""

    @functools.wraps(function)
    def gathered(*arguments: Any, target: tuple[str, ...], **others: Any) -> Any:
        own = {name: others.pop(name) for name in ("nearest", "metric", "table", "device", "threads")}
        return function(*arguments, meet=Meet(target, **own) if target else None, **others)

    for option in (
        click.option(
            "--threads", type=click.IntRange(min=0), default=0, help="For speed: within one operator; 0 is all."
        ),
        click.option(
            "--device", default="cpu", metavar="cpu|cuda|PROVIDER", help="For speed: where ONNX Runtime runs."
        ),
        click.option("--table", metavar="TABLE.json", help="For speed on another device: what 'profile' wrote there."),
        click.option(
            "--metric",
            default=FIDELITY[0],
            show_default=True,
            metavar="NAME|MODULE:FUNCTION",
            help=f"What a drop is of: {', '.join(FIDELITY)} (to the original, on held-out inputs), or your score.",
        ),
        click.option("--nearest", is_flag=True, help="Where --target cannot be met, write the nearest; exits 1."),
        click.option(
            "--target",
            multiple=True,
            metavar="KIND=VALUE",
            help="What the result is to come to: macs=0.5, params=3e6, bytes=10M, speedup=1.5, latency=12ms, "
            "drop=0.01; repeatable, all hold. Numbers up to 1 are shares of the original.",
        ),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def targets_data(met: Met | None) -> dict[str, Any] | None:
    """As plain data: each target with what may be left and what is, and every try."""
    if met is None:
        return None
    return {
        "targets": [
            {"target": text, "kind": kind, "limit": limit, "left": left, "holds": left <= limit}
            for kind, (text, limit, left) in met.targets.items()
        ],
        "tries": [
            {"goals": dict(one.goals), "left": dict(one.left), "holds": one.holds}
            | ({"blocks": list(one.blocks), "distance": one.loss} if one.loss is not None else {})
            for one in met.tries
        ],
        "chosen": met.chosen,
        "missed": met.missed,
    }


def print_targets(out: Console, met: Met | None, verbose: bool) -> None:
    """One line a target; the course where there was more than one try and it is asked for."""
    if met is None:
        return
    for kind, (text, limit, left) in met.targets.items():
        state = "met" if left <= limit else "not met"
        out.print(Text(f"target {text}: {state}: {_amount(kind, left)} of at most {_amount(kind, limit)}"))
    if len(met.tries) == 1 and not verbose:
        return
    weighed = any(one.blocks for one in met.tries)
    table = Table(box=None, pad_edge=False)
    kinds = [f"{kind} left" if kind != "drop" else kind for kind in met.tries[0].left]
    for name in ("try", *kinds, *(("blocks gone", "distance") if weighed else ()), "holds", ""):
        table.add_column(name, justify="right")
    for place, one in enumerate(met.tries):
        beside = (str(len(one.blocks)), "" if one.loss is None else f"{one.loss:.4f}") if weighed else ()
        told = "yes" if one.holds else "no", "taken" if place == met.chosen else ""
        table.add_row(str(place + 1), *(_amount(k, v) for k, v in one.left.items()), *beside, *told)
    out.print(table)


def _amount(kind: str, value: float) -> str:
    if kind in ("drop", "latency"):
        return f"{value:.4f}"
    return number(value)
