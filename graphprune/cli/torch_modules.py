"""``graphprune torch-modules``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune import __version__
from graphprune.analysis import analyze
from graphprune.cli import carrying
from graphprune.cli.options import output_options, show
from graphprune.cli.watching import watched
from graphprune.cli.writing import force_option
from graphprune.errors import InputError
from graphprune.model import files, parsing, paths
from graphprune.rewrite.configuration import Changed, changed
from graphprune.rewrite.modules import snippet
from graphprune.rewrite.settings import counts, numbers
from graphprune.rewrite.statedict import Narrowed, narrow


@click.command("torch-modules")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The Python file.")
@click.option("--model", type=click.Path(path_type=Path), help="The original model; the plan's, beside it or here.")
@click.option("--config", type=click.Path(path_type=Path), help="A config.json: say which of its fields change.")
@force_option
@output_options
def command(
    plan_file: Path,
    weights: Path,
    output: Path,
    model: Path | None,
    config: Path | None,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Write Python that cuts a PyTorch module as PLAN cuts its model, by the names in WEIGHTS, its state dict.

    The file needs torch alone: import it, and call its narrow(module). With --config it also holds the fields of a
    configuration that change, as CONFIG, found by their sizes; such plans are made with --uniform-widths.
    """
    paths.writes("the Python file", output)
    fields = None if config is None else _configuration(config)
    with watched(quiet, "load", "narrow", "analyze", "write") as progress:
        given = carrying.read(plan_file, weights, model)
        progress.begin("narrow")
        found = narrow(given.original, given.plan, given.weights.tensors)
        progress.begin("analyze")
        analysis = analyze(given.original, given.plan.model["witness"], allow_io=bool(given.plan.interface))
        groups = counts(analysis, given.plan, found.sources)
        said = None if fields is None else changed(fields, found, groups, numbers(given.original, given.plan))
        progress.begin("write")
        title = f"Cuts a PyTorch module as {plan_file.name} cuts {given.plan.model['file']} (graphprune {__version__})."
        text = snippet(found, groups, title, output.stem, None if said is None else said.values)
        files.atomically(output, lambda file: file.write(text.encode()))
    data = _data(output, found, said)
    show(data, json_to, quiet, lambda out: _print(out, data, verbose))


def _configuration(path: Path) -> dict[str, Any]:
    paths.reads("the configuration", path)
    try:
        found = json.loads(parsing.text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a configuration: its fields by name are wanted, as in a config.json")
    return found


def _data(output: Path, found: Narrowed, said: Changed | None) -> dict[str, Any]:
    return {
        "output": str(output),
        "tensors": {n: {"from": list(a), "to": list(b)} for n, (a, b) in found.shapes.items()},
        "config": None if said is None else {n: {"from": a, "to": b} for n, (a, b) in said.fields.items()},
        "unexplained": [] if said is None else said.unexplained,
        "unmatched": found.unmatched,
        "missing": found.missing,
        "notes": [*found.notes, *([] if said is None else said.notes)],
    }


def _print(out: Console, data: dict[str, Any], verbose: bool) -> None:
    out.print(Text(f"cuts {len(data['tensors'])} tensors"))
    for name, one in data["tensors"].items() if verbose else ():
        out.print(Text(f"  {name}: {'x'.join(map(str, one['from']))}, now {'x'.join(map(str, one['to']))}"))
    if data["config"] is not None:
        lines = [f"  {name}: {one['from']}, now {one['to']}" for name, one in data["config"].items()]
        out.print(Text("\n".join(["fields of the configuration that change:", *(lines or ["  none"])])))
    for line in data["unexplained"]:
        out.print(Text(f"no field of the configuration says it: {line}; --uniform-widths, --exclude or by hand"))
    if data["missing"]:
        out.print(Text(f"not in the state dict, though they lose elements: {', '.join(data['missing'])}"))
    for note in data["notes"]:
        out.print(Text(f"note: {note}"))
    out.print(Text(f"written: {data['output']}; import it, and call its narrow(module)"))
