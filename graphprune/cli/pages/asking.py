"""``--report``: what a command shows, as a page too.

An option of a command is one line, ``@report_option`` below ``@output_options``: where the page goes is kept in the
context of the command, and what is shown as a table or as JSON is written there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.errors import InputError
from graphprune.model import files, paths

F = TypeVar("F", bound=Callable[..., Any])
SUFFIX = ".html"
_KEY = "graphprune.report"


def report_option(function: F) -> F:
    """``--report``; the function is not told."""

    @functools.wraps(function)
    def within(*arguments: Any, report_to: Path | None, **others: Any) -> Any:
        if report_to is not None:
            ask(report_to)
        return function(*arguments, **others)

    return click.option(
        "--report",
        "report_to",
        type=click.Path(path_type=Path),
        metavar="FILE.html",
        help="Show it as a page too: one file with pictures, which needs no network.",
    )(within)  # type: ignore[return-value]


def ask(path: Path) -> None:
    """Let what this command shows be written as a page.

    Raises:
        InputError: the place is no page, or it is read or written otherwise.
    """
    if path.suffix.lower() != SUFFIX and not paths.is_stream(path):
        raise InputError(f"--report {path}: a report is a page: give a name that ends in {SUFFIX}")
    context = click.get_current_context()
    if _KEY in context.meta:
        raise InputError(f"{path}: the report goes to {context.meta[_KEY]} already; give one place for it")
    paths.writes("the report", path)
    context.meta[_KEY] = path


def unasked() -> None:
    """Let this command write no page after all: there is nothing to show."""
    click.get_current_context().meta.pop(_KEY, None)


def asked() -> Path | None:
    """Where the page of this command goes; None where none is asked for."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_KEY)


def drawing(output: Path | None) -> Path | None:
    """Where the drawing of a study goes: a page is the report, and no drawing beside it."""
    if output is None or output.suffix.lower() != SUFFIX:
        return output
    ask(output)
    return None


def write(*shown: dict[str, Any]) -> None:
    """Write what a command shows as a page, where one is asked for.

    Args:
        shown: the JSON of the command, and of what else stands on its page.
    """
    path = asked()
    if path is not None:
        # pages are large to import, and most commands make none
        from graphprune.cli.pages import documents, page

        read: Sequence[documents.Document] = [
            one for data in shown for one in documents.read(json.loads(json.dumps(files.plain(data))), "the result")
        ]
        page.write(path, read)
