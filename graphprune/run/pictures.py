"""A folder of images as inputs: read, resized and normalised as the folder says.

Their size is what ``--input-shape`` gives for the input, else what the model declares, else what the folder says; where
none of them says it, images keep the size that they have, and the model must run at that (see :func:`check_sizes`).

The folder may hold a ``preprocessor_config.json``, as models on the Hugging Face hub do; read from it are
``rescale_factor`` (1/255 by default), ``image_mean`` and ``image_std`` (none by default) and ``size``, one number or
``height`` and ``width``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from graphprune.errors import BackendError, InputError
from graphprune.model import Model
from graphprune.relation import Shape, Values
from graphprune.run.runtime import run, session

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CONFIG = "preprocessor_config.json"


@dataclass(frozen=True)
class _Form:
    """What an input wants of an image.

    Attributes:
        name: of the input.
        dtype: of its elements.
        batch: images that it takes at a time.
        channels: 1 or 3.
        last: whether channels are the last axis.
        size: height and width, 0 where nothing says it.
        scale, mean, std: of normalisation.
    """

    name: str
    dtype: Any
    batch: int
    channels: int
    last: bool
    size: tuple[int, int]
    scale: float
    mean: Values
    std: Values


def images(folder: Path, model: Model, input_shapes: Mapping[str, Shape] | None = None) -> Iterator[dict[str, Values]]:
    """Every image of a folder, by name, as the model's only input; as many at a time as the model fixes, else one.

    Raises:
        InputError: the model does not take images, or a file is none.
        BackendError: Pillow is not installed.
    """
    form = _form(folder, model, input_shapes or {})
    batch: list[Values] = []
    for path, picture in _opened(folder, form):
        batch.append(_normalised(np.asarray(picture.resize(_size(picture, form)[::-1])), form))
        if batch[-1].shape != batch[0].shape:
            raise InputError(f"{path}: {_shown(picture)}, and the image before it has another size; {_remedy(form)}")
        if len(batch) == form.batch:
            yield {form.name: np.concatenate(batch)}
            batch = []


def check_sizes(
    folder: Path, model: Model, input_shapes: Mapping[str, Shape] | None = None, most: int | None = None
) -> None:
    """Run the model once at each size that images have, of so many, where nothing else says the size.

    Raises:
        InputError: it does not run there; names the image, its size, and how to give another.
    """
    form = _form(folder, model, input_shapes or {})
    if all(form.size):
        return
    tried: set[tuple[int, int]] = set()
    with session(model.runnable) as active:
        for path, picture in islice(_opened(folder, form), most):
            size = _size(picture, form)
            if size in tried:
                continue
            tried.add(size)
            one = _normalised(np.asarray(picture.resize(size[::-1])), form)
            try:
                run(active, {form.name: one.repeat(form.batch, 0)})
            except InputError as error:
                shown = _shown(picture)
                raise InputError(
                    f"{path}: {shown}, and {model.name} does not run at it; {_remedy(form)} ({error})"
                ) from error


def _opened(folder: Path, form: _Form) -> Iterator[tuple[Path, Any]]:
    """The images of a folder, in order."""
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
        yield path, picture


def _size(picture: Any, form: _Form) -> tuple[int, int]:
    """Height and width that an image is resized to."""
    width, height = picture.size
    return form.size[0] or height, form.size[1] or width


def _shown(picture: Any) -> str:
    width, height = picture.size
    return f"is {height} high and {width} wide"


def _remedy(form: _Form) -> str:
    sizes = [str(form.batch), "HEIGHT", "WIDTH"]
    sizes.insert(3 if form.last else 1, str(form.channels))
    return f"give the size to which all are resized, by --input-shape {form.name}={'x'.join(sizes)}"


def _normalised(pixels: Values, form: _Form) -> Values:
    """``[height, width(, channels)]`` of bytes as the model wants it."""
    value = pixels.reshape(*pixels.shape[:2], form.channels)
    if np.dtype(form.dtype).kind == "f":
        value = (value * form.scale - form.mean) / form.std
    return (value if form.last else np.moveaxis(value, -1, 0))[None].astype(form.dtype)


def _form(folder: Path, model: Model, input_shapes: Mapping[str, Shape]) -> _Form:
    value = model.inputs[0]
    declared = [max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim]
    given = input_shapes.get(value.name, ())
    dims = [d or g for d, g in zip(declared, given, strict=True)] if len(given) == len(declared) else declared
    channels = next(((a, dims[a]) for a in (1, 3) if len(dims) == 4 and dims[a] in (1, 3)), None)
    if len(model.inputs) != 1 or channels is None:
        raise InputError(
            f"{folder}: holds images, and {model.name} does not take them: it wants {_described(model)}, and not one "
            "input of images with 1 or 3 channels (--input-shape says how many, where the model leaves it open)"
        )
    path = folder / _CONFIG
    config = _config(path)
    size = config.get("size", {})
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    fixed = (dims[2], dims[3]) if channels[0] == 1 else (dims[1], dims[2])
    kind = value.type.tensor_type.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(kind if kind != TensorProto.BFLOAT16 else TensorProto.FLOAT)
    return _Form(
        name=value.name,
        dtype=dtype,
        batch=declared[0] or 1,
        channels=channels[1],
        last=channels[0] == 3,
        size=(fixed[0] or _whole(path, "height", height), fixed[1] or _whole(path, "width", width)),
        scale=float(_numbers(path, config, "rescale_factor", 1 / 255, 1)),
        mean=_numbers(path, config, "image_mean", 0.0, channels[1]),
        std=_numbers(path, config, "image_std", 1.0, channels[1]),
    )


def _whole(path: Path, name: str, value: Any) -> int:
    """A height or width that a folder says, 0 where it says none."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: the {name} of its 'size' is {value!r}, and must be a whole number from 1 up")
    return value


def _numbers(path: Path, config: Mapping[str, Any], key: str, default: float, most: int) -> Values:
    """One number, or one for each channel."""
    try:
        found = np.asarray(config.get(key, default), np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape not in ((), (1,), (most,)) or not np.isfinite(found).all():
        wanted = "a number" if most == 1 else f"a number, or {most} of them"
        raise InputError(f"{path}: its {key!r} is {config[key]!r}, and must be {wanted}")
    return found.reshape(()) if found.size == 1 else found


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
