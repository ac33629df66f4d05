"""The command ``graphprune``, and its subcommands, each imported when it is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

import click

from graphprune import __version__
from graphprune.cli.boundary import past_click
from graphprune.cli.helping import grouped

_COMMANDS = {
    "apply": "Redo a plan on a model.",
    "bench": "Time models beside each other.",
    "diff": "Say what changed from one model to another.",
    "distill": "Train what is left towards the original.",
    "explain": "Say what hangs together, and why something stays.",
    "graph": "Draw a model, a group or a block; data for Model Explorer.",
    "init": "Write a recipe to start from.",
    "inspect": "Say what can be pruned, what cannot, and why.",
    "ops": "List every operator with its rule.",
    "profile": "Time each layer at several widths.",
    "prune": "Remove what matters least, and prove it.",
    "report": "Show what runs came to as a page.",
    "run": "Do what a recipe says to models.",
    "sensitivity": "Say how much each group can lose.",
    "sparsify": "Make weights sparse: 2:4 and other patterns.",
    "state-dict": "Cut the weights of the training code the same way.",
    "sweep": "Prune to several targets, and tell what nothing beats.",
    "torch-modules": "Write Python that cuts a PyTorch module the same way.",
    "validate": "Judge a model: checks, runs, agrees, builds, is faster.",
}
"""Each has a module of its own beside this one, with a ``command`` (see ``_HOMES``); what it does stands here in short.

The texts stand here so that the help of the whole needs none of the modules.
"""
_HOMES = {"report": "pages.command"}
"""Modules of commands that are called otherwise."""

_SECTIONS = {
    "Make a model smaller": ("prune", "sparsify", "distill"),
    "Look before": ("inspect", "explain", "graph", "sensitivity", "profile", "sweep", "ops"),
    "Judge what came of it": ("validate", "bench", "diff", "report"),
    "Do it again": ("init", "run", "apply", "state-dict", "torch-modules"),
}
"""Commands by what one wants to do."""
_RUNNING = ("prune", "sparsify", "distill", "sensitivity", "sweep", "validate", "bench", "run", "apply")
"""Commands that run the model: what that needs is started at once (see ``graphprune.model.apart``)."""
_WIDEST = max(map(len, _COMMANDS)) + 2


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        home = _HOMES.get(cmd_name, cmd_name.replace("-", "_"))
        found: click.Command = import_module(f"graphprune.cli.{home}").command
        return grouped(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _RUNNING and not {"-h", "--help"} & set(args):
            from graphprune.model import apart

            apart.start()  # it is there when the rest of this program is
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], _COMMANDS, 2)
            hint = f"did you mean {' or '.join(close)}?" if close else "'graphprune --help' lists all"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = [name for name in _COMMANDS if all(name not in names for names in _SECTIONS.values())]
        for title, names in (*_SECTIONS.items(), ("Other commands", others)):
            if names:
                with formatter.section(title):
                    formatter.write_dl([(name, _COMMANDS[name]) for name in names], col_max=_WIDEST)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with past_click():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with past_click():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="graphprune")
@click.pass_context
def cli(context: click.Context) -> None:
    """Prune trained ONNX models: smaller dense models from any exporter, with a proof.

    Exit status: 0 done; 1 the result failed its proof or validation; 2 bad usage or input; 3 a backend is missing; 4 a
    fault of the program itself; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)
