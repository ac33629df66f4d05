"""The examples of a README: what its blocks are, and how they are run one after the other as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", re.S | re.M)
_COMMANDS = {
    "python": 'exec {python} "$@"',
    "graphprune": 'exec {python} -m graphprune "$@"',
    "polygraphy": "exec {python} -c 'import sys; from polygraphy.tools import main; sys.exit(main())' \"$@\"",
    "olive": "exec {python} -c 'import sys; from olive.cli.launcher import main; sys.exit(main())' \"$@\"",
}
"""Each in the interpreter that runs the tests, wherever its scripts may lie."""


@dataclass(frozen=True)
class Block:
    """An example.

    Attributes:
        language: as it is told behind the fence; ``sh`` for lines that are indented by four.
        name: what else is told there: the file that the block is to be, or nothing.
        text: of it.
    """

    language: str
    name: str
    text: str


def sections(readme: Path) -> dict[str, list[Block]]:
    """The blocks of each section, by heading."""
    parts = re.split(r"^## (.*)$", readme.read_text(), flags=re.M)
    return {head: list(_blocks(text)) for head, text in zip(parts[1::2], parts[2::2], strict=True)}


def _blocks(text: str) -> Iterator[Block]:
    for language, name, body, indented in _BLOCK.findall(text):
        if indented:
            yield Block("sh", "", re.sub(r"^ {4}", "", indented, flags=re.M))
        else:
            yield Block(language, name.strip(), body)


class Reader:
    """Somebody who does what a page says, in a folder of their own.

    Attributes:
        printed: what each command has printed, in turn.
    """

    def __init__(self, folder: Path, commands: dict[str, str] | None = None) -> None:
        """Take a folder, and commands that stand for those which the machine has not: bodies of shell scripts."""
        self.folder, self.printed = folder, list[str]()
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.path = folder / ".bin"
        self.path.mkdir()
        for name, body in {**_COMMANDS, **(commands or {})}.items():
            script = self.path / name
            script.write_text(f"#!/bin/sh\n{body.format(python=sys.executable)}\n")
            script.chmod(0o755)

    def follow(self, blocks: Sequence[Block]) -> None:
        """Do what blocks say: what has the name of a file becomes one, all else is run where it stands."""
        for block in blocks:
            if "." in block.name:
                file = self.folder / block.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            elif block.language == "sh":
                self.shell(block.text)
            else:
                exec(compile(block.text, "README.md", "exec"), self.names)

    def shell(self, text: str) -> None:
        """Run commands as GitHub does; what they print is kept."""
        env = {**os.environ, "CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        env["PATH"] = f"{self.path}:{env['PATH']}"
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", text],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
        )
        self.printed.append(done.stdout + done.stderr)
        assert done.returncode == 0, f"{text}\n{self.printed[-1][-3000:]}"


def commands(workflow: str) -> list[str]:
    """The commands of a workflow of GitHub Actions, in order, but for what is installed."""
    (job,) = yaml.safe_load(workflow)["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step and not step["run"].startswith("pip install")]
