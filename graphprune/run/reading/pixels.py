"""From a file to the pixels that a model sees: opened, turned upright, resized, cropped, padded.

Sizes are height and width, pixels ``[height, width, channels]`` of bytes until a pad that is none makes them floats.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import BackendError, InputError
from graphprune.relation import Values
from graphprune.run.reading.asked import Size

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's, which look at all that falls into a pixel."""
OPENCV = "opencv"
"""OpenCV's ``INTER_LINEAR``: of the four neighbours alone, however much smaller the picture becomes."""


def library() -> Any:
    """Pillow.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise BackendError(
            "Pillow is not installed, and reads images: pip install 'graphprune[images]', or give arrays"
        ) from error


def opened(path: Path, grey: bool) -> Values:
    """The picture of a file, upright as its EXIF data says, transparency left out, 16 bits cut to 8.

    Raises:
        InputError: it is none, or one that is too large.
        BackendError: Pillow is not installed.
    """
    pillow, turning = library(), importlib.import_module("PIL.ImageOps")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about a picture but readable
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        try:
            with pillow.open(path) as picture:
                if picture.mode == "F":
                    raise InputError(f"{path}: holds fractions, not colours; give such pictures as .npy")
                upright = turning.exif_transpose(picture)
                if upright.mode.startswith("I"):  # 16 bits, which a conversion would clip
                    upright = pillow.fromarray(
                        (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    )
                return np.array(upright.convert("L" if grey else "RGB")).reshape(upright.size[1], upright.size[0], -1)
        except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
            raise InputError(
                f"{path}: more than {pillow.MAX_IMAGE_PIXELS:,} pixels, too large to open; make it smaller"
            ) from error
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever a decoder makes of a broken file
            raise InputError(
                f"{path}: not an image ({' '.join(str(error).split()) or type(error).__name__})"
            ) from error


def fitted(size: Size, fit: str, wanted: Size, longest: int | None = None) -> Size:
    """The size that a picture is resized to.

    Args:
        size: of the picture.
        fit: ``stretch`` to the size wanted (0 leaves a side as it is); ``letterbox``, as large as goes into it;
            ``shortest`` or ``longest`` edge to it, and where its sides differ, as small as covers it, or as large as
            goes into it; ``keep``.
        wanted: a size.
        longest: what the longest edge may be at most, for ``shortest``.
    """
    height, width = size
    if fit == "keep":
        return size
    if fit == "stretch":
        return wanted[0] or height, wanted[1] or width
    if fit == "letterbox":
        share = min(wanted[0] / height, wanted[1] / width)
        return max(1, round(height * share)), max(1, round(width * share))
    shares = wanted[0] / height, wanted[1] / width
    lead = shares.index(max(shares) if fit == "shortest" else min(shares))
    own, other, edge = size[lead], size[1 - lead], wanted[lead]
    # cut, not rounded, as torchvision and transformers do it
    new = max(1, round(other * edge / own)) if fit == "longest" else max(1, int(edge * other / own))
    if longest is not None and fit == "shortest" and new > longest:
        edge, new = max(1, int(longest * edge / new)), longest
    return (edge, new) if lead == 0 else (new, edge)


def resized(pixels: Values, size: Size, interpolation: str) -> Values:
    """Pixels of another size."""
    if pixels.shape[:2] == size:
        return pixels
    if interpolation == OPENCV:
        return _linear(pixels, size)
    pillow = importlib.import_module("PIL.Image")
    picture = pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    made = picture.resize(size[::-1], getattr(pillow.Resampling, interpolation.upper()))
    return np.asarray(made).reshape(*size, pixels.shape[2])


def _linear(pixels: Values, size: Size) -> Values:
    found: Values = pixels.astype(np.float32)
    for axis, new in enumerate(size):
        old = pixels.shape[axis]
        place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        before = np.floor(place).astype(np.int64)
        after = np.minimum(before + 1, old - 1)
        share = (place - before).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        found = found.take(before, axis) * (1 - share) + found.take(after, axis) * share
    return np.rint(found).astype(np.uint8)


def cropped(pixels: Values, size: Size) -> Values:
    """The middle of a picture; black around it where it is smaller (``center_crop`` of transformers)."""
    short = [max(0, new - old) for new, old in zip(size, pixels.shape[:2], strict=True)]
    if any(short):
        pixels = np.pad(pixels, [(-(-s // 2), s // 2) for s in short] + [(0, 0)])
    top, left = ((old - new) // 2 for old, new in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]


def padded(pixels: Values, size: Size, pad: Sequence[float], corner: bool) -> Values:
    """A picture in the middle of a larger one, or in its upper left corner.

    Args:
        pixels: the picture.
        size: of the larger one.
        pad: what is around it: a number, or one for each channel.
        corner: whether it lies in the corner.
    """
    kind: Any = np.uint8 if all(float(one).is_integer() and 0 <= one <= 255 for one in pad) else np.float64
    found = np.empty((*size, pixels.shape[2]), kind)
    found[:] = pad
    # half a pixel goes to the lower right, as in Ultralytics' LetterBox
    top, left = (0 if corner else (new - old) // 2 for new, old in zip(size, pixels.shape[:2], strict=True))
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found
