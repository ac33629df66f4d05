"""``graphprune state-dict``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from graphprune.cli import carrying
from graphprune.cli.options import output_options, show
from graphprune.cli.watching import watched
from graphprune.cli.writing import force_option
from graphprune.model import files, paths
from graphprune.relation import Shape
from graphprune.rewrite import checkpoints
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.statedict import Narrowed, narrow

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A number between dots: the place of a layer in a list of them."""
_LINES = 16


@click.command("state-dict")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The narrower state dict.")
@click.option("--model", type=click.Path(path_type=Path), help="The original model; the plan's, beside it or here.")
@force_option
@output_options
def command(
    plan_file: Path,
    weights: Path,
    output: Path,
    model: Path | None,
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Remove from WEIGHTS what PLAN removes from its model, to train the pruned network on in its own framework.

    WEIGHTS is a state dict of the training code, safetensors or PyTorch. Beside OUTPUT lands a table of all new widths,
    as OUTPUT.widths.json. Values are those of WEIGHTS: what was fitted after pruning is not in them.
    """
    table = output.with_name(output.name + ".widths.json")
    paths.reads("the plan that is read", plan_file)
    paths.reads("the state dict", weights)
    paths.writes("the narrower state dict", output)
    paths.writes("the table of widths", table)
    with watched(quiet, "load", "narrow", "write") as progress:
        given = carrying.read(plan_file, weights, model)
        progress.begin("narrow")
        found = narrow(given.original, given.plan, given.weights.tensors)
        progress.begin("write")
        checkpoints.write(output, found.tensors, given.weights)
    data = _data(given.plan, found)
    files.write_json(table, data)
    show(data, json_to, quiet, lambda out: _print(out, found, output, verbose))


def _data(read: Plan, found: Narrowed) -> dict[str, Any]:
    layers: dict[str, Any] = {}
    for name, (before, after) in found.shapes.items():
        module, _, key = name.rpartition(".")
        removed = {str(axis): [int(e) for e in gone] for axis, gone in found.removed[name].items()}
        layers.setdefault(module, {})[key] = {"from": list(before), "to": list(after), "removed": removed}
    groups = [{"id": g.id, "kind": g.kind, "from": g.size, "to": g.size - len(g.removed)} for g in read.groups]
    return {
        "layers": layers,
        "groups": groups,
        "widths": {n: {"from": list(a), "to": list(b), "tensors": k} for n, (a, b, k) in _alike(found).items()},
        "unmatched": found.unmatched,
        "missing": found.missing,
        "notes": found.notes,
    }


def _alike(found: Narrowed) -> dict[str, tuple[Shape, Shape, int]]:
    """Tensors whose names differ in their numbers alone, where all have the same shapes: before, after, how many."""
    shapes: dict[str, list[tuple[Shape, Shape]]] = {}
    for name, value in found.tensors.items():
        same = value.shape, value.shape
        shapes.setdefault(_NUMBER.sub("*", name), []).append(found.shapes.get(name, same))
    kept = {name: own for name, own in shapes.items() if len(set(own)) == 1 and own[0][0] != own[0][1]}
    return {name: (*own[0], len(own)) for name, own in kept.items()}


def _print(out: Console, found: Narrowed, output: Path, verbose: bool) -> None:
    count = len(found.shapes)
    out.print(Text(f"{count} of {len(found.tensors)} tensors are narrower"))
    alike = {} if verbose else _alike(found)
    single = {n: (*shapes, 1) for n, shapes in found.shapes.items() if _NUMBER.sub("*", n) not in alike}
    lines = [*alike.items(), *single.items()]
    for name, (before, after, tensors) in lines[: None if verbose else _LINES]:
        each = f" ({tensors} tensors)" if tensors > 1 else ""
        out.print(Text(f"  {name}: {'x'.join(map(str, before))}, now {'x'.join(map(str, after))}{each}"))
    if len(lines) > _LINES and not verbose:
        out.print(Text(f"  ... and {len(lines) - _LINES} more lines (-v)"))
    if found.unmatched:
        names = ", ".join(found.unmatched if verbose else found.unmatched[:5])
        more = f" and {len(found.unmatched) - 5} more (-v)" if len(found.unmatched) > 5 and not verbose else ""
        out.print(Text(f"not in the model, left as they are: {names}{more}"))
    if found.missing:
        out.print(Text(f"not in the state dict, though they lose elements: {', '.join(found.missing)}"))
    for note in found.notes:
        out.print(Text(f"note: {note}"))
    out.print(Text(f"written: {output} and {output.name}.widths.json"))
