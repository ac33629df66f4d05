"""What a page is made of: plans, and the JSON of commands, each recognised by what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from graphprune.cli.pages.tree import fit
from graphprune.errors import InputError
from graphprune.model import paths
from graphprune.schema import schema

Data = Mapping[str, Any]

_FORMATS = {
    "graphprune-plan/1": "plan",
    "graphprune-verdict/1": "verdict",
    "graphprune-bench/1": "bench",
    "graphprune-profile/1": "profile",
    "graphprune-sensitivity/1": "sensitivity",
    "graphprune-sweep/1": "sweep",
    "graphprune-diff/1": "diff",
    "graphprune-run/1": "run",
}
_KEYS = {
    "result": {"model", "before", "after", "kinds"},
    "inspection": {"model", "groups", "witness", "owned"},
    "sparsity": {"model", "pattern", "layers"},
}
"""By what those are known that have no format: keys at the top."""


@dataclass(frozen=True)
class Document:
    """One thing to show.

    Attributes:
        kind: ``result`` (of prune, sparsify, distill, apply), ``plan``, ``verdict``, ``bench``, ``profile``,
            ``sensitivity``, ``sweep``, ``diff``, ``inspection`` or ``sparsity``.
        data: as in the JSON.
        where: what to call it in messages.
    """

    kind: str
    data: Data
    where: str

    @property
    def model(self) -> str:
        """Name of the model that it is about."""
        return _MODEL[self.kind](self.data)


def _plain(data: Data) -> str:
    return str(data["model"])


def _file(data: Data) -> str:
    return str(data.get("model", {}).get("file", "the model"))


_MODEL: dict[str, Callable[[Data], str]] = {
    "result": _plain,
    "verdict": _plain,
    "inspection": _plain,
    "sparsity": _plain,
    "plan": _file,
    "profile": _file,
    "sensitivity": _file,
    "sweep": _file,
    "diff": lambda data: str(data["models"][0]["file"]),
    "bench": lambda data: str(data["timings"][0]["model"]),
}


def load(path: Path) -> list[Document]:
    """Read a file.

    Raises:
        InputError: no such file, no JSON, or none that there is something to show of.
    """
    paths.reads("what the report is made of", path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}); give plans, or what commands write by --json FILE") from error
    return list(read(data, str(path)))


def read(data: Any, where: str) -> Iterator[Document]:
    """Documents of the JSON of a command; that of ``run`` holds several.

    Raises:
        InputError: it is of no command that there is something to show of, or not as commands write it.
    """
    kind = _kind(data)
    if kind is None:
        told = "has no format, nor the keys, of anything that there is something to show of"
        raise InputError(f"{where}: {told}; give plans (*.plan.json), or what commands write by --json FILE")
    if kind == "run":
        for one in data.get("models", ()):
            if one.get("error") is None:
                yield from read(one, where)
        return
    _check(kind, data, where)
    yield Document(kind, _fit(data), where)


def _fit(data: Any) -> Any:
    """Data whose texts can all stand in a page."""
    if isinstance(data, dict):
        return {fit(key): _fit(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_fit(one) for one in data]
    return fit(data) if isinstance(data, str) else data


def _kind(data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    given = data.get("format")
    if isinstance(given, str):
        return _FORMATS.get(given)
    return next((kind for kind, keys in _KEYS.items() if keys <= data.keys()), None)


def _check(kind: str, data: Any, where: str) -> None:
    outline = schema("shown") if kind in _KEYS else schema(kind)
    if kind in _KEYS:
        outline = {**outline, **outline["$defs"][kind]}
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(outline).iter_errors(data))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"{where}: at {place}: {error.message[:200]}; was it written by another version?")


@dataclass(frozen=True)
class Subject:
    """What is shown of one model.

    Attributes:
        model: its name.
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
        return found or [_of_plan(plan) for plan in self.all("plan")]


def subjects(documents: Sequence[Document]) -> list[Subject]:
    """Put together what is about one model: by its name, or by that of a file that was made of it."""
    names: dict[str, str] = {}
    for one in documents:
        if one.kind in ("result", "plan"):
            names.setdefault(one.model, one.model)
            output = one.data.get("output") if one.kind == "result" else None
            if output:
                names.setdefault(Path(output).name, one.model)
    only = next(iter(names.values())) if len(set(names.values())) == 1 else None
    found: dict[str, list[Document]] = {}
    for one in documents:
        found.setdefault(names.get(one.model, only or one.model), []).append(one)
    return [Subject(name, tuple(own)) for name, own in found.items()]


def _of_plan(plan: Data) -> Data:
    """What a plan says, as the JSON of a command has it."""
    groups = [one for one in plan["groups"] if one["removed"]]
    kinds: dict[str, dict[str, Any]] = {}
    for one in groups:
        own = kinds.setdefault(one["kind"], {"kind": one["kind"], "groups": 0, "classes": 0, "kept": 0})
        own["groups"] += 1
        own["classes"] += one["size"]
        own["kept"] += one["size"] - len(one["removed"])
    proof = plan.get("proof")
    if proof is not None:
        worst = max((one["max_rel"] for one in proof.get("outputs", ())), default=0.0)
        proof = {"worst": worst, **proof}
    return {
        "model": plan["model"]["file"],
        "groups": [[one["id"], one["kind"], one["size"], len(one["removed"])] for one in groups],
        "kinds": list(kinds.values()),
        "proof": proof,
        "choices": plan.get("choices", []),
        "compensated": plan.get("compensated", []),
        "distilled": plan.get("distilled"),
        "blocks": plan.get("blocks", []),
    }
