"""The help of commands: options in groups by what they are about, and an example of each command.

Commands are click's own; here they get a help that is laid out by cloup. An option belongs to the same group wherever
it is found, so that one table has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
import cloup

GROUPS: Mapping[str, Sequence[str]] = {
    "How much goes": (
        "target", "targets", "ratios", "shares", "levels", "nearest", "blocks", "remove_block", "block_score",
        "low_rank", "vocabulary", "keep_tokens", "vocabulary_inside", "unknown_token",
    ),
    "By what it is chosen, and what makes up for it": (
        "calibration", "preprocess", "tokenizer", "criterion", "metric", "uniform", "search", "rotate",
        "steps", "compensate", "no_compensate", "distill",
    ),
    "Which may go": (
        "include", "exclude", "also", "before", "after", "keep_first", "keep_last", "keep_heads", "limits", "min_width",
        "steer", "allow_statistical", "allow_io",
    ),
    "Which widths": ("backend", "align", "uniform_widths"),
    "Sparse weights": ("pattern", "sparsity", "method", "permute", "amount", "rewind", "store", "packed"),
    "Training": (
        "teacher", "distill.plan", "distill.steps", "time", "loss", "train", "rate", "batch", "no_augment", "labels",
        "checkpoint",
    ),
    "Other models and files": ("original", "fitted", "model", "recipes", "name", "list", "config"),
    "What is drawn": ("of_group", "of_block", "of_plan", "sensitivity"),
    "What is timed": ("device", "provider", "threads", "table", "rounds", "warmup", "latency", "layers"),
    "How it is judged": (
        "against", "inputs", "validate.preprocess", "validate.tokenizer", "bench.preprocess", "bench.tokenizer",
        "validated", "trt", "no_proof", "min_cosine", "max_abs", "min_speedup", "fp16", "sm",
        "shapes", "timeout", "detections", "min_map", "exit_code", "no_run",
    ),
    "Sizes and chance": ("input_shapes", "memory", "run_time", "seed"),
    "Time, and going on": ("seconds", "resume", "folder", "jobs", "shard", "tasks", "results"),
    "What is written": ("output", "dry_run", "force", "plan", "saved", "models", "data", "report_to"),
    "What is told": ("everything", "sort", "wanted", "markdown", "lines", "json_to", "verbose", "quiet"),
}  # fmt: skip
"""Titles, with the parameters that options become; ``command.parameter`` where one command means another thing."""

EXAMPLES: Mapping[str, str] = {
    "apply": "graphprune apply small.plan.json model_fp16.onnx -o small_fp16.onnx",
    "bench": "graphprune bench model.onnx small.onnx --min-speedup 1.2",
    "diff": "graphprune diff model.onnx small.onnx --report diff.html",
    "distill": "graphprune distill small.onnx --teacher model.onnx --calibration inputs.npz",
    "explain": "graphprune explain model.onnx /encoder/layer.3",
    "graph": "graphprune graph model.onnx --group conv1:0 -o group.svg",
    "init": "graphprune init model.onnx -o recipe.toml",
    "inspect": "graphprune inspect model.onnx --filter /encoder/layer.3 --sort parameters",
    "ops": "graphprune ops",
    "profile": "graphprune profile model.onnx --device cpu -o table.json",
    "prune": "graphprune prune model.onnx --target macs=0.5 --calibration inputs.npz",
    "report": "graphprune report small.plan.json bench.json -o small.html",
    "run": "graphprune run recipe.toml model.onnx other.onnx -o folder",
    "sensitivity": "graphprune sensitivity model.onnx --calibration inputs.npz -o model.html",
    "sparsify": "graphprune sparsify model.onnx --pattern 2:4 --calibration inputs.npz",
    "state-dict": "graphprune state-dict small.plan.json weights.safetensors -o small.safetensors",
    "sweep": "graphprune sweep model.onnx --targets macs=0.3,0.5 --calibration inputs.npz",
    "torch-modules": "graphprune torch-modules small.plan.json weights.pt -o small_modules.py",
    "validate": "graphprune validate small.onnx --against model.onnx --min-cosine 0.9",
}


def grouped(command: click.Command) -> click.Command:
    """The same command, with a help in groups."""
    name = str(command.name)
    groups = {title: cloup.OptionGroup(title) for title in GROUPS}
    for parameter in command.params:
        title = title_of(name, str(parameter.name))
        if isinstance(parameter, click.Option) and title is not None:
            parameter.group = groups[title]  # type: ignore[attr-defined]  # as cloup's own options have it
    made = cloup.Command(
        name,
        callback=command.callback,
        params=command.params,
        help=command.help,
        epilog=f"Example:\n\n\b\n  {EXAMPLES[name]}" if name in EXAMPLES else None,
        align_option_groups=False,
    )
    made.option_groups = [group for group in groups.values() if group in made.option_groups]
    for group in made.option_groups:  # the most wanted first
        names = GROUPS[group.title]
        group.options = sorted(group.options, key=lambda option: _place(names, name, str(option.name)))
    return made


def _place(names: Sequence[str], command: str, parameter: str) -> int:
    return next(place for place, name in enumerate(names) if name in (f"{command}.{parameter}", parameter))


def title_of(command: str, parameter: str) -> str | None:
    """The group of an option, None where it has none."""
    titles = {name: title for title, names in GROUPS.items() for name in names}
    return titles.get(f"{command}.{parameter}", titles.get(parameter))
