"""``graphprune report``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.cli.boundary import printing
from graphprune.cli.pages import documents, page
from graphprune.cli.pages.asking import SUFFIX
from graphprune.cli.writing import force_option
from graphprune.errors import InputError
from graphprune.model import paths


@click.command("report")
@click.argument("files", nargs=-1, required=True, metavar="PLAN|JSON...", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.html", help="The page; report.html.")
@force_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print a traceback where there is a fault.")
def command(files: tuple[Path, ...], output: Path | None, force: bool, quiet: bool, verbose: bool) -> None:
    """Show what runs came to as one page: plans, and the JSON of any command (--json FILE), together.

    What is about one model stands together. The page is one file: it needs no network and loads nothing.
    """
    place = Path(f"report{SUFFIX}") if output is None else output
    if place.suffix.lower() != SUFFIX and not paths.is_stream(place):
        raise InputError(f"-o {place}: a report is a page: give a name that ends in {SUFFIX}")
    with paths.run():
        if not force:
            paths.keep()
        paths.writes("the report", place)
        page.write(place, [one for path in files for one in documents.load(path)])
        paths.commit()
    if not quiet and not paths.is_stream(place):
        with printing():
            click.echo(f"written: {place}")
