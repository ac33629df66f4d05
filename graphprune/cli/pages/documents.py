"""What a page is made of: plans, and the JSON of commands, each recognised by what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from graphprune.cli import report
from graphprune.cli.harmless import harmless
from graphprune.errors import InputError
from graphprune.model import parsing, paths
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
_PLAN = ".plan.json"


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

    @property
    def sha256(self) -> str | None:
        """Of the file of that model; None where it does not say."""
        if self.kind == "diff":
            return str(self.data["models"][0]["sha256"]) or None
        told = self.data.get("model")
        found = told.get("sha256") if isinstance(told, dict) else self.data.get("sha256")
        return found if isinstance(found, str) and found else None

    @property
    def file(self) -> str | None:
        """Path of that model as ``run`` was given it; None of all others."""
        found = self.data.get("file")
        return found if isinstance(found, str) else None

    @property
    def output(self) -> str | None:
        """Name of the file that was made of it; None where there is none, or it is not known.

        A plan does not say: it lies beside the model of its name.
        """
        if self.kind == "plan":
            name = Path(self.where).name
            return f"{name.removesuffix(_PLAN)}.onnx" if name.endswith(_PLAN) else None
        found = self.data.get("output") if self.kind == "result" else None
        return Path(found).name if found else None


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
        data = parsing.parsed(parsing.text(path))
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
        models = data.get("models", [])
        if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
            raise InputError(f"{where}: 'models' must be what 'graphprune run --json' writes, an object for each model")
        for one in models:
            if one.get("error") is None:
                yield from read(one, where)
        return
    _check(kind, data, where)
    yield Document(kind, _fit(data), where)


def _fit(data: Any) -> Any:
    """Data whose texts can all stand in a page."""
    if isinstance(data, dict):
        return {harmless(key): _fit(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_fit(one) for one in data]
    return harmless(data) if isinstance(data, str) else data


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
    _hold(outline, data, where)
    if kind == "plan":  # whose own schema says little of what is only shown
        shown = schema("shown")
        read = {key: value for key, value in data.items() if key in _SHOWN and value is not None}
        if isinstance(data.get("proof"), dict):
            read["proof"] = {"worst": None, **data["proof"]}
        _hold({"$defs": shown["$defs"], "properties": shown["$defs"]["result"]["properties"]}, read, where)
    if kind == "bench" and len(data["ratios"]) != len(data["timings"]) - 1:
        raise InputError(f"{where}: at ratios: must be one for each timing but the first")


_SHOWN = ("choices", "compensated", "distilled", "blocks", "proof")


def _hold(outline: Any, data: Any, where: str) -> None:
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(outline).iter_errors(data))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise InputError(f"{where}: at {place}: {error.message[:200]}; was it written by another version?")


def of_plan(plan: Data) -> Data:
    """What a plan says, as the JSON of a command has it."""
    groups = [one for one in plan["groups"] if one["removed"]]
    proof = plan.get("proof")
    if proof is not None:
        worst = max((rel for one in proof.get("outputs", ()) if (rel := one["max_rel"]) is not None), default=0.0)
        proof = {"worst": worst, **proof}
    return {
        "model": plan["model"]["file"],
        "groups": [[one["id"], one["kind"], one["size"], len(one["removed"])] for one in groups],
        "kinds": report.kinds(groups),
        "proof": proof,
        "choices": plan.get("choices", []),
        "compensated": plan.get("compensated", []),
        "distilled": plan.get("distilled"),
        "blocks": plan.get("blocks", []),
    }
