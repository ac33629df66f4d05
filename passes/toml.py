"""Recipes as files: TOML, with a schema (``recipe.schema.json``), read with the line of every error.

    format = "graphprune-recipe/1"

    [job]
    calibration = "inputs.npz"      # beside the recipe, or wherever the path leads from there

    [[passes]]
    use = "select"
    ratio = 0.3

    [[passes]]
    use = "cut"

    [models."*rec*.onnx".input_shapes]
    x = [1, 3, 48, 320]

Paths are those of the recipe's folder. A section of ``models`` holds for models whose file name its glob matches.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import tomlkit
from tomlkit.exceptions import TOMLKitError

from graphprune.errors import InputError
from graphprune.model import parsing
from graphprune.passes import budget
from graphprune.passes.choose import backends
from graphprune.passes.contract import Pass
from graphprune.passes.recipe import FORMAT, OptionError, Recipe, build
from graphprune.passes.shelf import shelf
from graphprune.passes.state import Job
from graphprune.passes.step import Step
from graphprune.run import synthetic, usercode
from graphprune.run.reading import asked
from graphprune.schema import schema

_INPUTS = ("calibration", "inputs")
"""Options that may hold a table too, with a path in it (see ``graphprune.run.reading.asked``)."""
_PATHS = ("calibration", "checkpoint", "fitted", "ids", "inputs", "original", "plan", "table", "teacher")
"""Options that hold a path where they hold no word of another kind."""
_ENDINGS = {"backend": backends.ENDINGS, "loss": (".onnx",)}
"""Options that hold a word, or a path that ends so."""


def load(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe: a file, or one of the package by its name.

    Raises:
        InputError: no such file, not TOML, or not a recipe; says at which line and key.
    """
    file = shelf.placed(path)
    try:
        text = parsing.text(file)
        data = tomlkit.parse(text).unwrap()
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (TOMLKitError, RecursionError) as error:
        line = getattr(error, "line", None)
        said = " ".join(str(error).split())
        raise InputError(f"{file}{f':{line}' if line else ''}: not TOML: {said}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no recipe, which is text: it comes first, and models behind it") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
    problems = list(jsonschema.Draft202012Validator(_outline()).iter_errors(data))
    for problem in problems:  # a key that is not known first: it may be the slip that another one is missing by
        if problem.validator == "additionalProperties":
            keys, there = list(problem.absolute_path), list(problem.schema["properties"])
            key = next(k for k in problem.instance if k not in there)
            close = difflib.get_close_matches(key, there, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(there)}"
            raise InputError(f"{file}{_at(text, [*keys, key])}: {_named([*keys, key])} is no key of recipes; {hint}")
    worst = jsonschema.exceptions.best_match(problems)
    if worst is not None:
        keys = list(worst.absolute_path)
        raise InputError(f"{file}{_at(text, keys)}: {_named(keys)}: {worst.message[:200]}")
    return _recipe(data, text, file)


def _outline() -> dict[str, Any]:
    """The schema without the options of passes: what is wrong with these is told by the passes themselves."""
    found = schema("recipe")
    del found["properties"]["passes"]["items"]["allOf"]
    return found


def _recipe(data: Mapping[str, Any], text: str, file: Path) -> Recipe:
    passes: list[Pass] = []
    for place, entry in enumerate(data["passes"]):
        options = {k: v for k, v in _placed(entry, file.parent, _from).items() if k != "use"}
        try:
            passes.append(build(entry["use"], options))
        except OptionError as error:
            keys: list[str | int] = ["passes", place, error.key]
            raise InputError(f"{file}{_at(text, keys)}: {error}") from error
        except InputError as error:
            raise InputError(f"{file}{_at(text, ['passes', place, 'use'])}: {error}") from error
    models = {
        glob: _job(_placed(section, file.parent, _from), f"{file}{_at(text, ['models', glob, 'time'])}")
        for glob, section in data.get("models", {}).items()
    }
    job = _job(_placed(data.get("job", {}), file.parent, _from), f"{file}{_at(text, ['job', 'time'])}")
    places = tuple(f"{file}{_at(text, ['passes', place, 'use'])}" for place in range(len(passes)))
    return Recipe(tuple(passes), Job(**job), models, places)


