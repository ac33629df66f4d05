"""Which whole blocks go, as options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from graphprune.passes.depth.depth import Request
from graphprune.passes.depth.influence import SCORES

F = TypeVar("F", bound=Callable[..., Any])


def block_options(function: F) -> F:
    """``--blocks`` and what says which, gathered as ``blocks``; a request for none is false."""

    @functools.wraps(function)
    def gathered(*arguments: Any, blocks: int, remove_block: tuple[str, ...], block_score: str, **others: Any) -> Any:
        return function(*arguments, blocks=Request(remove_block, blocks, block_score), **others)

    for option in (
        click.option(
            "--block-score", type=click.Choice(SCORES), default=SCORES[0], show_default=True, help="Of --blocks."
        ),
        click.option("--remove-block", multiple=True, metavar="ID", help="Which (or to choose from): id or glob."),
        click.option("--blocks", type=int, default=0, help="How many whole blocks go, the least important first."),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]
