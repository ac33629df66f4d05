"""A folder of images as inputs: read, resized and normalised as the folder says.

The folder may hold a ``preprocessor_config.json``, as models on the Hugging Face hub do; read from it are
``rescale_factor`` (1/255 by default), ``image_mean`` and ``image_std`` (none by default) and ``size`` with ``height``
and ``width`` (by default what the model declares; images keep their size where it declares none).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from graphprune.errors import BackendError, InputError
from graphprune.model import Model
from graphprune.relation import Values

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CONFIG = "preprocessor_config.json"


@dataclass(frozen=True)
class _Form:
    """What an input wants of an image.

    Attributes:
        name: of the input.
        dtype: of its elements.
        channels: 1 or 3.
        last: whether channels are the last axis.
        size: height and width, 0 where free.
        scale, mean, std: of normalisation.
    """

    name: str
    dtype: Any
    channels: int
    last: bool
    size: tuple[int, int]
    scale: float
    mean: Values
    std: Values


def images(folder: Path, model: Model) -> Iterator[dict[str, Values]]:
    """Every image of a folder, by name, as the model's only input; one at a time.

    Raises:
        InputError: the model does not take images, or a file is none.
        BackendError: Pillow is not installed.
    """
    form = _form(folder, model)
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise BackendError("Pillow is not installed, and reads images: pip install pillow") from error
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            with pillow.open(path) as opened:
                picture = opened.convert("L" if form.channels == 1 else "RGB")
        except OSError as error:
            raise InputError(f"{path}: not an image ({error})") from error
        height, width = (wanted or own for wanted, own in zip(form.size, picture.size[::-1], strict=True))
        yield {form.name: _normalised(np.asarray(picture.resize((width, height))), form)}


def _normalised(pixels: Values, form: _Form) -> Values:
    """``[height, width(, channels)]`` of bytes as the model wants it."""
    value = pixels.reshape(*pixels.shape[:2], form.channels)
    if np.dtype(form.dtype).kind == "f":
        value = (value * form.scale - form.mean) / form.std
    return (value if form.last else np.moveaxis(value, -1, 0))[None].astype(form.dtype)


def _form(folder: Path, model: Model) -> _Form:
    value = model.inputs[0]
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    channels = next(((a, dims[a]) for a in (1, 3) if len(dims) == 4 and dims[a] in (1, 3)), None)
    if len(model.inputs) != 1 or channels is None:
        raise InputError(
            f"{folder}: holds images, and {model.name} does not take them: it wants {_described(model)}, and not one "
            "input of images with 1 or 3 channels"
        )
    config = _config(folder / _CONFIG)
    size = config.get("size", {})
    declared = (dims[2], dims[3]) if channels[0] == 1 else (dims[1], dims[2])
    found = (int(size.get("height", declared[0])), int(size.get("width", declared[1])))
    kind = value.type.tensor_type.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(kind if kind != TensorProto.BFLOAT16 else TensorProto.FLOAT)
    mean, std = (np.asarray(config.get(f"image_{k}", d), np.float64) for k, d in (("mean", 0.0), ("std", 1.0)))
    scale = float(config.get("rescale_factor", 1 / 255))
    return _Form(value.name, dtype, channels[1], channels[0] == 3, found, scale, mean, std)


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a table of settings")
    return found


def _described(model: Model) -> str:
    def one(value: ValueInfoProto) -> str:
        dims = value.type.tensor_type.shape.dim
        return f"{value.name} {'x'.join(str(d.dim_value or d.dim_param or '?') for d in dims)}"

    return ", ".join(map(one, model.inputs))
