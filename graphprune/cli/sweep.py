"""``graphprune sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.options import (
    distill_option,
    model_argument,
    number,
    output_options,
    seed_option,
    shape_options,
    show,
)
from graphprune.cli.pages.asking import drawing, report_option
from graphprune.cli.preparing import CALIBRATION, preparing_options
from graphprune.cli.studies import study_options
from graphprune.cli.tables import Column, listing
from graphprune.cli.watching import watched
from graphprune.cli.wishes import wish_options
from graphprune.cli.words import change
from graphprune.cli.writing import force_option
from graphprune.errors import InputError, TargetError
from graphprune.passes.recipes import Wish
from graphprune.passes.state import Job
from graphprune.passes.study.points import Point, Sweep
from graphprune.passes.study.sweep import PRUNE, sweep
from graphprune.passes.study.variants import AnyRecipe, as_pruned
from graphprune.relation import Shape
from graphprune.run.calibration import Source


def _shares(_: click.Context, __: click.Parameter, given: Sequence[str]) -> list[float]:
    try:
        return [float(part) for text in given for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--ratios {','.join(given)}: give shares between commas, as 0.1,0.3") from error


@click.command("sweep")
@model_argument
@click.argument("more", nargs=-1, metavar="", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draws it; .html: --report.")
@click.option(
    "--targets",
    multiple=True,
    metavar="KIND=VALUE,VALUE",
    help="What runs are to come to, each value one: macs=0.3,0.5,0.7, speedup=1.5,2, and all of --target; repeatable.",
)
@click.option(
    "--ratios", "shares", multiple=True, metavar="SHARE,SHARE", callback=_shares, help="The same by share of classes."
)
@click.option(
    "--recipes",
    multiple=True,
    metavar="A.toml B.toml",
    type=click.Path(path_type=Path),
    help="Behind MODEL: recipes that each run takes, in place of what prune would do.",
)
@click.option("--calibration", metavar=CALIBRATION, help="Inputs of all runs.")
@preparing_options("calibration")
@study_options
@wish_options
@distill_option
@click.option("--latency", is_flag=True, help="Time all results beside the original, at the end.")
@click.option("--device", default="cpu", metavar="cpu|cuda|PROVIDER", help="For speed: where ONNX Runtime runs.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="For speed: within one operator; 0 is all.")
@click.option("--models", type=click.Path(path_type=Path), metavar="DIR", help="Keep the models, with their plans.")
@shape_options
@seed_option
@force_option
@output_options
@report_option
def command(
    model: Path,
    more: tuple[Path, ...],
    output: Path | None,
    recipes: tuple[Path, ...],
    calibration: Source | None,
    shares: list[float],
    wish: Wish,
    distill: str | bool,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
    **others: Any,
) -> None:
    """Prune MODEL to several targets, and say which results nothing else beats by score and MACs, or by speed."""
    if more and not recipes:
        raise click.UsageError(f"Got unexpected extra argument ({more[0]}); recipes stand behind --recipes")
    chosen: Sequence[AnyRecipe] | dict[str, AnyRecipe] = [*recipes, *more]
    if recipes and (wish != Wish() or distill is not False):
        raise click.UsageError("--recipes say what is done: options of prune have no place beside them")
    if wish.ratio:
        raise click.UsageError("--ratio is for one run: give --ratios 0.1,0.3, or --ratio GLOB=SHARE for some groups")
    if not recipes:
        job = Job(calibration=calibration)
        chosen = {PRUNE: as_pruned(wish, job, distill)}
    drawn = drawing(output)
    with watched(quiet) as progress:
        found = sweep(
            model,
            drawn,
            ratios=shares,
            recipes=chosen,
            calibration=calibration,
            input_shapes=input_shapes,
            progress=progress,
            **others,
        )
    show(found.to_json(), json_to, quiet, lambda out: _print(out, found, verbose))
    if found.points and all(point.reason is not None for point in found.points):
        raise TargetError(f"{found.model}: none of {len(found.points)} runs comes to what was asked for")


def _print(out: Console, found: Sweep, verbose: bool) -> None:
    whole = "not known yet" if found.original is None else f"{found.original:.4g}"
    out.print(
        Text(
            f"{found.model}: {number(found.macs)} MACs, {number(found.parameters)} parameters, "
            f"{number(found.bytes)}B; {found.metric} {whole}"
        )
    )
    _print_points(out, found)
    timed = "; + the same by time" if found.timed is not None else ""
    out.print(Text(f"* no other result, nor the original, has a better score with as few MACs{timed}"))
    for point in found.points:
        if point.reason is not None or (point.came is not None and point.came.missed):
            name = f"{point.recipe}, {point.asked}" if len(found.recipes) > 1 else point.asked
            out.print(Text(f"{name}: {point.reason or (point.came and point.came.missed)}"))
    if found.missing:
        out.print(Text(f"{found.missing} models are still to be judged by other shards"))
    for note in found.notes:
        out.print(Text(note))
    if verbose:
        for note in dict.fromkeys(note for point in found.points if point.came for note in point.came.notes):
            out.print(Text(note))


def _print_points(out: Console, found: Sweep) -> None:
    several, timed = len(found.recipes) > 1, found.timed is not None  # then parameters have no room
    names = ["", "MACs", "", *["params"] * (not timed), "bytes", "score", "drop", *["times as fast"] * timed]
    columns = [*[Column("asked", text=True)] * several, *map(Column, names)]
    rows = []
    for point, on, fast in zip(found.points, found.front("macs")[0], found.front("latency")[0], strict=True):
        row = [*[point.recipe] * several, point.asked, "*" * on + "+" * fast, *_told(found, point)]
        rows.append(row + [""] * (len(columns) + 1 - len(row)))
    listing(out, "recipe" if several else "asked", columns, rows)


def _told(found: Sweep, point: Point) -> list[str]:
    came, drop = point.came, found.drop(point)
    if came is None:
        return ["not yet" if point.reason is None else "not met"]
    speed = (
        "" if point.speed is None else f"{point.speed.speedup:.2f} ({point.speed.low:.2f} to {point.speed.high:.2f})"
    )
    costs = [number(came.macs), change(found.macs, came.macs), f"{number(came.bytes)}B"]
    if found.timed is None:
        costs.insert(2, number(came.parameters))
    score = "broken" if came.score is None else f"{came.score:.4f}"
    return [*costs, score, "" if drop is None else f"{drop:.4f}", *[speed] * (found.timed is not None)]
