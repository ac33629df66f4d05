"""``graphprune sparsify``."""

from __future__ import annotations

from pathlib import Path

import click

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
from graphprune.cli.result import show_result
from graphprune.cli.saving import recipe_option, save_recipe
from graphprune.cli.watching import watched
from graphprune.cli.writing import result_options
from graphprune.model import paths
from graphprune.passes import recipes
from graphprune.passes.fit.compensation import COMPENSATIONS
from graphprune.passes.running import run_recipe
from graphprune.passes.sparse import sparse
from graphprune.passes.sparse.masks import AUTO, METHODS
from graphprune.passes.sparse.store import STORES
from graphprune.passes.sparse.targets import Scope
from graphprune.passes.state import Job
from graphprune.relation import Shape
from graphprune.run.calibration import Source
from graphprune.verdict.checks import Checks

_OFFERED = [c for c in COMPENSATIONS if c != "fold"]
"""Folding is about removed channels."""


@click.command("sparsify")
@model_argument
@result_options("sparse", also=("plan", "packed", "saved"))
@click.option("--pattern", default="2:4", show_default=True, metavar="N:M|1xW|unstructured", help="What stays.")
@click.option("--amount", type=float, help="Share of weights that go, for --pattern 1xW and unstructured.")
@click.option("--steps", type=int, default=1, show_default=True, help="In how many rounds; each fits what stays.")
@click.option("--rewind", is_flag=True, help="Each round fits from the original's values; for unstructured.")
@click.option(
    "--method",
    type=click.Choice([AUTO, *METHODS]),
    help="What stays; auto, if not given: sparsegpt with --calibration, magnitude without and for unstructured.",
)
@click.option("--permute", is_flag=True, help="Let channels change places so that the pattern keeps more.")
@click.option("--calibration", metavar=CALIBRATION, help="Inputs to choose and fit on.")
@preparing_options("calibration")
@click.option("--compensate", type=click.Choice(_OFFERED), help="What makes up for it; refit with --calibration.")
@click.option("--no-compensate", is_flag=True, help="The same as --compensate none.")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="These nodes, weights or modules and no others; repeatable."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these nodes, weights or modules; repeatable.")
@click.option("--also", multiple=True, metavar="GLOB", help="Also these, whatever speaks against them; repeatable.")
@click.option("--store", type=click.Choice(STORES), default=STORES[0], help="Weights in the file; dense if not given.")
@click.option("--packed", type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Also without their zeros.")
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
    pattern: str,
    amount: float | None,
    steps: int,
    rewind: bool,
    method: str | None,
    permute: bool,
    calibration: Source | None,
    compensate: str | None,
    no_compensate: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    also: tuple[str, ...],
    store: str,
    packed: Path | None,
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
    """Give the weights of MODEL an N:M pattern that sparse kernels read, and keep what matters.

    The result is MODEL.sparse.onnx beside MODEL if -o names no other, with its plan.
    """
    scope = Scope(include, exclude, also)
    recipe = recipes.pruning(
        recipes.Wish(),
        Job(input_shapes, False, not no_proof, calibration, seed, seconds),
        None,
        sparse.Request(pattern, method, permute, amount, scope, steps, rewind),
        "none" if no_compensate else compensate,
        Checks(tensorrt=trt) if validated or trt else None,
        store,
        distill,
    )
    paths.writes("the recipe", saved)
    with watched(quiet) as progress:
        result = run_recipe(recipe, model, output, plan=plan, packed=packed, progress=progress, resume=resume)
        save_recipe(recipe, saved)
    show_result(result, model, json_to, quiet, verbose)
