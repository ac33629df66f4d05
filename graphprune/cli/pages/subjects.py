"""What stands together on a page: documents about one model, and about what was made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphprune.cli.pages.documents import Data, Document, of_plan

_FIRST = ("result", "plan")
"""Kinds that say what was made of a model."""


@dataclass(frozen=True)
class Subject:
    """What is shown of one model.

    Attributes:
        model: what it is called: its name, or its path where another one has this name too.
        documents: about it, in the order in which they were given.
    """

    model: str
    documents: tuple[Document, ...]

    def all(self, kind: str) -> list[Data]:
        """Documents of a kind."""
        return [one.data for one in self.documents if one.kind == kind]

    @property
    def results(self) -> list[Data]:
        """What pruning came to; of a plan alone as much as it says."""
        found = self.all("result")
        return found or [of_plan(plan) for plan in self.all("plan")]

    def verdicts(self, result: Data) -> list[Data]:
        """All verdicts on a result: its own, and those on the file that it is; of a plan those on any but the original.

        Args:
            result: one of :attr:`results`.
        """
        own = [result["verdict"]] if result.get("verdict") else []
        if result.get("output"):
            name = Path(result["output"]).name
            return own + [one for one in self.all("verdict") if one["model"] == name]
        return own + [one for one in self.all("verdict") if one["model"] != result["model"]]


def subjects(documents: Sequence[Document]) -> list[Subject]:
    """Put together what is about one model: by the hash of its file, else by its name or that of what was made of it.

    What could be about several models, or is about another one, is a subject of its own.
    """
    order = sorted(range(len(documents)), key=lambda k: (documents[k].kind not in _FIRST, k))
    found: list[list[int]] = []
    for place in order:
        meant = [own for own in found if _about(documents[place], [documents[k] for k in own])]
        if len(meant) == 1:
            meant[0].append(place)
        else:
            found.append([place])
    parts = [tuple(documents[k] for k in sorted(own)) for own in sorted(found, key=min)]
    counts = Counter(_first(own).model for own in parts)
    return [Subject(_called(_first(own), counts[_first(own).model] > 1), own) for own in parts]


def _about(one: Document, known: Sequence[Document]) -> bool:
    """Whether a document is about what some others are about."""
    digests = {other.sha256 for other in known} - {None}
    if one.sha256 in digests:
        return True
    if one.model in {other.output for other in known}:
        return True
    if one.model not in {other.model for other in known}:
        return False
    files = {other.file for other in known} - {None}
    return not (one.sha256 and digests) and not (one.file and files and one.file not in files)


def _first(known: Sequence[Document]) -> Document:
    """The document that says best what model it is."""
    return next((one for kind in _FIRST for one in known if one.kind == kind), known[0])


def _called(one: Document, several: bool) -> str:
    return one.file or f"{one.model} ({one.where})" if several else one.model
