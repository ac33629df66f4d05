"""``graphprune inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.analysis import analyze, patterns
from graphprune.cli import overview, report
from graphprune.cli.options import model_argument, output_options, shape_options, show
from graphprune.cli.pages.asking import report_option
from graphprune.cli.tables import Column, listing
from graphprune.cli.validate import int8_summary
from graphprune.cli.watching import watched
from graphprune.model import naming
from graphprune.relation import Shape

_ROWS = 40


@click.command("inspect")
@model_argument
@click.option("--all", "everything", is_flag=True, help="Every group, block and reason, not the biggest alone.")
@click.option(
    "--sort",
    type=click.Choice(list(overview.SORTS)),
    help="Order of groups and blocks: macs in the summary, else that of the graph, if not given.",
)
@click.option(
    "--filter",
    "wanted",
    multiple=True,
    metavar="NAME",
    help="Only these: a group, node, weight, module or glob; repeatable.",
)
@click.option("--allow-io", is_flag=True, help="Also what holds a state that callers carry round (caches).")
@click.option(
    "--sparsity",
    is_flag=False,
    flag_value="2:4",
    metavar="[PATTERN]",
    help="Which weights follow a pattern, what it keeps of the others, and which sparse kernels could read.",
)
@click.option("--amount", type=float, help="For --sparsity 1xW or unstructured: share of weights that go.")
@shape_options
@output_options
@report_option
def command(
    model: Path,
    everything: bool,
    sort: str | None,
    wanted: tuple[str, ...],
    allow_io: bool,
    sparsity: str | None,
    amount: float | None,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Say what can be pruned in MODEL, what cannot, and why: a summary, or with --all or --filter every group."""
    if sparsity is not None:
        pattern = patterns.parse(sparsity, amount)
        with watched(quiet, "analyze"):
            found = report.sparsity_data(analyze(model, input_shapes), pattern)
        layers = [one for one in found["layers"] if not wanted or naming.meets((one["node"], one["weight"]), wanted)]
        found = {**found, "layers": layers}
        every = everything or verbose or bool(wanted)
        show(found, json_to, quiet, lambda out: _print_sparsity(out, found, every))
        return
    with watched(quiet, "analyze"):
        analysis = analyze(model, input_shapes, allow_io=allow_io)
        data = overview.ordered(report.inspection(analysis, allow_io), sort or "graph")
        if wanted:
            data = overview.narrowed(analysis, data, wanted)
    every = everything or verbose or bool(wanted)
    show(
        data,
        json_to,
        quiet,
        lambda out: (
            overview.print_all(out, data, verbose) if every else overview.print_summary(out, data, sort or "macs")
        ),
    )


def _print_sparsity(out: Console, data: dict[str, Any], verbose: bool) -> None:
    layers, pattern = data["layers"], data["pattern"]
    follow, eligible = (sum(e[key] for e in layers) for key in ("follows", "eligible"))
    out.print(
        Text(
            f"{data['model']}: products with a weight: {len(layers)}; weights that follow {pattern}: {follow}, that "
            f"TensorRT's sparse kernels could read: {eligible}"
        )
    )
    listing(out, "node", (*_LAYERS[:3], Column(pattern, text=True), *_LAYERS[3:]), _layer_rows(layers, verbose))
    if len(layers) > _ROWS and not verbose:
        out.print(Text(f"... and {len(layers) - _ROWS} more (--all lists them)"))
    for line in int8_summary(layers):
        out.print(Text(line))


_LAYERS = (
    Column("outputs"),
    Column("sums"),
    Column("axis"),
    Column("magnitude kept"),
    Column("sparse kernels", text=True),
)


def _layer_rows(layers: Sequence[dict[str, Any]], every: bool) -> list[list[str]]:
    rows = []
    for entry in layers if every else layers[:_ROWS]:
        places = [str(entry[key]) if entry["axis"] is not None else "" for key in ("outputs", "sums", "axis")]
        state = "follows" if entry["follows"] else "dense"
        kept = "" if entry["kept_magnitude"] is None else f"{100 * entry['kept_magnitude']:.1f} %"
        rows.append([entry["node"], *places, state, kept, "; ".join(entry["reasons"]) or "could read it"])
    return rows
