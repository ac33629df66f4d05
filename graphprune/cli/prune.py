"""``graphprune prune``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.cli import report
from graphprune.cli.options import (
    distill_option,
    model_argument,
    output_options,
    proof_options,
    shape_options,
    show,
    time_options,
)
from graphprune.cli.result import print_result
from graphprune.cli.saving import recipe_option, save_recipe
from graphprune.cli.watching import watched
from graphprune.errors import TargetError
from graphprune.model import paths
from graphprune.passes import recipes
from graphprune.passes.aim.meet import Meet
from graphprune.passes.depth.depth import Request
from graphprune.passes.depth.influence import SCORES
from graphprune.passes.fit.compensation import COMPENSATIONS
from graphprune.passes.metric import FIDELITY
from graphprune.passes.running import run_recipe
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.masks import AUTO, METHODS
from graphprune.passes.sparse.store import STORES
from graphprune.passes.state import Job
from graphprune.relation import Shape
from graphprune.verdict.checks import Checks


@click.command("prune")
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pruned model; its plan lands beside it.")
@click.option("--ratio", type=float, help="Share of each group's classes to remove, 0 to below 1.")
@click.option(
    "--target",
    multiple=True,
    metavar="KIND=VALUE",
    help="What the result is to come to: macs=0.5, params=3e6, bytes=10M, speedup=1.5, latency=12ms, drop=0.01; "
    "repeatable, all hold. Numbers up to 1 are shares of the original.",
)
@click.option("--nearest", is_flag=True, help="Where --target cannot be met, write what comes nearest; still exits 1.")
@click.option(
    "--metric",
    default=FIDELITY[0],
    show_default=True,
    metavar="NAME|MODULE:FUNCTION",
    help=f"What --target drop measures: {', '.join(FIDELITY)} (to the original, on held-out inputs), or your score.",
)
@click.option("--steps", type=int, default=1, show_default=True, help="In how many rounds it goes; each fits.")
@click.option("--blocks", type=int, default=0, help="How many whole blocks to remove, the least important first.")
@click.option("--remove-block", multiple=True, metavar="ID", help="Blocks to remove (or choose from), by id or glob.")
@click.option("--block-score", type=click.Choice(SCORES), default=SCORES[0], show_default=True, help="For --blocks.")
@click.option("--calibration", metavar="FILE.npz|FOLDER|MODULE:FUNCTION|generated", help="Inputs to choose and fit on.")
@click.option(
    "--criterion",
    metavar="NAME",
    help="auto (if not given: obs with --calibration, else magnitude), activation, fisher, taylor, snip, movement, "
    "random, or another's.",
)
@click.option("--uniform", is_flag=True, help="The same share of every group, whatever --calibration shows.")
@click.option(
    "--search",
    metavar="CANDIDATES|TIME",
    help="Look for which layers give how much, on held-out --calibration inputs: 40 candidates, 10m.",
)
@click.option("--compensate", type=click.Choice(COMPENSATIONS), help="What makes up for it; refit with --calibration.")
@click.option("--no-compensate", is_flag=True, help="The same as --compensate none.")
@click.option("--pattern", metavar="N:M|1xW|unstructured", help="Make the rest sparse too; TensorRT reads 2:4.")
@click.option("--method", type=click.Choice([AUTO, *METHODS]), help="For --pattern, as of sparsify.")
@click.option("--permute", is_flag=True, help="For --pattern: let channels change places so that it keeps more.")
@click.option("--amount", type=float, help="For --pattern: share of weights that go, where it does not say itself.")
@click.option("--store", type=click.Choice(STORES), default=STORES[0], help="Weights in the file; dense if not given.")
@click.option("--packed", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Sparse weights, packed.")
@click.option("--align", type=int, help="Round widths up to a multiple of this; 4 where it costs little if not given.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only groups with this id or node name; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not groups with this id or node name; repeatable.")
@click.option("--allow-statistical", is_flag=True, help="Also groups that a mean runs over, at a reported error.")
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
def command(
    model: Path,
    output: Path | None,
    ratio: float | None,
    target: tuple[str, ...],
    nearest: bool,
    metric: str,
    steps: int,
    blocks: int,
    remove_block: tuple[str, ...],
    block_score: str,
    calibration: str | None,
    criterion: str | None,
    uniform: bool,
    search: str | None,
    compensate: str | None,
    no_compensate: bool,
    pattern: str | None,
    method: str | None,
    permute: bool,
    amount: float | None,
    store: str,
    packed: Path | None,
    align: int | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    allow_statistical: bool,
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

    Without -o nothing is written: the result is proven and reported only.
    """
    if ratio is None and not target and not blocks and not remove_block:
        raise click.UsageError("nothing is asked for: give --target, --ratio, --blocks or --remove-block")
    if pattern is None and (method or permute):
        raise click.UsageError("--method and --permute go with --pattern")
    job = Job(input_shapes, allow_io, not no_proof, calibration, seed, seconds)
    meet = Meet(target, nearest, metric) if target else None
    wish = recipes.Wish(
        ratio or 0.0, align, include, exclude, allow_statistical, criterion, uniform, steps, meet, search
    )
    recipe = recipes.pruning(
        wish,
        job,
        Request(remove_block, blocks, block_score),
        None if pattern is None else sparse.Request(pattern, method, permute, amount),
        "none" if no_compensate else compensate,
        Checks(tensorrt=trt) if validated or trt else None,
        store,
        distill,
    )
    paths.writes("the recipe", saved)
    with watched(quiet) as progress:
        result = run_recipe(recipe, model, output, plan=plan, packed=packed, progress=progress, resume=resume)
        save_recipe(recipe, saved)
    show(report.result_data(result), json_to, quiet, lambda out: print_result(out, result, verbose))
    if result.met is not None and result.met.missed:
        raise TargetError(
            f"{result.met.missed}; {'what comes nearest was written' if output else 'nothing was written'}"
        )
