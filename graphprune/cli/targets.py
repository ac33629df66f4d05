"""What is shown of targets, and how they were met."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.options import number
from graphprune.passes.aim.meet import Met


def targets_data(met: Met | None) -> dict[str, Any] | None:
    """As plain data: each target with what may be left and what is, and every try."""
    if met is None:
        return None
    return {
        "targets": [
            {"target": text, "kind": kind, "limit": limit, "left": left, "holds": left <= limit}
            for kind, (text, limit, left) in met.targets.items()
        ],
        "tries": [{"goals": dict(one.goals), "left": dict(one.left), "holds": one.holds} for one in met.tries],
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
    table = Table(box=None, pad_edge=False)
    for name in ("try", *(f"{kind} left" if kind != "drop" else kind for kind in met.tries[0].left), "holds"):
        table.add_column(name, justify="right")
    for place, one in enumerate(met.tries, 1):
        table.add_row(str(place), *(_amount(k, v) for k, v in one.left.items()), "yes" if one.holds else "no")
    out.print(table)


def _amount(kind: str, value: float) -> str:
    if kind in ("drop", "latency"):
        return f"{value:.4f}"
    return number(value)
