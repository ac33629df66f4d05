"""How images, sounds and texts become inputs: options that every command has that takes some."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from graphprune.errors import InputError
from graphprune.run.reading import asked

F = TypeVar("F", bound=Callable[..., Any])
CALIBRATION = "FILE|FOLDER|MODULE:FUNCTION|generated"
"""What ``--calibration`` takes, in the words of its help."""


def preparing_options(source: str) -> Callable[[F], F]:
    """``--preprocess`` and ``--tokenizer``, gathered into the source of inputs.

    Args:
        source: the parameter that says where inputs come from.
    """

    def decorated(function: F) -> F:
        @functools.wraps(function)
        def gathered(*arguments: Any, preprocess: tuple[str, ...], tokenizer: str | None, **others: Any) -> Any:
            said = asked.named(preprocess) | ({} if tokenizer is None else {"tokenizer": tokenizer})
            if said and others[source] is None:
                raise InputError(f"--preprocess and --tokenizer say how inputs are read: give some by --{source}")
            if said:
                others[source] = {asked.FROM: others[source], **said}
            return function(*arguments, **others)

        made = click.option(
            "--tokenizer", metavar="TOKENIZER.json", help="What makes ids of texts; beside texts or model if not given."
        )(gathered)
        return click.option(
            "--preprocess",
            multiple=True,
            metavar="KEY=VALUE|FILE.json",
            help="How images, sounds or texts are read, as fit=letterbox, rate=16000, length=128, or a file that says "
            "it; repeatable. If not given, files beside them and the model say it, and its metadata.",
        )(made)  # type: ignore[return-value]

    return decorated
