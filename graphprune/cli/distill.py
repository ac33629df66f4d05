"""``graphprune distill``."""

from __future__ import annotations

from pathlib import Path

import click

from graphprune.cli.options import output_options, seed_option, shape_options
from graphprune.cli.pages.asking import report_option
from graphprune.cli.preparing import CALIBRATION, preparing_options
from graphprune.cli.result import show_result
from graphprune.cli.saving import recipe_option, save_recipe
from graphprune.cli.watching import watched
from graphprune.cli.writing import result_options
from graphprune.model import paths
from graphprune.passes import recipes
from graphprune.passes.distill.distill import STEPS, Distill
from graphprune.passes.distill.subjects import TRAINED
from graphprune.passes.running import run_recipe
from graphprune.passes.state import Job
from graphprune.relation import Shape
from graphprune.run.calibration import Source
from graphprune.verdict.checks import Checks


@click.command("distill")
@click.argument("student", type=click.Path(path_type=Path))
@click.option("--teacher", required=True, metavar="ORIGINAL", help="The model that it was made of, and should do as.")
@result_options("distilled", "student", also=("saved",))
@click.option(
    "--calibration",
    required=True,
    metavar=CALIBRATION,
    help="Inputs to learn on; arrays 'label:OUTPUT' among them are learnt too.",
)
@preparing_options("calibration")
@click.option("--steps", type=int, help=f"How many steps; {STEPS} if neither they nor --time are given.")
@click.option("--time", metavar="90s|5m|1h", help="How long, in place of --steps.")
@click.option(
    "--loss",
    default="auto",
    show_default=True,
    metavar="kl|bernoulli|cosine|squares|FILE.onnx|MODULE:FUNCTION",
    help="How outputs are compared; auto looks at each.",
)
@click.option("--train", type=click.Choice(TRAINED), default=TRAINED[0], show_default=True, help="What is trained.")
@click.option("--rate", type=float, help="Of learning; found by short trials if not given.")
@click.option("--batch", type=int, default=16, show_default=True, help="Samples of a step.")
@click.option("--no-augment", is_flag=True, help="Pictures as they are; else shifted, zoomed, lit otherwise and mixed.")
@click.option("--labels", type=float, default=0.5, show_default=True, help="Share of labels, where there are any.")
@click.option("--include", multiple=True, metavar="GLOB", help="These weights or modules and no others; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Not these weights or modules; repeatable.")
@click.option("--plan", metavar="PLAN", help="The plan by which STUDENT was made of ORIGINAL; else equal shapes count.")
@click.option("--checkpoint", metavar="FILE", help="Keeps the training; one that was interrupted goes on from it.")
@click.option("--validate", "validated", is_flag=True, help="Judge the result too, as 'validate' does, before writing.")
@recipe_option
@shape_options
@seed_option
@output_options
@report_option
def command(
    student: Path,
    teacher: str,
    output: Path | None,
    calibration: Source,
    steps: int | None,
    time: str | None,
    loss: str,
    train: str,
    rate: float | None,
    batch: int,
    no_augment: bool,
    labels: float,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    plan: str | None,
    checkpoint: str | None,
    validated: bool,
    saved: Path | None,
    input_shapes: dict[str, Shape],
    seed: int,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Train what pruning has left of a model, STUDENT, to do as the original does.

    Shapes stay, and so do zeros. The result is STUDENT.distilled.onnx beside STUDENT if -o names no other.
    """
    one = Distill(
        steps, time, loss, train, rate, batch, not no_augment,
        labels=labels, teacher=teacher, plan=plan, checkpoint=checkpoint, include=include, exclude=exclude,
    )  # fmt: skip
    job = Job(input_shapes, calibration=calibration, seed=seed)
    recipe = recipes.distilling(one, job, Checks() if validated else None)
    paths.writes("the recipe", saved)
    with watched(quiet) as progress:
        result = run_recipe(recipe, student, output, progress=progress)
        save_recipe(recipe, saved)
    show_result(result, None, json_to, quiet, verbose)
