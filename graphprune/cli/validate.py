"""``graphprune validate``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.options import model_argument, number, output_options, seed_option, shape_options, show
from graphprune.relation import Shape
from graphprune.trt import CAPABILITIES
from graphprune.verdict import Level, Limits, Verdict, validate


@click.command("validate")
@model_argument
@click.option("--against", type=click.Path(path_type=Path), help="The original, to compare outputs and builds with.")
@click.option("--trt", is_flag=True, help="TensorRT must build it too.")
@click.option("--sm", metavar="86,89", help="Compute capabilities to compile for where there is no GPU; implies --trt.")
@click.option("--max-abs", type=float, help="Fail where an output differs by more than this.")
@click.option("--min-cosine", type=float, help="Fail where an output has a smaller cosine with the original's.")
@click.option("--timeout", type=float, default=600, show_default=True, help="Seconds for one build.")
@seed_option
@shape_options
@output_options
def command(
    model: Path,
    against: Path | None,
    trt: bool,
    sm: str | None,
    max_abs: float | None,
    min_cosine: float | None,
    timeout: float,
    seed: int,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Judge MODEL: ONNX's checker, ONNX Runtime, the original's outputs, TensorRT.

    Exit status 1 where a level fails.
    """
    if against is None and (max_abs is not None or min_cosine is not None):
        raise click.UsageError("--max-abs and --min-cosine compare with an original: give it by --against")
    verdict = validate(
        model,
        against,
        tensorrt=trt or sm is not None,
        capabilities=_capabilities(sm) if sm else CAPABILITIES,
        limits=Limits(max_abs, min_cosine),
        input_shapes=input_shapes,
        seed=seed,
        timeout=timeout,
    )
    show(verdict.to_json(), json_to, quiet, lambda out: _print(out, verdict, verbose))
    if not verdict.passed:
        sys.exit(1)


def _capabilities(text: str) -> list[tuple[int, int]]:
    parts = text.split(",")
    if not all(re.fullmatch(r"\d{2,3}", part) for part in parts):
        raise click.BadParameter(f"{text!r} is not like 86,89", param_hint="--sm")
    return [(int(part[:-1]), int(part[-1])) for part in parts]


def _print(out: Console, verdict: Verdict, verbose: bool) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("level", "", "what was found"):
        table.add_column(name, overflow="fold")
    for level in verdict.levels:
        table.add_row(level.name, level.status, Text(level.message or _summary(level)))
    out.print(Text(verdict.model))
    out.print(table)
    for level in verdict.levels if verbose else ():
        for name, values in level.details.get("outputs", {}).items():
            out.print(Text(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items())))


def _summary(level: Level) -> str:
    """What a level that passed measured, in one line."""
    details = level.details
    if level.name == "runtime":
        sizes = "one size" if len(details["sizes"]) == 1 else f"{len(details['sizes'])} sizes"
        return f"runs at {sizes} and {len(details['optimisation'])} levels of optimisation"
    if level.name == "comparison":
        outputs = details["outputs"].values()
        worst = min(outputs, key=lambda values: values["cosine"])
        text = f"cosine at least {worst['cosine']:.4f}, differs by up to {max(v['max_abs'] for v in outputs):.3g}"
        return text + (f", the winner is the same in {100 * worst['top1']:.0f} %" if "top1" in worst else "")
    if level.name == "tensorrt":
        return "; ".join(
            f"{name}: {found['layers']} layers, {number(found['engine_bytes'])}B, {found['seconds']:.1f} s"
            for name, found in details.items()
            if found["built"]
        )
    return ""
