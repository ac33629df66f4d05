"""Where the result of a command goes, as options: by default beside its model, over nothing that is there already.

Results are kept: a command writes over an existing file with ``--force`` alone, and says so before it computes
anything. What ``--json`` names is written over as a shell's ``>`` does, and what goes on from where it was (folders of
``--resume`` and ``--folder``, checkpoints) is its command's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.model import paths

F = TypeVar("F", bound=Callable[..., Any])


def force_option(function: F) -> F:
    """``--force``, as ``output_options`` takes it."""
    return click.option("--force", is_flag=True, help="Write over files that are there already.")(function)


def dry_run_option(function: F) -> F:
    """``--dry-run``, as ``dry_run``."""
    return click.option("--dry-run", is_flag=True, help="Do and report everything, and write no file of it.")(function)


def result_options(kind: str, argument: str = "model", also: Sequence[str] = ()) -> Callable[[F], F]:
    """``-o``, ``--dry-run`` and ``--force``; the command gets ``output``, which is None where nothing is written.

    Args:
        kind: what the result is, as its name says it: ``model.onnx`` becomes ``model.<kind>.onnx``.
        argument: the parameter that holds the model.
        also: parameters of the command that are files to write too; None in a dry run.
    """

    def decorated(function: F) -> F:
        @functools.wraps(function)
        def gathered(*arguments: Any, output: Path | None, dry_run: bool, **others: Any) -> Any:
            if dry_run:
                return function(*arguments, output=None, **{**others, **dict.fromkeys(also)})
            return function(*arguments, output=output or place(others[argument], kind), **others)

        named = click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE.onnx",
            help=f"The result; its plan lands beside it. {argument.upper()}.{kind}.onnx beside the model if not given.",
        )
        return named(dry_run_option(force_option(gathered)))  # type: ignore[return-value]

    return decorated


def told(but: Sequence[Path] = ()) -> str:
    """One line that names what has been written and was not told of yet; empty where there is nothing.

    Args:
        but: what is told otherwise.
    """
    found = list(dict.fromkeys(str(path) for path in paths.appeared() if path not in but))
    return f"written: {', '.join(found)}" if found else ""


def place(model: Path, kind: str) -> Path:
    """Where a result goes that nobody named: beside its model, where the plan finds that again.

    Raises:
        click.UsageError: the model comes through a pipe.
    """
    if paths.is_stream(model):
        raise click.UsageError(f"{model} has no folder for the result: say where it goes by -o, or give --dry-run")
    if not model.name:
        raise click.UsageError(f"{str(model)!r} is no model, but a folder")
    return model.with_name(f"{model.stem}.{kind}.onnx")
