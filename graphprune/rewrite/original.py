"""The model that a plan was made for: it knows its file by name, and by what is in it."""

from __future__ import annotations

from pathlib import Path

from graphprune.errors import InputError
from graphprune.model import Model, load
from graphprune.rewrite.plan import Plan


def original(plan: Plan, path: str | Path | None = None, *, option: str = "--model") -> Model:
    """The model that a plan was made for; of several files of its name the one with its content.

    Args:
        plan: read from a file.
        path: the model's file; by default it is looked for beside the plan and in the working directory.
        option: by which the user gives a path, for messages.

    Raises:
        InputError: it is not there, or is another one.
    """
    found = look(plan, path)
    if found is not None:
        return found
    name, digest = plan.model["file"], plan.model["sha256"]
    if any(place.is_file() for place in _places(plan)):
        raise InputError(
            f"{plan.where}: made for another {name} (sha256 {digest[:12]}...) than is beside it or here; give that one "
            f"by {option}"
        )
    raise InputError(f"{plan.where}: its original, {name!r}, is neither beside it nor here; give it by {option}")


def look(plan: Plan, path: str | Path | None = None) -> Model | None:
    """The same; None where no path is given and it is not found.

    Raises:
        InputError: what is given is another model.
    """
    digest = plan.model["sha256"]
    if path is None:
        found = (load(place) for place in _places(plan) if place.is_file())
        return next((model for model in found if model.sha256 == digest), None)
    model = load(Path(path))
    if model.sha256 != digest:
        name = plan.model["file"]
        raise InputError(
            f"{path}: {plan.where} was made for another file: {name}, sha256 {digest[:12]}...; give that one"
        )
    return model


def _places(plan: Plan) -> list[Path]:
    name = plan.model["file"]
    return list(dict.fromkeys((Path(plan.where).parent / name, Path(name))))
