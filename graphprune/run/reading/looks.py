"""What files and metadata of others say of images, as settings (see ``graphprune.run.reading.images``).

Of transformers' image processors all keys that are common to them are read (``image_processing_*.py``); of timm
``create_transform`` and its centre crop (``timm/data/transforms_factory.py``); of Ultralytics what its exporter writes
into the model (``ultralytics/engine/exporter.py``) and its ``LetterBox``; of PaddleOCR the operators of ``PreProcess``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import floor
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.run.reading import exported
from graphprune.run.reading.asked import number, numbers, share, shown, whole
from graphprune.run.reading.configs import Config

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters, by number."""
_BEYOND = (
    "do_align_long_axis",
    "do_image_splitting",
    "do_pan_and_scan",
    "do_split_image",
    "do_thumbnail",
    "merge_size",
)
"""Settings of processors that make something else of an image than one picture of one size."""
_SAYS = ("size", "crop_size", "image_mean", "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize")


def from_config(config: Config) -> dict[str, Any]:
    """Settings of a file; none where it does not speak of images.

    Raises:
        InputError: a setting is none, or asks for what is not known.
    """
    data = config.data
    timm = data.get("pretrained_cfg")
    if isinstance(timm, dict):
        return _timm(config, timm)
    if isinstance(data.get("PreProcess"), dict):
        return _paddle(config, data["PreProcess"].get("transform_ops"))
    if not any(key in data for key in _SAYS) or "sampling_rate" in data:
        return {}
    if beyond := [key for key in _BEYOND if data.get(key)]:
        raise InputError(
            f"{config.path}: its {beyond[0]!r} makes more of an image than is known: give inputs by module:function"
        )
    return {**_resized(config), **_coloured(config)}


def _resized(config: Config) -> dict[str, Any]:
    """How a processor of transformers brings images to a size."""
    data, found = config.data, dict[str, Any]()
    size, crop = data.get("size"), data.get("crop_size")
    cropped = crop is not None and data.get("do_center_crop", True)
    if "resample" in data or "size" in data:
        resample = data.get("resample", 2)
        if not isinstance(resample, int) or resample not in range(len(_RESAMPLE)):
            raise InputError(
                f"{config.path}: its 'resample' is {shown(resample)}, and must be a number of Pillow's filters"
            )
        found["interpolation"] = _RESAMPLE[resample]
    if data.get("do_resize", True) and size is not None:
        found |= _sized(config, size, cropped)
    if cropped:
        found["crop"] = _pair(config, "crop_size", crop)
    if data.get("do_pad") and found.get("fit") == "longest" and "pad_size" in data:
        where = f"{config.path}: its"
        mean = (
            numbers(f"{where} 'image_mean'", data.get("image_mean", 0), 3) if data.get("do_normalize", True) else (0.0,)
        )
        scale = number(f"{where} 'rescale_factor'", data.get("rescale_factor", 1 / 255))
        if scale == 0:
            raise InputError(f"{where} 'rescale_factor' is 0, of which no pad can be made that becomes zero")
        black = [m / scale for m in mean]  # what becomes zero
        found |= {"fit": "letterbox", "size": _pair(config, "pad_size", data["pad_size"]), "at": "corner", "pad": black}
    return found


def _sized(config: Config, size: Any, cropped: bool) -> dict[str, Any]:
    if not isinstance(size, dict):
        edge = _edge(config, "height", size)
        return {"fit": "shortest", "size": edge} if cropped else {"fit": "stretch", "size": [edge, edge]}
    if "shortest_edge" in size:
        edge = _edge(config, "shortest_edge", size["shortest_edge"])
        if (part := config.data.get("crop_pct")) is not None:  # ConvNext and PoolFormer
            part = share(f"{config.path}: its 'crop_pct'", part)
            if edge >= 384:
                return {"fit": "stretch", "size": [edge, edge]}
            return {"fit": "shortest", "size": int(edge / part), "crop": [edge, edge]}
        kind = config.data.get("image_processor_type", config.data.get("feature_extractor_type"))
        if str(kind).startswith("Levit"):
            edge = int(256 / 224 * edge)
        limit = size.get("longest_edge")
        return {"fit": "shortest", "size": edge, **({} if limit is None else {"longest": limit})}
    if "longest_edge" in size:
        return {"fit": "longest", "size": _edge(config, "longest_edge", size["longest_edge"])}
    if not size.keys() & {"height", "width"}:
        raise InputError(
            f"{config.path}: its 'size' says {', '.join(map(str, size)) or 'nothing'}, which is not known: give "
            "--preprocess fit and size"
        )
    return {"fit": "stretch", "size": [_edge(config, key, size[key]) if key in size else 0 for key in _SIDES]}


_SIDES = ("height", "width")


def _pair(config: Config, key: str, value: Any) -> list[int]:
    if isinstance(value, dict):
        value = [value.get(side, value.get("shortest_edge")) for side in _SIDES]
    sides = value if isinstance(value, list) and len(value) == 2 else [value, value]
    return [whole(f"{config.path}: the {side} of its {key!r}", one) for side, one in zip(_SIDES, sides, strict=True)]


def _edge(config: Config, name: str, value: Any) -> int:
    return whole(f"{config.path}: the {name} of its 'size'", value)


