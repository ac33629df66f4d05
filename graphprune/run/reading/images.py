"""Images as the input of a model: what is done with them is settled once, then they are read one after the other.

Settings, each said by the user, else by a file, else by the model's metadata, else what stands first:

- ``fit``: ``stretch``, ``letterbox``, ``shortest`` or ``longest`` (edge to ``size``), ``keep``;
- ``size``: what it brings them to; by default the model's own. ``longest``: at most this, for ``shortest``;
- ``crop``: the middle of that;
- ``stride``: sides become multiples of it, where the model does not say how long they are;
- ``pad`` (114) and ``at`` (``centre``, ``corner``): for ``letterbox``;
- ``interpolation``: ``bicubic``, one of Pillow's others, or ``opencv``;
- ``channels``: ``rgb`` or ``bgr``; ``layout``: ``nchw`` or ``nhwc``, by default the model's;
- ``scale`` (1/255), ``mean`` (0), ``std`` (1): of inputs that are floats, ``(pixel * scale - mean) / std``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.model import Model, limits
from graphprune.relation import Shape, Values
from graphprune.run.reading import asked, pixels
from graphprune.run.reading.asked import Settings, Size
from graphprune.run.reading.pictured import LAYOUTS, Pictured
from graphprune.run.runtime import run, session

KEYS = (
    "fit", "size", "longest", "crop", "pad", "at", "stride", "interpolation", "channels", "layout", "scale", "mean",
    "std",
)  # fmt: skip
_MOST = 1 << 28
"""Pixels of the largest picture that is made."""
_BYTES = 48
"""Bytes that a pixel takes: three doubles, and what is made of them."""
_BOXES = ("stretch", "letterbox")
_SIZED = ("letterbox", "shortest", "longest")
"""Fits for which both sides are said."""
_FITS = (*_BOXES, "shortest", "longest", "keep")


@dataclass(frozen=True)
class Look:
    """What is done with an image; see the module.

    Attributes:
        fit: how it is brought to a size.
        size: that; 0 leaves a side as it is.
        crop: the middle that stays, None where all does.
        longest: of ``fit`` ``shortest``.
        stride: sides of what is resized become multiples of it.
        pad, corner: of a letterbox.
        interpolation: of the resizing.
        flipped: whether blue comes first.
        scale, mean, std: of the numbers.
    """

    fit: str
    size: Size
    crop: Size | None
    longest: int | None
    stride: int
    pad: tuple[float, ...]
    corner: bool
    interpolation: str
    flipped: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def whole(self) -> bool:
        """Whether all images come to one size."""
        return self.crop is not None or (self.fit in _BOXES and all(self.size))

    def sized(self, picture: Values, path: Path) -> Values:
        """A picture of the size that it is given to the model at.

        Raises:
            InputError: that is too large to be held.
        """
        wanted = pixels.fitted(picture.shape[:2], self.fit, self.size, self.longest)
        if self.stride > 1:
            height, width = (max(1, round(side / self.stride)) * self.stride for side in wanted)
            wanted = height, width
        if wanted[0] * wanted[1] > _MOST:
            raise InputError(f"{path}: would become {wanted[0]} high and {wanted[1]} wide; take it out, or give a crop")
        if (told := limits.too_many(_BYTES * wanted[0] * wanted[1])) is not None:
            raise InputError(f"{path}: would become {wanted[0]} high and {wanted[1]} wide, and take {told}")
        found = pixels.resized(picture, wanted, self.interpolation)
        if self.fit == "letterbox":
            found = pixels.padded(found, self.size, self.pad, self.corner)
        return found if self.crop is None else pixels.cropped(found, self.crop)

    def told(self, form: Pictured) -> str:
        """In words: ``letterbox to 640 x 640, RGB, / 255``."""
        height, width = self.size
        to = f"{height or 'their height'} x {width or 'their width'}"
        first = {
            "stretch": f"resized to {to}" if any(self.size) else "their own size",
            "letterbox": f"letterbox to {to}",
            "shortest": f"shortest edge to {height}" if height == width else f"as small as covers {to}",
            "longest": f"longest edge to {height}" if height == width else f"as large as goes into {to}",
            "keep": "their own size",
        }[self.fit]
        if self.stride > 1:
            first = f"{first}, sides multiples of {self.stride}"
        parts = [first, *([] if self.crop is None else [f"centre crop of {self.crop[0]} x {self.crop[1]}"])]
        parts.append("grey" if form.channels == 1 else "BGR" if self.flipped else "RGB")
        if np.dtype(form.dtype).kind != "f":
            return ", ".join([*parts, f"as {np.dtype(form.dtype)}"])
        inverse = round(1 / self.scale, 6) if self.scale else 0
        if self.scale != 1:
            parts.append(f"/ {inverse:g}" if inverse >= 1 else f"* {self.scale:g}")
        if self.mean != (0.0,):
            parts.append(f"mean {_listed(self.mean)}")
        if self.std != (1.0,):
            parts.append(f"std {_listed(self.std)}")
        return ", ".join(parts)

    def plain(self, form: Pictured) -> dict[str, Any]:
        """As settings, all of them said."""
        found = {
            "fit": self.fit, "size": list(self.size), "interpolation": self.interpolation,
            "channels": "bgr" if self.flipped else "rgb", "layout": LAYOUTS[form.last],
            "scale": self.scale, "mean": list(self.mean), "std": list(self.std),
        }  # fmt: skip
        if self.fit == "letterbox":
            found |= {"pad": list(self.pad), "at": "corner" if self.corner else "centre"}
        if self.crop is not None:
            found["crop"] = list(self.crop)
        if self.longest is not None:
            found["longest"] = self.longest
        if self.stride > 1:
            found["stride"] = self.stride
        return found


def _listed(numbers: Sequence[float]) -> str:
    return "/".join(f"{n:.4g}" for n in numbers)


def settle(given: Settings, said: Settings, form: Pictured, by: str = "") -> Look:
    """What is done with images.

    Args:
        given: settings of the user.
        said: settings of others.
        form: what the model wants of an image.
        by: who these others are, for messages.

    Raises:
        InputError: a setting is none, or the model cannot take what comes of it.
    """

    def asks(key: str) -> str:
        return f"--preprocess {key}" if key in given else f"{key} {by}"

    both = {**_still(said, given), **given}
    size = asked.size(asks("size"), both["size"], partly=True) if both.get("size") is not None else None
    crop = asked.size(asks("crop"), both["crop"]) if "crop" in both else None
    fit = asked.word(asks("fit"), both.get("fit", "shortest" if crop is not None and size else "stretch"), _FITS)
    grey = form.channels == 1
    pad, mean, std = (
        _channels(asked.numbers(asks(key), both.get(key, default), 3), form.channels)
        for key, default in (("pad", 114.0), ("mean", 0.0), ("std", 1.0))
    )
    look = Look(
        fit=fit,
        size=size or (0, 0),
        crop=crop,
        longest=asked.whole(asks("longest"), both["longest"]) if "longest" in both else None,
        stride=asked.whole(asks("stride"), both.get("stride", 1)),
        pad=pad,
        corner=asked.word(asks("at"), both.get("at", "centre"), ("centre", "corner")) == "corner",
        interpolation=asked.word(
            asks("interpolation"), both.get("interpolation", "bicubic"), (*pixels.FILTERS, pixels.OPENCV)
        ),
        flipped=asked.word(asks("channels"), both.get("channels", "rgb"), ("rgb", "bgr")) == "bgr" and not grey,
        scale=asked.number(asks("scale"), both.get("scale", 1 / 255)),
        mean=mean,
        std=std,
    )
    if not all(look.std):
        raise InputError(f"{asks('std')} is 0, by which nothing can be divided")
    taken = _taken(look, form, given)
    for key, (height, width) in (
        ("size", taken.size if taken.fit in _BOXES else (0, 0)),
        ("crop", taken.crop or (0, 0)),
    ):
        if height * width > _MOST:
            raise InputError(f"{asks(key)} comes to {height} x {width}, more than {_MOST:,} pixels")
    return taken


def _still(said: Settings, given: Settings) -> Settings:
    """What others say that holds beside what the user says: crops and edges belong to the resizing that they are of."""
    if not given.keys() & {"fit", "size"}:
        return said
    fit = said.get("fit", _BOXES[0])
    boxes = fit in _BOXES and given.get("fit", fit) in _BOXES
    gone = ("crop", "longest") if boxes else ("crop", "longest", "fit", "size")
    return {k: v for k, v in said.items() if k not in gone}


def _channels(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One number where all are the same; of grey the mean of three."""
    if channels == 1 or len({*numbers}) == 1:
        return (sum(numbers) / len(numbers) if len({*numbers}) > 1 else numbers[0],)
    return numbers


