"""``graphprune prune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from graphprune.cli.blocks import block_options
from graphprune.cli.moderate import moderately, print_next
from graphprune.cli.options import (
    distill_option,
    model_argument,
    output_options,
    proof_options,
    shape_options,
    time_options,
)
from graphprune.cli.pages.asking import report_option
from graphprune.cli.preparing import CALIBRATION, preparing_options
from graphprune.cli.reshaping import reshaping_options
from graphprune.cli.result import show_result
from graphprune.cli.saving import recipe_option, save_recipe
from graphprune.cli.targets import target_options
from graphprune.cli.thinning import pattern_options
from graphprune.cli.watching import watched
from graphprune.cli.wishes import wish_options
from graphprune.cli.writing import result_options
from graphprune.errors import TargetError
from graphprune.model import paths
from graphprune.passes import recipes
from graphprune.passes.aim.meet import Meet
from graphprune.passes.depth.depth import Request
from graphprune.passes.fit.compensation import COMPENSATIONS
from graphprune.passes.running import run_recipe
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.store import STORES
from graphprune.passes.state import Job
from graphprune.relation import Shape
from graphprune.run.calibration import Source
from graphprune.verdict.checks import Checks


@click.command("prune")
@model_argument
@result_options("pruned", also=("plan", "packed", "saved"))
@wish_options
@reshaping_options
@target_options
@block_options
@click.option("--calibration", metavar=CALIBRATION, help="Inputs to choose and fit on.")
@preparing_options("calibration")
@click.option("--compensate", type=click.Choice(COMPENSATIONS), help="What makes up for it; refit with --calibration.")
@click.option("--no-compensate", is_flag=True, help="The same as --compensate none.")
@pattern_options
@click.option("--store", type=click.Choice(STORES), default=STORES[0], help="Weights in the file; dense if not given.")
@click.option("--packed", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Sparse weights, packed.")
@click.option("--allow-io", is_flag=True, help="Also what shrinks inputs and outputs that carry a state (caches).")
@click.option("--plan", type=click.Path(path_type=Path), help="Where to write the plan instead.")
@click.option("--validate", "validated", is_flag=True, help="Judge the result too, as 'validate' does, before writing.")
@click.option("--trt", is_flag=True, help="TensorRT must build the result; implies --validate.")
@distill_option
@recipe_option
@shape_options
@proof_options
@time_options
@output_options
@report_option
def command(
    model: Path,
    output: Path | None,
    wish: recipes.Wish,
    meet: Meet | None,
    blocks: Request | None,
    calibration: Source | None,
    compensate: str | None,
    no_compensate: bool,
    sparsity: sparse.Request | None,
    store: str,
    packed: Path | None,
    allow_io: bool,
    plan: Path | None,
    validated: bool,
    trt: bool,
    distill: str | bool,
    saved: Path | None,
    input_shapes: dict[str, Shape],
    no_proof: bool,
    seed: int,
    seconds: float | None,
    resume: Path | None,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Remove the least important channels, heads, features and blocks of MODEL, and prove that it was done right.

    Where nothing says how much is to go, little goes. The result is MODEL.pruned.onnx beside MODEL if -o names no
    other, with its plan.
    """
    asked = bool(wish.asks or meet or blocks or wish.reshapes)
    if not asked:
        meet, calibration = moderately(calibration)
    job = Job(input_shapes, allow_io, not no_proof, calibration, seed, seconds)
    recipe = recipes.pruning(
        replace(wish, target=meet and replace(meet, blocks=blocks is not None)),
        job,
        blocks,
        sparsity,
        "none" if no_compensate else compensate,
        Checks(tensorrt=trt) if validated or trt else None,
        store,
        distill,
    )
    paths.writes("the recipe", saved)
    with watched(quiet) as progress:
        result = run_recipe(recipe, model, output, plan=plan, packed=packed, progress=progress, resume=resume)
        save_recipe(recipe, saved)

    def more(out: Console) -> None:
        if not asked:
            print_next(out, result, model, calibration, input_shapes)

    show_result(result, model, json_to, quiet, verbose, more)
    if asked and result.met is not None and result.met.missed:
        raise TargetError(
            f"{result.met.missed}; {'what comes nearest was written' if output else 'nothing was written'}"
        )
