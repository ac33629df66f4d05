"""``graphprune init``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.analysis import analyze
from graphprune.cli.options import shape_options
from graphprune.cli.writing import force_option
from graphprune.model import paths
from graphprune.model.files import atomically
from graphprune.passes.shelf import shelf
from graphprune.passes.starting import starting
from graphprune.relation import Shape


@click.command("init")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--from", "name", metavar="NAME", help="A recipe of the package in place of it ('run --list' has them).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The recipe; printed if not given.")
@shape_options
@force_option
def command(
    model: Path | None, name: str | None, output: Path | None, input_shapes: dict[str, Shape], force: bool
) -> None:
    """Write a recipe to start from, fitted to MODEL, with comments that say what could be changed."""
    if (model is None) == (name is None):
        raise click.UsageError("give a MODEL that the recipe is to fit, or one of the package by --from")
    with paths.run():
        if not force:
            paths.keep()
        paths.writes("the recipe", output)
        text = shelf.text(name or "") if model is None else starting(analyze(model, input_shapes))
        if output is None:
            click.echo(text, nl=False)
            return
        atomically(output, lambda file: file.write(text.encode()))
    click.echo(f"written: {output}; try: graphprune run {output} {model or 'MODEL.onnx'} -o OUT.onnx")
