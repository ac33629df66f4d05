"""Arguments that several subcommands share, grouped by what they configure, and how results are shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from graphprune import files
from graphprune.relation import Shape

F = TypeVar("F", bound=Callable[..., Any])

model_argument = click.argument("model", type=click.Path(path_type=Path))


def shape_options(function: F) -> F:
    """``--input-shape``."""
    return click.option(
        "--input-shape",
        "input_shapes",
        multiple=True,
        metavar="NAME=1x3x48x320",
        help="Size of an input whose free dims cannot be guessed; repeatable.",
        callback=_shapes,
    )(function)


def output_options(function: F) -> F:
    """``--json``, ``-v``, ``-q``."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
        click.option("-v", "--verbose", is_flag=True, help="Print every group and reason."),
        click.option(
            "--json",
            "json_to",
            is_flag=False,
            flag_value="-",
            metavar="[FILE]",
            help="Result as JSON, to FILE or stdout.",
        ),
    ):
        function = option(function)
    return function


def seed_option(function: F) -> F:
    """``--seed``."""
    return click.option("--seed", default=0, show_default=True, help="Seed of the generated inputs.")(function)


def proof_options(function: F) -> F:
    """``--no-proof`` and ``--seed``."""
    no_proof = click.option("--no-proof", is_flag=True, help="Do not compare with the masked original.")
    return no_proof(seed_option(function))


def _shapes(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        if not equals or not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", sizes):
            raise click.BadParameter(f"{text!r} is not like NAME=1x3x48x320")
        found[name] = tuple(int(s) for s in re.split("[x,]", sizes))
    return found


def show(data: dict[str, Any], json_to: str | None, quiet: bool, table: Callable[[Console], None]) -> None:
    """Print a result as a table, and write it as JSON where asked."""
    if json_to == "-":
        click.echo(json.dumps(data, indent=1))
        return
    if json_to is not None:
        files.write_json(Path(json_to), data)
    if not quiet:
        table(console())


def console() -> Console:
    """Standard output; as wide as the text needs where it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


def number(value: float) -> str:
    """A count in three digits and a unit: ``25.6 M``."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}"


def change(before: float, after: float) -> str:
    """``-38.0 %``."""
    return "" if not before else f"{100 * (after / before - 1):+.1f} %"
