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
    """``--blocks`` and what says which, gathered as ``blocks``; None where it is said that none go."""

    @functools.wraps(function)
    def gathered(
        *arguments: Any, blocks: int | None, remove_block: tuple[str, ...], block_score: str, **others: Any
    ) -> Any:
        none = blocks == 0 and not remove_block
        asked = None if none else Request(remove_block, blocks or 0, block_score)
        return function(*arguments, blocks=asked, **others)

    for option in (
        click.option(
            "--block-score", type=click.Choice(SCORES), default=SCORES[0], show_default=True, help="Of --blocks."
        ),
        click.option(
            "--remove-block", multiple=True, metavar="ID", help="Which (or to choose from): id, module or glob."
        ),
        click.option("--blocks", type=int, help="How many whole blocks go, the least important first."),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]
