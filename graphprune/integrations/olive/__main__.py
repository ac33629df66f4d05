"""``python -m graphprune.integrations.olive FILE.json``: write the package configuration that Olive is given."""

from __future__ import annotations

import sys

from graphprune.errors import GraphpruneError
from graphprune.integrations.olive.package import write


def main(arguments: list[str]) -> int:
    """Write the file; returns the exit status."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m graphprune.integrations.olive FILE.json", file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        print(f"wrote {write(arguments[0])}: olive run --config WORKFLOW.json --package-config {arguments[0]}")
    except GraphpruneError as error:
        print(f"graphprune: error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
