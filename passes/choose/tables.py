"""Data files of this room: TOML or JSON, held against a schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import tomlkit
from tomlkit.exceptions import TOMLKitError

from graphprune.errors import InputError
from graphprune.model import parsing
from graphprune.schema import schema


def load(path: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """What a file holds; JSON where its name ends so, else TOML.

    Args:
        path: the file.
        name: of the schema (see ``graphprune.schema``).

    Raises:
        InputError: it cannot be read, or is not what the schema says; tells where.
    """
    file = Path(path)
    try:
        text = parsing.text(file)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    return parse(text, name, str(file))


def parse(text: str, name: str, file: str) -> dict[str, Any]:
    """The same of a text, with what its file is called in messages."""
    kind = "JSON" if file.endswith(".json") else "TOML"
    try:
        data: dict[str, Any] = parsing.parsed(text) if kind == "JSON" else tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not {kind}: {' '.join(str(error).split())}") from error
    problem = next(jsonschema.Draft202012Validator(schema(name)).iter_errors(data), None)
    if problem is not None:
        at = ".".join(str(key + 1 if isinstance(key, int) else key) for key in problem.absolute_path) or "the top"
        raise InputError(f"{file}: {at}: {problem.message}; {name}.schema.json says what may stand there")
    return data
