"""``graphprune profile``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli.options import model_argument, output_options, shape_options, show
from graphprune.cli.pages.asking import report_option
from graphprune.cli.tables import Column, listing
from graphprune.cli.watching import watched
from graphprune.cli.writing import force_option
from graphprune.errors import InputError
from graphprune.model import files, load, paths
from graphprune.relation import Shape
from graphprune.verdict import latency
from graphprune.verdict.latency.measure import PHASES

_SHOWN = 15
"""Layers that are printed without ``-v``."""


@click.command("profile")
@model_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="TABLE.json", help="The table.")
@click.option("--tasks", type=click.Path(path_type=Path), metavar="FOLDER", help="Only write what is to be timed.")
@click.option("--results", type=click.Path(path_type=Path), metavar="FOLDER", help="Only collect what was timed.")
@click.option("--device", type=click.Choice(list(latency.DEVICES)), help="The same as --provider with its full name.")
@click.option("--provider", help=f"Of ONNX Runtime; {latency.DEVICES['cpu']} if not given.")
@click.option("--threads", default=0, help="Threads within one operator; 0 leaves it to ONNX Runtime.")
@click.option("--rounds", default=3, show_default=True, help="How often each layer is timed; the fastest counts.")
@click.option(
    "--levels", metavar="1,0.75,0.5", help="Shares of the full widths; by a layer's number of axes if not given."
)
@click.option("--allow-io", is_flag=True, help="Inputs and outputs of the graph may shrink too.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR", help="Keep finished parts there; go on from it."
)
@shape_options
@force_option
@output_options
@report_option
def command(
    model: Path,
    output: Path | None,
    tasks: Path | None,
    results: Path | None,
    device: str | None,
    provider: str | None,
    threads: int,
    rounds: int,
    levels: str | None,
    allow_io: bool,
    resume: Path | None,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Time each layer of MODEL at several widths, here or on the device where it is to run.

    Where only onnxruntime and numpy are: --tasks FOLDER writes what is to be timed and a script, 'python
    FOLDER/time_layers.py FOLDER' times it there, and --results FOLDER -o TABLE.json makes the table of it.
    """
    _check(output, tasks, results, resume, device, provider)
    paths.reads("the model", model)
    paths.writes("the table", output)
    chosen = latency.DEVICES[device or "cpu"] if provider is None else provider
    how = latency.How(chosen, threads, rounds, _levels(levels), allow_io)
    if tasks is not None:
        with watched(quiet, "cut") as progress:
            latency.prepare(model, tasks, input_shapes, how, progress)
        text = f"written: {tasks}; now 'python time_layers.py .' in it, on the device, then --results {tasks}"
        show({"tasks": str(tasks)}, json_to, quiet, lambda out: out.print(Text(text)))
        return
    if results is not None:
        found = latency.collect(results, load(model))
    else:
        with watched(quiet) as progress:
            progress.plan(list(PHASES), PHASES)
            found = latency.profile(model, input_shapes, how, resume, progress)
    if output is not None:
        files.write_json(output, found.to_json())
    show(found.to_json(), json_to, quiet, lambda out: _print(out, found, output, verbose))


def _check(
    output: Path | None,
    tasks: Path | None,
    results: Path | None,
    resume: Path | None,
    device: str | None,
    provider: str | None,
) -> None:
    """Raise InputError where options contradict each other."""
    given = [name for name, value in (("--tasks", tasks), ("--results", results), ("--resume", resume)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other: give one of them")
    if tasks is not None and output is not None:
        raise InputError("--tasks writes no table yet: give -o later, with --results")
    if device is not None and provider is not None:
        raise InputError("--device and --provider say the same: give one of them")


def _levels(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--levels {text} is not like 1,0.75,0.5") from None


def _print(out: Console, found: latency.Table, output: Path | None, verbose: bool) -> None:
    measured = found.measured
    sizes = ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in measured["shapes"].items())
    threads = f"{measured['threads']} threads" if measured["threads"] else "the runtime's threads"
    out.print(Text(f"{sizes}; {measured['runtime']}, {measured['provider']}, {threads}; {measured['device']}"))
    rows = []
    ranked = sorted(found.layers, key=lambda layer: -layer.whole)
    for layer in ranked if verbose else ranked[:_SHOWN]:
        half = float(layer.at([w[-1] / 2 for w in layer.widths]))
        faster = [f"{1e3 * half:.3f}", f"{layer.whole / half:.2f}" if half else ""] if layer.axes else ["", ""]
        share = layer.whole / found.covered if found.covered else 0.0
        costs = f"{100 * share:.1f} %", f"{1e3 * layer.whole:.3f}"
        rows.append([layer.node, *costs, *faster, " ".join(dict.fromkeys(layer.operators))])
    columns = (*map(Column, ("share", "ms", "at half widths", "times as fast")), Column("operators", text=True))
    listing(out, "layer", columns, rows)
    if len(ranked) > _SHOWN and not verbose:
        out.print(Text(f"... and {len(ranked) - _SHOWN} more (-v)"))
    half = sum(float(layer.at([w[-1] / 2 for w in layer.widths])) for layer in found.layers)
    text = f"all layers: {1e3 * found.covered:.3f} ms, at half widths {1e3 * half:.3f} ms"
    out.print(Text(f"{text}; the whole model: {1e3 * found.total:.3f} ms"))
    for entry in found.left_out if verbose else ():
        out.print(Text(f"left out: {entry['node']}: {entry['reason']}"))
    if found.left_out and not verbose:
        out.print(Text(f"left out: {len(found.left_out)} nodes (-v)"))
    if output is not None:
        out.print(Text(f"written: {output}"))
