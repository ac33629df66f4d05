"""What pattern the weights that stay are to follow, as options of ``prune``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.masks import AUTO, METHODS

F = TypeVar("F", bound=Callable[..., Any])


def pattern_options(function: F) -> F:
    """``--pattern`` and what says how, gathered as ``sparsity``; None where weights stay dense."""

    @functools.wraps(function)
    def gathered(
        *arguments: Any, pattern: str | None, method: str | None, permute: bool, amount: float | None, **others: Any
    ) -> Any:
        if pattern is None and (method or permute):
            raise click.UsageError("--method and --permute go with --pattern")
        asked = None if pattern is None else sparse.Request(pattern, method, permute, amount)
        return function(*arguments, sparsity=asked, **others)

    for option in (
        click.option(
            "--amount", type=float, help="For --pattern: share of weights that go, where it does not say itself."
        ),
        click.option(
            "--permute", is_flag=True, help="For --pattern: let channels change places so that it keeps more."
        ),
        click.option("--method", type=click.Choice([AUTO, *METHODS]), help="For --pattern, as of sparsify."),
        click.option("--pattern", metavar="N:M|1xW|unstructured", help="Make the rest sparse too; TensorRT reads 2:4."),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]
