"""Settings that someone else wrote, or that a slip of the user did: told as bad input, whatever they are."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphprune.errors import InputError
from graphprune.model import Model
from graphprune.run.reading import audio, images, looks
from graphprune.run.reading.configs import Config
from graphprune.run.reading.pictured import Pictured
from tests.run.reading.helpers import pictured

VALUES: list[Any] = [
    None, True, 0, -1, 1, 2.0, 0.0, 1e-320, 1e308, -1e308, 10**400, 10**9, float("nan"), "", "x", "1/0", "9" * 5000,
    "1e999", [], [0], [0, 1], [1, 2, 3], [1e308] * 3, [[1]], [None, None], ["x", 1], {}, {"height": 0},
    {"height": 10**400, "width": 1}, {"shortest_edge": 10**400}, {"shortest_edge": []}, {"longest_edge": 1.5},
    {"shortest_edge": 8, "longest_edge": "x"}, {1: 2}, {"x": {"y": [1]}},
]  # fmt: skip
PROCESSOR = {
    "size": {"shortest_edge": 8}, "crop_size": 8, "do_center_crop": True, "image_mean": 0.5, "image_std": 0.5,
    "resample": 2, "rescale_factor": 0.1,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "transformers": (PROCESSOR, (*PROCESSOR, "crop_pct", "do_pad", "do_resize", "include_top", "rescale_offset")),
    "pads": (
        {**PROCESSOR, "crop_size": None, "size": {"longest_edge": 8}, "do_pad": True, "pad_size": 8},
        ("size", "pad_size", "image_mean", "rescale_factor", "do_normalize"),
    ),
    "timm": ({}, ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")),
    "border": ({"crop_mode": "border"}, ("input_size", "crop_pct", "mean", "std")),
    "paddle": ({}, ("DecodeImage", "RecResizeImg", "ResizeImage", "CropImage", "DetResizeForTest", "NormalizeImage")),
    "PreProcess": ({}, ("transform_ops", "other")),
}
OWN = {
    "RecResizeImg": ("image_shape",), "ResizeImage": ("size", "resize_short"), "CropImage": ("size",),
    "DetResizeForTest": ("resize_long",), "NormalizeImage": ("scale", "mean", "std"), "DecodeImage": ("img_mode",),
}  # fmt: skip
FORMS = [Pictured.of(Path("in"), Model(pictured("n", 3, *size)), {}) for size in (("h", "w"), (4, 6))]
PICTURE = np.zeros((3, 5, 3), np.uint8)


def tried(given: dict[str, Any], said: dict[str, Any]) -> None:
    """Read a picture so; InputErrors are what it should be, and one line."""
    for form in FORMS:
        try:
            look = images.settle(given, said, form, "from c.json")
            assert look.told(form) and look.sized(PICTURE, Path("a.png")).size and look.plain(form)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 400


def files(kind: str) -> list[dict[str, Any]]:
    base, keys = KINDS[kind]
    if kind == "paddle":
        parts = [{name: value} for name in keys for value in VALUES]
        parts += [{name: {key: value}} for name, own in OWN.items() for key in own for value in VALUES]
        return [{"PreProcess": {"transform_ops": [one]}} for one in parts]
    found = [{**base, key: value} for key in keys for value in VALUES]
    return [{"pretrained_cfg": one} if kind in ("timm", "border") else one for one in found]


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_others(kind: str) -> None:
    for data in files(kind):
        with suppress(InputError):
            tried({}, looks.from_config(Config(Path("c.json"), {"PreProcess": data} if kind == "PreProcess" else data)))


def test_what_the_user_says() -> None:
    for key in images.KEYS:
        for value in VALUES:
            tried({key: value}, {})
            tried({key: value, "fit": "shortest"}, {})
            tried({key: value}, {"fit": "letterbox", "size": [8, 8], "stride": 4})


def test_extractors_of_sounds() -> None:
    model = Model(pictured("n", "t"))
    for kind in ("Whisper", "AST", "Wav2Vec2", ""):
        keys = ("sampling_rate", "chunk_length", "feature_size", "num_mel_bins", "max_length", "mean", "std", "n_fft")
        for key in keys:
            for value in VALUES:
                data = {"feature_extractor_type": kind, "sampling_rate": 16000, key: value}
                with suppress(InputError):
                    said = audio.from_config(Config(Path("c.json"), data))
                    audio.settle({}, said, model, Path("in"), {}).told()
    for key in audio.KEYS:
        for value in (*VALUES, "1e308s", "-1s", "xs"):
            with suppress(InputError):
                audio.settle({"rate": 10**9, key: value}, {}, model, Path("in"), {}).told()