def _job(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a section says of the job; its time is told by the line that it stands at where it is none."""
    found = dict(section)
    if "input_shapes" in found:
        found["input_shapes"] = {name: tuple(sizes) for name, sizes in found["input_shapes"].items()}
    if "time" in found:
        try:
            found["time"] = budget.seconds(found["time"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return found


def dump(recipe: Recipe, path: str | os.PathLike[str]) -> str:
    """A recipe as the text of a file at some place, of which its paths are told.

    Raises:
        InputError: it holds what no file can: inputs in memory, a plan that is no file.
    """
    folder = Path(path).parent
    document = tomlkit.document()
    document["format"] = FORMAT
    job = _plain(recipe.job)
    if job:
        document["job"] = _placed(job, folder, _to)
    steps = tomlkit.aot()
    for one in recipe.passes:
        use = {"use": one.function if isinstance(one, Step) else one.name}
        options = {k: v for k, v in _plain(one).items() if not (isinstance(one, Step) and k == "function")}
        steps.append(tomlkit.item({**use, **_placed(options, folder, _to)}))
    document["passes"] = steps
    if recipe.models:
        document["models"] = {glob: _placed(dict(section), folder, _to) for glob, section in recipe.models.items()}
    return tomlkit.dumps(document)


def told(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a model can carry it: paths as the names of files alone, and what no file can hold in a word."""
    found: dict[str, Any] = {"format": FORMAT, "job": _briefly(recipe.job)}
    found["passes"] = [
        {"use": one.function if isinstance(one, Step) else one.name, **_briefly(one)} for one in recipe.passes
    ]
    return found


def _briefly(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, own in _differing(value).items():
        try:
            found[name] = _item(own, name)
        except InputError:
            found[name] = "in memory"
        found |= _placed({name: found[name]}, Path(), lambda path, _: Path(path).name)
    return found


def _plain(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that differ from their defaults, as TOML has them."""
    what = getattr(value, "name", "the job")
    return {name: _item(own, f"{name} of {what}") for name, own in _differing(value).items()}


def _differing(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that differ from their defaults."""
    found = {}
    for one in dataclasses.fields(value):
        own = getattr(value, one.name)
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if own is not None and not (own is default or (isinstance(own, _COMPARED) and own == default)):
            found[one.name] = own
    return found


_COMPARED = (bool, int, float, str, tuple, list, dict)
"""Types whose values are compared: what else there may be (arrays) knows no plain equality."""


def _item(value: Any, what: str) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping) and not any(hasattr(v, "dtype") for v in value.values()):
        return {str(k): _item(v, what) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_item(v, what) for v in value]
    if isinstance(value, str | bool | int | float):
        return value
    raise InputError(f"{what} is a {type(value).__name__} in memory, which no recipe can hold; give a path")


def _placed(options: Mapping[str, Any], folder: Path, place: Any) -> dict[str, Any]:
    """Options with their paths told from another folder."""
    found = {k: place(v, folder) if is_path(k, v) else v for k, v in options.items()}
    for name in _INPUTS:
        table = found.get(name)
        if table is not None and asked.is_asked(table):
            found[name] = {
                k: place(v, folder) if k in asked.FILES and not usercode.names_one(str(v)) else v
                for k, v in table.items()
            }
    return found


def is_path(name: str, value: Any) -> bool:
    """Whether an option of this name is a path, where it holds this."""
    if not isinstance(value, str):
        return False
    if name in _ENDINGS:
        return value.endswith(_ENDINGS[name])
    return name in _PATHS and value != synthetic.NAME and not usercode.names_one(value)


def _from(value: str, folder: Path) -> str:
    return str(folder / value)


def _to(value: str, folder: Path) -> str:
    return os.path.relpath(value, folder)


def _named(keys: Sequence[str | int]) -> str:
    """``passes 2, ratio``: keys as a person counts them."""
    words = [f"{words_before} {key + 1}" if isinstance(key, int) else str(key)
             for words_before, key in zip(["", *map(str, keys)], keys, strict=False)]  # fmt: skip
    found = [w for k, w in enumerate(words) if not (k + 1 < len(keys) and isinstance(keys[k + 1], int))]
    return ", ".join(found) or "the top"


def _at(text: str, keys: Sequence[str | int]) -> str:
    """``:7``: the line that a key stands at, or that of the section that it is missing from."""
    lines, start, found = text.splitlines(), 0, 0
    section = [str(k) for k in keys if isinstance(k, str)]
    number = next((k for k in keys if isinstance(k, int)), None)
    for place, key in enumerate(section):
        head = re.compile(rf"\s*\[+\s*(?:[^\]]*\.)?[\"']?{re.escape(key)}[\"']?\s*[.\]]")
        if place == 0 and number is not None:
            head = re.compile(rf"\s*\[\[\s*{re.escape(key)}\s*\]\]")
        heads = [n for n in range(start, len(lines)) if head.match(lines[n])]
        which = number if place == 0 and number is not None else 0
        if which < len(heads):
            start = found = heads[which]
            continue
        entry = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]")
        end = next((n for n in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[n])), len(lines))
        hit = next((n for n in range(start, end) if entry.match(lines[n])), None)
        found = found if hit is None else hit
        break
    return f":{found + 1}" if lines else ""
