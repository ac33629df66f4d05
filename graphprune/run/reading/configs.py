"""What files beside a model say of how its inputs are made.

Known are the ``preprocessor_config.json`` and ``processor_config.json`` of transformers, the ``config.json`` that timm
puts on the Hugging Face hub (``pretrained_cfg``) and the ``inference.yml`` of PaddleOCR. ``looks`` and ``audio`` turn
each into settings.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphprune.errors import BackendError, InputError
from graphprune.model import Model, parsing, paths
from graphprune.run.reading.asked import CONFIG, Settings

TRANSFORMERS = ("preprocessor_config.json", "processor_config.json")
TIMM = "config.json"
NAMES = (*TRANSFORMERS, TIMM, "inference.yml")
SETTINGS = "a file of settings"
"""What such files are called in messages."""
_PARTS = ("image_processor", "feature_extractor")
"""What a ``processor_config.json`` holds the settings of images and sounds in."""


@dataclass(frozen=True)
class Config:
    """A file that was read."""

    path: Path
    data: dict[str, Any]


def beside(model: Model) -> list[Path]:
    """The folders that files of a model lie in: its own, and that of the repository where it is in its ``onnx``."""
    path = model.source.path
    if path is None:
        return []
    own = path.resolve().parent
    return [own, own.parent] if own.name == "onnx" else [own]


def found(given: Settings, place: Path, model: Model, unread: list[str]) -> Iterator[Config]:
    """Files that may say it: the one that is named, or those in the folder of inputs and beside the model.

    What nobody named and cannot be read stops nothing: it may be of something else. A ``config.json``, which is what
    many call their own, counts where it is timm's.

    Args:
        given: settings of the user.
        place: where inputs come from.
        model: the model.
        unread: is told in words of files that lie there and cannot be read.

    Raises:
        InputError: the one that is named cannot be read.
    """
    if CONFIG in given:
        yield read(Path(str(given[CONFIG])))
        return
    own = [place / name for name in TRANSFORMERS] if place.is_dir() else []
    for path in [*own, *(folder / name for folder in beside(model) for name in NAMES)]:
        if path.is_file():
            try:
                config = _read(path)
            except InputError:
                unread.append(f"{path.name} cannot be read")
            except BackendError:
                unread.append(f"{path.name} is read with pip install 'graphprune[images]'")
            else:
                if path.name != TIMM or "pretrained_cfg" in config.data:
                    paths.reads(SETTINGS, path)
                    yield config


def read(path: Path) -> Config:
    """A file of settings.

    Raises:
        InputError: it is none, or is to be written, too.
        BackendError: it is YAML, and no reader for it is installed.
    """
    paths.reads(SETTINGS, path)
    return _read(path)


def _read(path: Path) -> Config:
    try:
        text = parsing.text(path)
        data = _yaml(path, text) if path.suffix in (".yml", ".yaml") else json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a table of settings")
    for part in _PARTS:
        if isinstance(data.get(part), dict):
            data = {**data, **data[part]}
    return Config(path, data)


def _yaml(path: Path, text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise BackendError(
            f"{path}: PyYAML is not installed, and reads it: pip install 'graphprune[images]'"
        ) from error
    try:
        return yaml.load(text, _plainly(yaml))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error


def _plainly(yaml: Any) -> Any:
    """A loader that makes plain data alone, and no tables of tables of others, which a few lines make endless."""

    class Plainly(yaml.SafeLoader):  # type: ignore[misc]
        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.YAMLError("'<<', which merges tables, is not read here")

    return Plainly
