"""``graphprune bench``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.options import inputs_option, number, output_options, seed_option, shape_options, show
from graphprune.cli.pages.asking import asked, report_option
from graphprune.cli.preparing import preparing_options
from graphprune.cli.tables import Column, listing
from graphprune.cli.watching import watched
from graphprune.errors import VerdictError
from graphprune.relation import Shape
from graphprune.verdict.timing import CONFIDENCE, Bench, bench

_NODES = 15
"""Nodes that are printed."""


@click.command("bench")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rounds", default=50, show_default=True, help="Each runs every model once, in turn.")
@click.option("--warmup", default=5, show_default=True, help="Rounds before, that do not count.")
@click.option("--threads", default=0, help="Threads within one operator; 0 leaves it to ONNX Runtime.")
@click.option("--provider", default="CPUExecutionProvider", show_default=True, help="Of ONNX Runtime.")
@click.option("--trt", is_flag=True, help="Time TensorRT engines instead; needs a GPU.")
@click.option("--layers", is_flag=True, help="Time each node too, by the runtime's profile; --report does so.")
@click.option("--min-speedup", type=float, help="Fail where a model is not this many times as fast as the first.")
@preparing_options("inputs")
@inputs_option
@seed_option
@shape_options
@output_options
@report_option
def command(
    models: tuple[Path, ...],
    rounds: int,
    warmup: int,
    threads: int,
    provider: str,
    trt: bool,
    layers: bool,
    min_speedup: float | None,
    inputs: str | Mapping[str, Any] | None,
    seed: int,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Time MODELS beside each other: the first is what the others are compared with."""
    with watched(quiet, "time"):
        found = bench(
            *models,
            input_shapes=input_shapes,
            inputs=inputs,
            threads=threads,
            provider=provider,
            tensorrt=trt,
            rounds=rounds,
            warmup=warmup,
            seed=seed,
            layers=layers or asked() is not None,
        )
    show(found.to_json(), json_to, quiet, lambda out: _print(out, found))
    if min_speedup is not None:
        slow = [r for r in found.ratios if r.speedup < min_speedup]
        if slow:
            each = "; ".join(f"{r.model} is {r.speedup:.2f} times as fast" for r in slow)
            raise VerdictError(f"{each}, less than {min_speedup:g}")


def _print(out: Console, found: Bench) -> None:
    sizes = ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in found.shapes.items())
    threads = f"{found.threads} threads" if found.threads else "the runtime's threads"
    out.print(Text(f"{found.rounds} rounds at {sizes}, {found.provider}, {threads}"))
    columns = ("median ms", "quartiles", "times as fast", f"{100 * CONFIDENCE:.0f} % interval", "memory")
    rows = []
    ratios = {id(t): r for t, r in zip(found.timings[1:], found.ratios, strict=True)}
    for timing in found.timings:
        ratio = ratios.get(id(timing))
        row = [
            timing.model,
            f"{1e3 * timing.median:.2f}",
            f"{1e3 * timing.low:.2f} to {1e3 * timing.high:.2f}",
            f"{ratio.speedup:.2f}" if ratio else "",
            f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "",
            "" if timing.peak_bytes is None else f"{number(timing.peak_bytes)}B",
        ]
        rows.append(row)
    listing(out, "model", [*map(Column, columns)], rows)
    if all(timing.layers for timing in found.timings):
        _print_nodes(out, found)


def _print_nodes(out: Console, found: Bench) -> None:
    """The nodes that take most, a column for each model."""
    times = [{one.node: one.seconds for one in timing.layers or ()} for timing in found.timings]
    names = sorted({name for own in times for name in own}, key=lambda n: (-max(own.get(n, 0.0) for own in times), n))
    rows = [[name, *(f"{1e3 * own[name]:.3f}" if name in own else "" for own in times)] for name in names[:_NODES]]
    listing(out, "node, ms", [Column(timing.model) for timing in found.timings], rows)
