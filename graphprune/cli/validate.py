"""``graphprune validate``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli.options import (
    check_options,
    model_argument,
    number,
    output_options,
    seed_option,
    shape_options,
    show,
)
from graphprune.cli.pages.asking import report_option
from graphprune.cli.preparing import preparing_options
from graphprune.cli.watching import watched
from graphprune.errors import VerdictError
from graphprune.relation import Shape
from graphprune.verdict.checks import Checks, Level, Verdict
from graphprune.verdict.verdict import validate


@click.command("validate")
@model_argument
@click.option("--against", type=click.Path(path_type=Path), help="The original, to compare outputs and builds with.")
@preparing_options("inputs")
@check_options
@seed_option
@shape_options
@output_options
@report_option
def command(
    model: Path,
    against: Path | None,
    checks: Checks,
    seed: int,
    input_shapes: dict[str, Shape],
    json_to: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Judge MODEL: ONNX's checker, ONNX Runtime, the original's outputs, TensorRT.

    Exit status 1 where a level fails.
    """
    if against is None and checks.compares:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in checks.compares)
        raise click.UsageError(f"{options}: compare with an original; give it by --against")
    with watched(quiet, "validate") as progress:
        verdict = validate(model, against, checks, input_shapes=input_shapes, seed=seed, progress=progress.step)
    show(verdict.to_json(), json_to, quiet, lambda out: print_verdict(out, verdict, verbose))
    if not verdict.passed:
        raise VerdictError(f"{verdict.model}: fails at {verdict.failures}")


def print_verdict(out: Console, verdict: Verdict, verbose: bool) -> None:
    """A line a level; with ``verbose`` also what was measured of each output and layer."""
    table = Table(box=None, pad_edge=False)
    for name in ("level", "", "what was found"):
        table.add_column(name, overflow="fold")
    for level in verdict.levels:
        lines = [level.message] if level.message else []
        table.add_row(level.name, level.status, Text("\n".join(lines + summary(level.name, level.details))))
    out.print(Text(verdict.model))
    out.print(table)
    for level in verdict.levels if verbose else ():
        for line in _details(level):
            out.print(Text(line))


def summary(name: str, details: dict[str, Any]) -> list[str]:
    """What a level of this name measured, in few lines."""
    told = _SUMMARIES.get(name)
    return told(details) if told is not None and details else []


def _runtime(details: dict[str, Any]) -> list[str]:
    sizes = "one size" if len(details["sizes"]) == 1 else f"{len(details['sizes'])} sizes"
    return [f"runs at {sizes} and {len(details['optimisation'])} levels of optimisation, on {details['inputs']} inputs"]


def _outputs(outputs: dict[str, dict[str, float]]) -> str:
    cosine, most = min(v["cosine"] for v in outputs.values()), max(v["max_abs"] for v in outputs.values())
    winners = [v["top1"] for v in outputs.values() if "top1" in v]
    text = f"cosine at least {cosine:.4f}, differs by up to {most:.3g}"
    return text + (f", the same class wins in {100 * min(winners):.0f} %" if winners else "")


def _comparison(details: dict[str, Any]) -> list[str]:
    return [_outputs(details["outputs"])]


def _detections(details: dict[str, Any]) -> list[str]:
    text = f"mAP {details['map']:.3f}, at IoU 0.5 {details['map50']:.3f}; of {details['boxes']} boxes in "
    return [text + f"{details['images']} images {details['lost']} are lost, {details['new']} are new"]


def _half(details: dict[str, Any]) -> list[str]:
    return [f"{name}: {_outputs(outputs)}" for name, outputs in details.items()]


def _tensorrt(details: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("pruned", "original"):
        found = details.get(name, {})
        if found.get("built"):
            sizes = [("engine", "engine_bytes"), ("weights", "weights_bytes"), ("activations", "activation_bytes")]
            shown = ", ".join(f"{number(found[key])}B {what}" for what, key in sizes if key in found)
            layers = f"{found['layers']} layers"
            if "kernels" in found:
                layers += f" in {sum(found['kernels'].values())} kernels"
            lines.append(f"{name}: {layers}, {shown}, built in {found['seconds']:.1f} s ({found['backend']})")
    if "fusion" in details:
        groups, parted = details["fusion"]["groups"], details["fusion"]["parted"]
        text = f"{groups - len(parted)} of {groups} sets of nodes that share a kernel still do"
        lines.append(text + (f"; parted: {', '.join(parted[0][:3])} and so on (-v lists all)" if parted else ""))
    return lines + _eligible(details.get("eligible", []))


def _eligible(layers: list[dict[str, Any]]) -> list[str]:
    if not layers:
        return []
    fit, sparse = sum(e["eligible"] for e in layers), sum(e["sparse"] for e in layers)
    text = f"2:4: {sparse} of {len(layers)} weights follow it, {fit} could be read by sparse kernels"
    why = Counter(r for e in layers for r in e["reasons"][:1]).most_common(1)
    text += f"; {why[0][1]} cannot since {why[0][0]} (-v lists all)" if why else ""
    return [text, *int8_summary(layers)]


def int8_summary(layers: list[dict[str, Any]]) -> list[str]:
    """How many quantised products are 8 bits in and out, and what to quantise for the others; nothing of floats."""
    quantised = [e["int8"] for e in layers if e["int8"] is not None]
    remedies = list(dict.fromkeys(e["remedy"] for e in quantised if not e["in_and_out"]))
    if not quantised:
        return []
    whole = sum(e["in_and_out"] for e in quantised)
    text = f"8 bits: {whole} of {len(quantised)} quantised products are 8 bits in and out, as sparse kernels want them"
    more = f" and {len(remedies) - 3} more (-v)" if len(remedies) > 3 else ""
    return [text + (f"; {', '.join(remedies[:3])}{more}" if remedies else "")]


def _speed(details: dict[str, Any]) -> list[str]:
    ratio = details["ratios"][0]
    return [f"{ratio['speedup']:.2f} times as fast ({ratio['low']:.2f} to {ratio['high']:.2f})"]


_SUMMARIES = {
    "runtime": _runtime,
    "comparison": _comparison,
    "detections": _detections,
    "float16": _half,
    "tensorrt": _tensorrt,
    "engine": _comparison,
    "speed": _speed,
}


def _details(level: Level) -> list[str]:
    """Everything that a level measured, a line an output, a kernel set or a weight."""
    details = level.details
    sets = details if level.name == "float16" else {"": details.get("outputs", {})}
    lines = [
        f"{level.name}: {f'{title}: ' if title else ''}{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        for title, outputs in sets.items()
        for name, values in outputs.items()
    ]
    lines += [f"parted: {', '.join(nodes)}" for nodes in details.get("fusion", {}).get("parted", ())]
    for entry in details.get("eligible", ()):
        state = "follows 2:4" if entry["sparse"] else "dense"
        why = "; ".join(entry["reasons"]) or "could be read by a sparse kernel"
        lines.append(f"2:4: {entry['weight']} at {entry['node']}: {state}; {why}")
    for name in ("pruned", "original"):
        for key, layers in details.get(name, {}).get("sparsity", {}).items():
            lines.append(f"{name}: TensorRT {key}: {', '.join(layers) or 'none'}")
    return lines