def _taken(look: Look, form: Pictured, given: Settings) -> Look:
    """The same, at the size that the model takes: it says more than others do, but not than the user does."""
    wanted = form.size
    if any(wanted) and look.crop is not None:
        crop = (wanted[0] or look.crop[0], wanted[1] or look.crop[1])
        if crop != look.crop:
            _refuse("crop", given, look.crop, form)
            shares = [new / old for new, old in zip(crop, look.crop, strict=True)]
            height, width = (ceil(side * share - 1e-9) for side, share in zip(look.size, shares, strict=True))
            longest = None if look.longest is None else ceil(look.longest * max(shares))
            look = replace(look, crop=crop, size=(height, width), longest=longest)
    elif any(wanted) and look.fit in _BOXES:
        size = (wanted[0] or look.size[0], wanted[1] or look.size[1])
        if size != look.size:
            _refuse("size", given, look.size, form)
            look = replace(look, size=size)
    elif all(wanted):
        _refuse("fit", given, (0, 0), form)
        look = replace(look, fit="letterbox" if look.fit == "longest" else "stretch", size=wanted, longest=None)
    if look.fit in _SIZED and not all(look.size):
        raise InputError(f"images: {look.fit} wants a size: give --preprocess size, or {form.remedy}")
    one_size = look.fit in _BOXES and all(look.size)
    if one_size and not any(wanted):
        height, width = (-(-side // look.stride) * look.stride for side in look.size)
        look = replace(look, size=(height, width))
    return replace(look, stride=1) if one_size or any(wanted) else look


def _refuse(key: str, given: Settings, size: Size, form: Pictured) -> None:
    """Raise InputError where the user says a size that the model does not take."""
    if key in given and (any(size) or given[key] in ("shortest", "longest")):
        raise InputError(
            f"--preprocess {key}={given[key]}: input {form.name!r} takes images {form.size[0] or 'of any height'} high "
            f"and {form.size[1] or 'of any width'} wide"
        )


def read(files: Sequence[Path], look: Look, form: Pictured) -> Iterator[dict[str, Values]]:
    """Every image, as many at a time as the model fixes, else one.

    Raises:
        InputError: a file is none, or of another size than others of its batch.
        BackendError: Pillow is not installed.
    """
    batch: list[Values] = []
    for path in files:
        picture = pixels.opened(path, form.channels == 1)
        batch.append(_numbers(look.sized(picture, path), look, form))
        if batch[-1].shape != batch[0].shape:
            raise InputError(f"{path}: {_shown(picture)}, and the image before it has another size; {form.remedy}")
        if len(batch) == form.batch:
            yield form.feeds(np.concatenate(batch))
            batch = []


def check_sizes(files: Sequence[Path], look: Look, form: Pictured, model: Model, most: int | None) -> None:
    """Run the model once at each size that images have, of so many, where they are not brought to one.

    Raises:
        InputError: it does not run there; names the image, its size, and how to give another.
    """
    if look.whole:
        return
    tried: set[Shape] = set()
    with session(model.runnable) as active:
        for path in islice(files, most):
            picture = pixels.opened(path, form.channels == 1)
            one = _numbers(look.sized(picture, path), look, form)
            if one.shape in tried:
                continue
            tried.add(one.shape)
            try:
                run(active, form.feeds(one.repeat(form.batch, 0)))
            except InputError as error:
                raise InputError(
                    f"{path}: {_shown(picture)}, and {model.name} does not run at it; {form.remedy} ({error})"
                ) from error


def _shown(picture: Values) -> str:
    return f"is {picture.shape[0]} high and {picture.shape[1]} wide"


def _numbers(picture: Values, look: Look, form: Pictured) -> Values:
    """``[height, width, channels]`` of pixels as the model wants them."""
    value = picture[..., ::-1] if look.flipped else picture
    if np.dtype(form.dtype).kind == "f":
        value = (value * look.scale - np.array(look.mean)) / np.array(look.std)
    elif value.dtype.kind == "f":
        value = np.rint(value)
    return (value if form.last else np.moveaxis(value, -1, 0))[None].astype(form.dtype)


def settled(place: Path, given: Settings, model: Model, input_shapes: Mapping[str, Shape]) -> tuple[Look, Pictured]:
    """What is done with images whose settings are said in full."""
    form = Pictured.of(place, model, input_shapes, given.get("layout"))
    return settle(given, {}, form), form
