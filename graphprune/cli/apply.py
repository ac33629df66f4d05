"""``graphprune apply``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.cli import report
from graphprune.cli.options import output_options, proof_options, show
from graphprune.cli.result import print_result
from graphprune.cli.watching import watched
from graphprune.passes.jobs import apply


@click.command("apply")
@click.argument("plan", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pruned model; its plan lands beside it.")
@proof_options
@output_options
def command(
    plan: Path,
    model: Path,
    output: Path | None,
    no_proof: bool,
    seed: int,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Redo PLAN on MODEL: the same model, or another precision of it."""
    with watched(quiet) as progress:
        result = apply(plan, model, output, prove=not no_proof, seed=seed, progress=progress)
    show(report.result_data(result), json_to, quiet, lambda out: print_result(out, result, verbose))
