"""``graphprune run``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli import report
from graphprune.cli.harmless import on_one_line
from graphprune.cli.options import number, output_options, shape_options, show, time_options
from graphprune.cli.pages.asking import report_option, unasked
from graphprune.cli.preparing import CALIBRATION, preparing_options
from graphprune.cli.result import print_result
from graphprune.cli.watching import watched
from graphprune.cli.words import change
from graphprune.cli.writing import dry_run_option, force_option, place, told
from graphprune.passes import several, toml
from graphprune.passes.shelf import shelf
from graphprune.passes.shelf.filling import filled
from graphprune.relation import Shape


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        for name in shelf.names():
            click.echo(f"{name}: {shelf.about(name)}")
        context.exit()


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.toml|NAME")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.onnx|FOLDER",
    help="The result; of several models a folder. MODEL.pruned.onnx beside each if not given.",
)
@dry_run_option
@force_option
@click.option("--calibration", metavar=CALIBRATION, help="Inputs, for the recipe's.")
@preparing_options("calibration")
@click.option("--target", "targets", multiple=True, metavar="KIND=VALUE", help="What it is to come to.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Recipes of the package.")
@shape_options
@time_options
@output_options
@report_option
def command(
    recipe: Path,
    models: tuple[Path, ...],
    output: Path | None,
    dry_run: bool,
    calibration: str | Mapping[str, Any] | None,
    targets: tuple[str, ...],
    input_shapes: dict[str, Shape],
    seconds: float | None,
    resume: Path | None,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Do what a recipe says to each MODEL; one that fails does not stop the others.

    The exit status is that of the worst. A recipe to start from is written by 'graphprune init'; a NAME is that of one
    of the package.
    """
    read = filled(toml.load(recipe), calibration, targets)
    if seconds is not None:
        read = replace(read, job=replace(read.job, time=seconds))
    places = None if dry_run else _places(models, output)
    with watched(quiet) as progress:
        outcomes = several.run_all(read, models, places, input_shapes=input_shapes, progress=progress, resume=resume)
    status = max(one.status for one in outcomes)
    data = {
        "format": "graphprune-run/1",
        "recipe": str(recipe),
        "status": status,
        "models": [_data(one) for one in outcomes],
    }
    if all(one.result is None for one in outcomes):
        unasked()  # a page would show nothing, and hide why
    show(data, json_to, quiet, lambda out: _print(out, outcomes, verbose))
    for one in outcomes:
        if one.error is not None:
            named = one.error if one.model.name in one.error else f"{one.model}: {one.error}"
            click.echo(f"graphprune: error: {on_one_line(named)}", err=True)
    if status:
        sys.exit(status)


def _places(models: Sequence[Path], output: Path | None) -> Sequence[Path]:
    return [place(model, "pruned") for model in models] if output is None else several.places(models, output)


def _data(outcome: several.Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"file": str(outcome.model), "status": outcome.status, "error": outcome.error}
    return found if outcome.result is None else found | report.result_data(outcome.result)


def _print(out: Console, outcomes: list[several.Outcome], verbose: bool) -> None:
    """A line for each model; of a single one all that there is to say."""
    if len(outcomes) == 1 and outcomes[0].result is not None:
        print_result(out, outcomes[0].result, verbose)
        return
    for one in outcomes:
        if one.result is None:
            continue  # told on standard error, as every error is
        before, after, proof = one.result.before, one.result.after, one.result.proof
        proven = "no proof" if proof is None else f"proof {proof.worst:.1e}"
        where = f", written: {one.result.output}" if one.result.output else ""
        out.print(
            Text(
                f"{one.model}: {number(after.parameters)} parameters "
                f"({change(before.parameters, after.parameters) or 'as before'}), {number(after.macs)} MACs "
                f"({change(before.macs, after.macs) or 'as before'}), {proven}{where}"
            ),
            soft_wrap=True,
        )
    if written := told([one.result.output for one in outcomes if one.result and one.result.output]):
        out.print(Text(written), soft_wrap=True)
