"""``graphprune apply``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.cli.options import output_options, proof_options, shape_options
from graphprune.cli.pages.asking import report_option
from graphprune.cli.result import show_result
from graphprune.cli.watching import watched
from graphprune.cli.writing import result_options
from graphprune.passes.jobs import apply
from graphprune.relation import Shape


@click.command("apply")
@click.argument("plan", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@result_options("pruned")
@click.option(
    "--original",
    type=click.Path(path_type=Path),
    help="The model that PLAN was made for, where MODEL is another file of the same network, with the same weights.",
)
@click.option(
    "--fitted",
    type=click.Path(path_type=Path),
    help="With --original: the pruned model of PLAN; weights that were fitted there get the same values here.",
)
@shape_options
@proof_options
@output_options
@report_option
def command(
    plan: Path,
    model: Path,
    output: Path | None,
    original: Path | None,
    fitted: Path | None,
    input_shapes: dict[str, Shape],
    no_proof: bool,
    seed: int,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Redo PLAN on MODEL: the same model, another precision of it, or another file of the same network.

    A decoder that is split in two (one that starts, one that goes on with a cache) is cut by one plan so: prune one,
    then apply its plan to the other with --original, and --fitted where it was calibrated.
    """
    with watched(quiet) as progress:
        result = apply(
            plan,
            model,
            output,
            original=original,
            fitted=fitted,
            input_shapes=input_shapes,
            prove=not no_proof,
            seed=seed,
            progress=progress,
        )
    show_result(result, model, json_to, quiet, verbose)
