"""Backends: what widths pay on which runtime, from facts with their sources (``backends.toml``).

Other packages bring theirs by the entry point group ``graphprune.backends`` (a :class:`Backend`, or the path of such a
file), users by a file. ``python -m graphprune.passes.choose.backends`` prints the table of this room's README.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from math import lcm
from typing import Any

from onnx import TensorProto

from graphprune.analysis import Analysis, cost
from graphprune.errors import InputError
from graphprune.passes.choose import tables
from graphprune.run import usercode

GROUP = "graphprune.backends"
"""Entry points of other packages' backends."""
KINDS = ("float32", "float16", "int8")
"""Types of weights that backends tell apart, the widest first."""
ENDINGS = (".toml", *(f".toml:{kind}" for kind in KINDS))
"""How a backend ends that is a file."""
_OTHERWISE = {
    "padded": "computes other widths as the next multiple",
    "refused": "does not take other widths",
    "slower": "is slower with other widths",
}
_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "float16",
}


@dataclass(frozen=True)
class Fact:
    """Something that is known of a backend.

    Attributes:
        says: the fact.
        sure: ``documented`` by its makers, read in their ``code``, ``measured`` here, or a ``rule`` of thumb.
        source: where it is from: a page and a section, a repository and a file.
    """

    says: str
    sure: str
    source: str


@dataclass(frozen=True)
class Backend:
    """A runtime, or a device with its compiler.

    Attributes:
        name: what ``--for`` calls it.
        title: what it is.
        outputs: by type of weights, what the number of outputs of a product should be a multiple of.
        sums: the same of what a product sums over.
        otherwise: what it does with other widths: ``padded``, ``slower`` or ``refused``.
        less: smaller multiples that still pay, where the whole one gives up too much of a group.
        sparse: whether 2:4 weights are known to be faster.
        facts: where this is from.
        kind: the type of weights that it will be given, where that is another than the file's.
    """

    name: str
    title: str
    outputs: Mapping[str, int]
    sums: Mapping[str, int]
    otherwise: str = "padded"
    less: tuple[int, ...] = ()
    sparse: bool = False
    facts: tuple[Fact, ...] = ()
    kind: str | None = None

    def align(self, kind: str) -> int:
        """What widths should be a multiple of: each is an output of one product and a sum of the next.

        Args:
            kind: type of the model's weights, one of :data:`KINDS`. A type that the backend does not list is what it
                is converted to there: the next narrower one, else the widest.
        """
        return lcm(_listed(self.outputs, self.kind or kind), _listed(self.sums, self.kind or kind))

    def steps(self, kind: str) -> tuple[int, ...]:
        """Multiples to try, the best first; the last is strict where it is not 1."""
        whole = self.align(kind)
        return (whole, *(n for n in self.less if n < whole))

    @property
    def why(self) -> str:
        """Why a group stays whole that has no whole multiple left."""
        return f"{self.name} {_OTHERWISE[self.otherwise]}"


def _listed(multiples: Mapping[str, int], kind: str) -> int:
    narrower = KINDS[KINDS.index(kind) :]
    return next(multiples[k] for k in (*narrower, *KINDS) if k in multiples)


def kind_of(analysis: Analysis) -> str:
    """The type of most elements of weights that groups cut, as one of :data:`KINDS`."""
    found: Counter[str] = Counter()
    for group in (*analysis.groups, *analysis.fixed):
        for use, _ in analysis.weights(group):
            source = analysis.model.sources[analysis.root(use)]
            if len(source.shape) > 1:
                found[_TYPES.get(source.dtype, "int8")] += cost.elements(source)
    return max(KINDS, key=lambda kind: found[kind])


@lru_cache(maxsize=1)
def _own() -> dict[str, Backend]:
    text = (files("graphprune.passes.choose") / "backends.toml").read_text(encoding="utf-8")
    return _backends(tables.parse(text, "backends", "backends.toml"))


@lru_cache(maxsize=1)
def _foreign() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """All backends that are installed."""
    return [*_own(), *sorted(_foreign().keys() - _own().keys())]


def find(name: str) -> Backend:
    """A backend by its name or from a file of one, with ``:float16`` or the like behind it where weights will change.

    Raises:
        InputError: there is none of this name, or the file is no backend; says which there are.
    """
    first, _, kind = name.rpartition(":")
    if kind in KINDS and first:
        return _given(first, kind)
    return _given(name, None)


def _given(name: str, kind: str | None) -> Backend:
    found = _file(name) if name.endswith(".toml") else _named(name)
    return found if kind is None else replace(found, kind=kind)


def _named(name: str) -> Backend:
    if name in _own():
        return _own()[name]
    if name not in _foreign():
        close = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {close[0]}?" if close else ""
        raise InputError(
            f"--for {name}: there is no such backend; {hint or 'there are ' + ', '.join(names()) + ', and FILE.toml'}"
        )
    entry = _foreign()[name]
    with usercode.told(f"backend {name!r} of {entry.value}"):
        loaded = entry.load()
    if isinstance(loaded, Backend):
        return loaded
    if not isinstance(loaded, str | os.PathLike):
        raise InputError(f"backend {name!r} of {entry.value} is neither a Backend nor the path of a file of one")
    return _file(loaded, name)


def _file(path: str | os.PathLike[str], name: str | None = None) -> Backend:
    """The backend of a file: the only one, or that of a name."""
    found = _backends(tables.load(path, "backends"))
    if name in found:
        return found[name]
    if len(found) != 1:
        raise InputError(f"{os.fspath(path)}: holds {len(found)} backends ({', '.join(found)}), and must hold one")
    return next(iter(found.values()))


def _backends(data: Mapping[str, Any]) -> dict[str, Backend]:
    return {
        name: Backend(
            name,
            **{k: v for k, v in entry.items() if k not in ("facts", "less")},
            less=tuple(entry.get("less", ())),
            facts=tuple(Fact(**fact) for fact in entry["facts"]),
        )
        for name, entry in data["backends"].items()
    }


def table() -> str:
    """All backends of this package as Markdown; their facts stand in the file."""
    lines = [
        "| `--for` | is | " + " | ".join(KINDS) + " | other widths | from |",
        "|---|---|" + "---|" * (len(KINDS) + 2),
    ]
    for one in _own().values():
        each = [str(one.align(k)) if {k} & {*one.outputs, *one.sums} else "" for k in KINDS]
        other = one.otherwise + (f"; then {', '.join(map(str, one.less))}" if one.less else "")
        sure = ", ".join(dict.fromkeys(fact.sure for fact in one.facts))
        lines.append(f"| `{one.name}` | {one.title} | {' | '.join(each)} | {other} | {sure} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
