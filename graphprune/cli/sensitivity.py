"""``graphprune sensitivity``."""

from __future__ import annotations

import math
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.options import model_argument, number, output_options, seed_option, shape_options, show
from graphprune.cli.pages.asking import drawing, report_option
from graphprune.cli.preparing import CALIBRATION, preparing_options
from graphprune.cli.studies import study_options
from graphprune.cli.tables import Column, listing
from graphprune.cli.watching import watched
from graphprune.cli.writing import force_option
from graphprune.errors import InputError
from graphprune.passes.study.curves import SORTS, STEPS, Curve, Sensitivity, blocks
from graphprune.passes.study.sensitivity import LEVELS, sensitivity
from graphprune.relation import Shape
from graphprune.run.calibration import Source

_ROWS = 40


def _levels(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--levels {text}: give shares between commas, as 0.1,0.25,0.5") from error


@click.command("sensitivity")
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draws it; .html: --report.")
@click.option("--calibration", metavar=CALIBRATION, help="Inputs; a quarter judges.")
@preparing_options("calibration")
@study_options
@click.option(
    "--levels",
    default=",".join(f"{level:g}" for level in LEVELS),
    show_default=True,
    callback=_levels,
    help="Shares of the classes of each set of groups that go.",
)
@click.option("--criterion", metavar="NAME", help="By what classes are ranked, as of prune; obs if not given.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only these groups, as of prune; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these groups, as of prune; repeatable.")
@click.option("--allow-statistical", is_flag=True, help="Also groups that a mean runs over.")
@click.option("--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="Drop per MAC saved first.")
@shape_options
@seed_option
@force_option
@output_options
@report_option
def command(
    model: Path,
    output: Path | None,
    calibration: Source | None,
    metric: str,
    levels: list[float],
    criterion: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    allow_statistical: bool,
    sort: str,
    folder: Path | None,
    jobs: int | None,
    shard: str | None,
    input_shapes: dict[str, Shape],
    seed: int,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Say how much each group of MODEL can lose: one set of groups at a time, at several levels, readers refitted."""
    drawn = drawing(output)
    with watched(quiet) as progress:
        found = sensitivity(
            model,
            drawn,
            calibration=calibration,
            metric=metric,
            levels=levels,
            criterion=criterion,
            include=include,
            exclude=exclude,
            allow_statistical=allow_statistical,
            input_shapes=input_shapes,
            seed=seed,
            folder=folder,
            jobs=jobs,
            shard=shard,
            sort=sort,
            progress=progress,
        )
    show(found.to_json(), json_to, quiet, lambda out: _print(out, found, sort, verbose))


def _print(out: Console, found: Sensitivity, sort: str, verbose: bool) -> None:
    whole = "not known yet" if found.original is None else f"{found.original:.4g}"
    out.print(
        Text(
            f"{found.model}: {number(found.parameters)} parameters, {number(found.macs)} MACs, "
            f"{found.metric} {whole}; drop as each set alone loses classes by {found.criterion}"
        )
    )
    curves = found.sorted(sort)
    _print_curves(out, found, curves if verbose else curves[:_ROWS])
    if len(curves) > _ROWS and not verbose:
        out.print(Text(f"... and {len(curves) - _ROWS} more (-v lists all)"))
    if found.missing:
        out.print(Text(f"{found.missing} models are still to be judged by other shards"))
    for note in found.notes:
        out.print(Text(note))
    if found.untouched:
        group, reason = found.untouched[0]
        out.print(Text(f"left out: {len(found.untouched)}, the first of them {group!r}: {reason}"))


def _print_curves(out: Console, found: Sensitivity, curves: list[Curve]) -> None:
    shares = [f"{100 * level:g} %" for level in found.levels]
    names = (*shares, f"MACs at {shares[-1]}", "drop per 1 %")
    columns = (Column("more"), Column("kind", text=True), Column("classes"), Column("", text=True), *map(Column, names))
    rows: list[list[str | Text]] = []
    for curve in curves:
        by_level = {point.level: point for point in curve.points}
        last = curve.points[-1] if curve.points else None
        price = found.price(curve)
        row: list[str | Text] = [
            curve.groups[0],
            f"+{len(curve.groups) - 1}" if len(curve.groups) > 1 else "",
            curve.kind,
            str(curve.size),
            _strip(found, curve),
            *(_drop(by_level[level].drop) if level in by_level else "" for level in found.levels),
            "" if last is None else f"{-100 * last.macs_saved / max(found.macs, 1):+.1f} %",
            "" if price is None else "inf" if math.isinf(price) else f"{price / 100:.2g}",
        ]
        rows.append(row)
    tied = any(len(curve.groups) > 1 for curve in curves)  # groups that lose the same classes as the one that is named
    if not tied:
        columns, rows = columns[1:], [[row[0], *row[2:]] for row in rows]
    listing(out, "group", columns, rows)


def _drop(drop: float | None) -> str:
    return "?" if drop is None else f"{drop:.3f}"


def _strip(found: Sensitivity, curve: Curve) -> Text:
    """Heat, as characters that say it without colour too."""
    text = Text()
    for sign, point in zip(blocks(found, curve.points), curve.points, strict=True):
        heat = found.heat(point)
        text.append(sign, style="green" if heat <= STEPS // 4 else "yellow" if heat <= STEPS // 2 else "red")
    return text
