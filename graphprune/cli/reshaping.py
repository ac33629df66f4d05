"""What changes the tables and products of a model themselves, as options: fewer ids, lower ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.errors import InputError
from graphprune.passes.rank.low_rank import LowRank
from graphprune.passes.recipes import Wish
from graphprune.passes.vocabulary.vocabulary import Vocabulary

F = TypeVar("F", bound=Callable[..., Any])


def reshaping_options(function: F) -> F:
    """``--vocabulary`` and what goes with it, and ``--low-rank``; they join ``wish``, gathered before."""

    @functools.wraps(function)
    def gathered(
        *arguments: Any,
        wish: Wish,
        low_rank: LowRank | None,
        vocabulary: Path | None,
        keep_tokens: int | None,
        vocabulary_inside: bool,
        unknown_token: int | None,
        **others: Any,
    ) -> Any:
        found = Vocabulary.asked(vocabulary, keep_tokens)
        if found is not None:
            found = replace(found, inside=vocabulary_inside, unknown=unknown_token)
        elif vocabulary_inside or unknown_token is not None:
            raise click.UsageError("--vocabulary-inside and --unknown-token go with --vocabulary or --keep-tokens")
        return function(*arguments, wish=replace(wish, low_rank=low_rank, vocabulary=found), **others)

    for option in _OPTIONS:
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def _low_rank(_: click.Context, __: click.Parameter, given: str | None) -> LowRank | None:
    try:
        return LowRank.asked(given)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


_OPTIONS = (
    click.option("--unknown-token", type=int, metavar="ID", help="The id that stands for all that go; it stays."),
    click.option(
        "--vocabulary-inside", is_flag=True, help="Ids stay as they are; the model looks up which row holds each."
    ),
    click.option(
        "--keep-tokens", type=click.IntRange(min=1), metavar="N", help="Keep the N ids most used in --calibration."
    ),
    click.option(
        "--vocabulary",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Ids that stay: one a line, .json or .npy; embeddings and outputs lose all others.",
    ),
    click.option(
        "--low-rank",
        metavar="SHARE|macs=SHARE|auto",
        callback=_low_rank,
        help="Weights become products of two where that pays: so much of the parameters or MACs goes.",
    ),
)
