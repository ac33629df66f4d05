"""The command line: arguments in, words out. One file a subcommand.

Nothing is imported here: an interruption while the program is still being read ends like any other.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        from graphprune.cli.boundary import run

        status = run(arguments)
    except KeyboardInterrupt:
        print("graphprune: error: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
