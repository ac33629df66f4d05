"""``--save-recipe``: what a command does, as a file that repeats it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from graphprune.model import files
from graphprune.passes import toml
from graphprune.passes.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])


def recipe_option(function: F) -> F:
    """``--save-recipe``, as ``saved``."""
    return click.option(
        "--save-recipe",
        "saved",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Write what was done as a recipe, to repeat it by 'graphprune run'.",
    )(function)


def save_recipe(recipe: Recipe, path: Path | None) -> None:
    """Write a recipe where one is asked for."""
    if path is not None:
        text = toml.dump(recipe, path)
        files.atomically(path, lambda file: file.write(text.encode()))
