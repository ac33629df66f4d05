"""``graphprune graph``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphprune.analysis import Analysis, analyze, blocks
from graphprune.cli.boundary import printing
from graphprune.cli.harmless import harmless
from graphprune.cli.options import model_argument, shape_options
from graphprune.cli.pictures import drawing, explorer
from graphprune.cli.pictures.cut import Cut, cut
from graphprune.cli.pictures.drawing import Picture
from graphprune.cli.pictures.group import group_picture
from graphprune.cli.pictures.whole import block_picture, overview
from graphprune.cli.watching import watched
from graphprune.cli.writing import force_option, told
from graphprune.errors import InputError
from graphprune.model import files, naming, paths
from graphprune.relation import Shape
from graphprune.rewrite import plan as plans


@click.command("graph")
@model_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.svg|.png|.pdf|.dot",
    help="Draw it there; without it Graphviz's source is printed.",
)
@click.option("--group", "of_group", metavar="GROUP", help="The operators that this group couples.")
@click.option("--block", "of_block", metavar="BLOCK", help="This block, with what is around it.")
@click.option("--plan", "of_plan", type=click.Path(path_type=Path), metavar="PLAN", help="Show what this plan takes.")
@click.option(
    "--model-explorer",
    "data",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Node data for Model Explorer: groups there, FILE.removed.json and FILE.sensitivity.json beside it.",
)
@click.option(
    "--sensitivity",
    type=click.Path(path_type=Path),
    metavar="JSON",
    help="What 'sensitivity --json' wrote, for --model-explorer.",
)
@click.option("--allow-io", is_flag=True, help="Also what holds a state that callers carry round (caches).")
@shape_options
@force_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="A traceback where there is a fault.")
def command(
    model: Path,
    output: Path | None,
    of_group: str | None,
    of_block: str | None,
    of_plan: Path | None,
    data: Path | None,
    sensitivity: Path | None,
    allow_io: bool,
    input_shapes: dict[str, Shape],
    force: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Draw MODEL: the whole, what a group couples, or a block; with a plan, what goes."""
    if of_group is not None and of_block is not None:
        raise click.UsageError("--group and --block are two pictures; give one of them")
    if sensitivity is not None and data is None:
        raise click.UsageError("--sensitivity is for --model-explorer FILE.json")
    if output is not None or data is None:
        drawing.ready(output)
    with paths.run():
        if not force:
            paths.keep()
        for what, path in (("the model", model), ("the plan", of_plan), ("the sensitivities", sensitivity)):
            paths.reads(what, path)
        paths.writes("the picture", output)
        kinds = explorer.kinds(of_plan is not None, sensitivity is not None)
        for kind in kinds if data is not None else ():
            paths.writes("the node data", explorer.place(data, kind))
        made = None if of_plan is None else plans.load(of_plan)
        with watched(quiet, "analyze"):
            taken = cut(analyze(model, input_shapes, allow_io=allow_io), made)
            picture = None if data is not None and output is None else _picture(taken, of_group, of_block)
        if data is not None:
            study = None if sensitivity is None else explorer.study(sensitivity, taken)
            for kind in kinds:
                files.write_json(explorer.place(data, kind), explorer.node_data(taken, kind, study))
        if picture is not None and output is not None:
            drawing.draw(picture, output)
        paths.commit()
        written = told()
    with printing():
        if picture is not None and output is None:
            click.echo(drawing.source(picture))
        elif written and not quiet:
            click.echo(harmless(written))


def _picture(taken: Cut, of_group: str | None, of_block: str | None) -> Picture:
    """The picture that is asked for.

    Raises:
        InputError: there is no such group or block.
    """
    analysis = taken.analysis
    if of_group is not None:
        found = analysis.group(of_group)
        if found is None:
            raise _unknown(analysis, "group", of_group, [g.id for g in [*analysis.groups, *analysis.fixed]])
        return group_picture(taken, found)
    if of_block is not None:
        known = blocks.find_blocks(analysis)
        block = known.get(of_block)
        if block is None:
            raise _unknown(analysis, "block", of_block, [b.id for b in known.blocks])
        return block_picture(taken, block)
    return overview(taken)


def _unknown(analysis: Analysis, what: str, name: str, known: list[Any]) -> InputError:
    hint = naming.near(name, known, 3, "; 'graphprune inspect' lists them")
    return InputError(f"{analysis.model.name}: no {what} is called {name!r}{hint}")
