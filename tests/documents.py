"""What the pages of this repository show: commands, Python, TOML and JSON, and what they name.

A block that cannot run in a test has a comment in front of it that says why, which no reader sees:
``<!-- not run: times layers -->``. Its commands must still be ones that there are, with options that there are.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHELL = ("", "bash", "sh", "console")
_SKIP = re.compile(r"<!-- not run: (.+?) -->\s*$")
_FENCE = re.compile(r"^(`{3,})(\w*)(?: [^`]*)?$")
"""Behind the language may stand what a block is for."""
_COMMAND = re.compile(r"^(?:\$ )?((?:graphprune|python) .*)$")
_FILE = re.compile(r"^# (?:--\w+ )?([\w./-]+\.(?:py|toml|json|txt|yml))$")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Block:
    """An example as it stands on a page.

    Attributes:
        line: of the page, from 1, where its text begins.
        language: what the fence says; empty of an indented block.
        text: without fence and indentation.
        skipped: why it does not run, empty where it does.
    """

    line: int
    language: str
    text: str
    skipped: str = ""

    @property
    def file(self) -> str:
        """The file that its first line says it is, if any."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found[1] if found else ""

    def commands(self) -> Iterator[list[str]]:
        """Commands of graphprune, and of Python, in words; what stands between them is what they print."""
        if self.language not in SHELL:
            return
        for line in self.text.replace("\\\n", " ").splitlines():
            if found := _COMMAND.match(line):
                yield shlex.split(found[1], comments=True)


@dataclass(frozen=True)
class Page:
    """A page in Markdown."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """As it is written."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks of code, in order."""
        return list(_blocks(self.text.splitlines()))

    @cached_property
    def spans(self) -> list[str]:
        """All code within lines."""
        return [found[2] for line in self._prose() for found in _SPAN.finditer(line)]

    def links(self) -> Iterator[tuple[Path, str]]:
        """Files that it links to, and the headings in them."""
        for line in self._prose():
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if "://" not in target and not target.startswith("mailto:"):
                    name, _, heading = target.partition("#")
                    yield (self.path.parent / name).resolve() if name else self.path, heading

    def anchors(self) -> set[str]:
        """Headings, as links name them."""
        titles = [m[1] for m in (re.match(r"#+ (.*)", line) for line in self._prose()) if m]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def _prose(self) -> Iterator[str]:
        fence = ""
        for line in self.text.splitlines():
            if fence:
                fence = "" if line.strip() == fence else fence
            elif found := _FENCE.match(line):
                fence = found[1]
            elif not line.startswith("    "):
                yield line


def _blocks(lines: list[str]) -> Iterator[Block]:
    skipped, at = "", 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if found := _SKIP.search(line):
            skipped = found[1]
        elif fence := _FENCE.match(line):
            end = next(k for k in range(at, len(lines)) if lines[k].strip() == fence[1])
            yield Block(at + 1, fence[2], "\n".join(lines[at:end]), skipped)
            skipped, at = "", end + 1
        elif line.startswith("    ") and (not start or not lines[start - 1].strip() or lines[start - 1][:4] == "    "):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            yield Block(start + 1, "", textwrap.dedent("\n".join(lines[start:at])), skipped)
            skipped = ""
        elif line.strip():
            skipped = ""


def pages() -> list[Page]:
    """All pages but what installers and caches leave."""
    found = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md") if (ROOT / name).is_file()]
    for folder in ("graphprune", "passes", "models", "tests"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return [Page(path) for path in found]
