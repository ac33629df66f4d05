"""The command line: arguments in, words out. One file a subcommand."""

from __future__ import annotations

import sys

import click

from graphprune import __version__
from graphprune.cli import apply, bench, explain, inspect, ops, prune, sparsify, state_dict, validate
from graphprune.errors import GraphpruneError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="graphprune")
def cli() -> None:
    """Prune trained ONNX models: smaller dense models from any exporter, with a proof.

    Exit status: 0 done; 1 the result failed its proof; 2 bad usage or input; 3 a backend is missing.
    """


for module in (apply, bench, explain, inspect, ops, prune, sparsify, state_dict, validate):
    cli.add_command(module.command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    try:
        status = cli.main(arguments, prog_name="graphprune", standalone_mode=False)
    except GraphpruneError as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except click.Abort:
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    one_line = " ".join(message.split())
    print(f"graphprune: error: {one_line}", file=sys.stderr)
    sys.exit(status)
