"""Recipes that come with the package: which there are, and where."""

from __future__ import annotations

import os
from pathlib import Path

from graphprune.errors import InputError

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """What there is."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def about(name: str) -> str:
    """What a recipe is for, in one line."""
    return text(name).splitlines()[0].lstrip("# ").rstrip(":")


def text(name: str) -> str:
    """A recipe as it stands in its file.

    Raises:
        InputError: there is none of this name.
    """
    if name not in names():
        raise InputError(f"{name}: there is no such recipe in the package; there are {', '.join(names())}")
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def placed(recipe: str | os.PathLike[str]) -> Path:
    """The file of a recipe: the one that is there, else the package's of that name.

    Raises:
        InputError: there is neither.
    """
    path = Path(recipe)
    if path.exists() or path.suffix or path.parent != Path():
        return path
    if path.name in names():
        return _FOLDER / f"{path.name}.toml"
    raise InputError(f"{path}: no such file; recipes of the package are {', '.join(names())}")
