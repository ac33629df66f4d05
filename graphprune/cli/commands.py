"""The command ``graphprune``, and its subcommands, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from graphprune import __version__
from graphprune.cli.boundary import past_click

_NAMES = ("apply", "bench", "explain", "inspect", "ops", "prune", "sparsify", "state-dict", "validate")
"""Each has a module of its own beside this one, with a ``command``."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _NAMES:
            return None
        found: click.Command = import_module(f"graphprune.cli.{cmd_name.replace('-', '_')}").command
        return found

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
