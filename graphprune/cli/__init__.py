"""The command line: arguments in, words out. One file a subcommand.

Nothing is imported here: an interruption while the program is still being read ends like any other.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Args:
        arguments: in place of those of the process.
    """
    own = arguments is None and callable(signal.getsignal(signal.SIGINT))
    try:
        from graphprune.cli.boundary import run

        status = run(arguments)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("graphprune: error: interrupted", file=sys.stderr)
        status = 130
    if own:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter shuts down, a traceback would be all
    sys.exit(status)