def _coloured(config: Config) -> dict[str, Any]:
    """How a processor of transformers makes numbers of pixels."""
    data, found = config.data, dict[str, Any]()
    if not data.get("do_rescale", True):
        found["scale"] = 1.0
    elif "rescale_factor" in data:
        found["scale"] = number(f"{config.path}: its 'rescale_factor'", data["rescale_factor"])
    if data.get("do_normalize", not data.get("do_flip_channel_order")):  # MobileViT, which writes none, has none
        for key, own in (("image_mean", "mean"), ("image_std", "std")):
            if data.get(key) is not None:
                found[own] = list(numbers(f"{config.path}: its {key!r}", data[key], 3))
    if data.get("rescale_offset") and data.get("do_rescale", True):
        found["mean"] = [m + 1 for m in found.get("mean", [0.0])]
    if data.get("include_top"):  # EfficientNet divides twice
        found["std"] = [s * s for s in found.get("std", [1.0])]
    if data.get("do_flip_channel_order"):
        found["channels"] = "bgr"
    return found


def _timm(config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    shape = data.get("input_size", [3, 224, 224])
    if not isinstance(shape, list) or len(shape) != 3:
        raise InputError(f"{config.path}: its 'input_size' is {shown(shape)}, and must be channels, height and width")
    sides = [_edge(config, side, one) for side, one in zip(_SIDES, shape[1:], strict=True)]
    part = share(f"{config.path}: its 'crop_pct'", data.get("crop_pct", 0.875))
    mode = data.get("crop_mode", "center")
    mean = numbers(f"{config.path}: its 'mean'", data.get("mean", (0.485, 0.456, 0.406)), 3)
    std = numbers(f"{config.path}: its 'std'", data.get("std", (0.229, 0.224, 0.225)), 3)
    larger = [floor(side / part) for side in sides]
    found: dict[str, Any] = {
        "interpolation": data.get("interpolation", "bilinear"),
        "mean": list(mean),
        "std": list(std),
    }
    if mode == "border":
        return {**found, "fit": "letterbox", "size": sides, "pad": [float(np.rint(255 * m)) for m in mean]}
    if mode == "squash" or sides[0] != sides[1]:
        return {**found, "fit": "stretch", "size": larger, "crop": sides}
    return {**found, "fit": "shortest", "size": larger[0], "crop": sides}


def _paddle(config: Config, operators: Any) -> dict[str, Any]:
    """PaddleOCR's pictures are read by OpenCV: blue first, and resized by its four neighbours."""
    found: dict[str, Any] = {"interpolation": "opencv", "channels": "bgr"}
    for name, own in _operators(config, operators):
        if name == "DecodeImage":
            found["channels"] = "rgb" if own.get("img_mode") == "RGB" else "bgr"
        elif name == "RecResizeImg":  # to a height, with what is left of the width grey
            shape = own.get("image_shape", [3, 48, 320])
            if not isinstance(shape, list) or len(shape) != 3:
                raise InputError(
                    f"{config.path}: its 'image_shape' is {shown(shape)}, and must be channels, height and width"
                )
            found |= {"fit": "letterbox", "at": "corner", "pad": 127.5, "mean": 0.5, "std": 0.5}
            found["size"] = _pair(config, "image_shape", shape[1:])
        elif name == "ResizeImage" and "resize_short" in own:
            found |= {"fit": "shortest", "size": whole(f"{config.path}: its 'resize_short'", own["resize_short"])}
        elif name == "ResizeImage":
            found |= {"fit": "stretch", "size": _pair(config, "size", own.get("size"))}
        elif name == "CropImage":
            found["crop"] = _pair(config, "size", own.get("size"))
        elif name == "DetResizeForTest":
            long = own.get("resize_long")
            edge = {} if long is None else {"size": whole(f"{config.path}: its 'resize_long'", long)}
            found |= {"fit": "longest" if edge else "keep", "stride": 32, **edge}
        elif name == "NormalizeImage":
            found["scale"] = number(f"{config.path}: its 'scale'", own.get("scale", 1 / 255))
            found |= {k: list(numbers(f"{config.path}: its {k!r}", own[k], 3)) for k in ("mean", "std") if k in own}
    return found


def _operators(config: Config, operators: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operators of ``PreProcess`` with their settings; one that has none is null, or its name alone."""
    if not isinstance(operators, list | None):
        raise InputError(f"{config.path}: its 'transform_ops' is {shown(operators)}, and must be a list of operators")
    for one in operators or []:
        for name, own in one.items() if isinstance(one, dict) else ():
            if not isinstance(own, dict | None):
                raise InputError(f"{config.path}: its {name!r} is {shown(own)}, and must be a table of settings")
            yield str(name), own or {}


def from_metadata(model: Model) -> dict[str, Any]:
    """What an exporter has written into a model; empty where that is nothing of images."""
    said = exported.said(model)
    if "stride" not in said or not said.keys() & {"imgsz", "names"}:
        return {}
    size = exported.literal(said.get("imgsz"))
    read = [exported.count(one) for one in (size if isinstance(size, list | tuple) else [size, size])]
    sides = [one for one in read if one is not None]
    if len(sides) != 2 or len(read) != 2:
        sides = [640, 640]  # what YOLOv5, which does not say it, is exported at
    if said.get("task") == "classify":  # torchvision's centre crop; Resize to two numbers stretches
        if sides[0] != sides[1]:
            return {"fit": "stretch", "size": sides, "interpolation": "bilinear"}
        return {"fit": "shortest", "size": sides[0], "crop": sides, "interpolation": "bilinear"}
    stride = exported.count(said["stride"]) or 32
    return {"size": sides, "fit": "letterbox", "pad": 114, "stride": stride, "interpolation": "opencv"}
