"""What commands that judge many models have in common, as options: by what, where results lie, and who computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.passes.metric import FIDELITY

F = TypeVar("F", bound=Callable[..., Any])


def study_options(function: F) -> F:
    """``--metric``, ``--folder``, ``--jobs`` and ``--shard``."""
    for option in (
        click.option(
            "--shard", metavar="I/N", help="Only the i-th of n parts; without it, parts in --folder are merged."
        ),
        click.option("--jobs", type=click.IntRange(min=1), help="How many models at once, one thread each."),
        click.option(
            "--folder",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Keep results there: what is killed and run again goes on, and several machines may share it.",
        ),
        click.option(
            "--metric",
            default=FIDELITY[0],
            show_default=True,
            metavar=f"{'|'.join(FIDELITY)}|MODULE:FUNCTION",
            help="How good a model is: beside the original on held-out inputs, or by a function of a model.",
        ),
    ):
        function = option(function)
    return function
