"""Images as files beside a model, its metadata and the user say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model import load
from graphprune.relation import Values
from graphprune.run import samples
from graphprune.run.reading.pictured import Pictured
from models.small import Net
from tests.run.reading.as_transformers import PROCESSORS, SIZES, cases, some
from tests.run.reading.helpers import net, picture, pictured

pytest.importorskip("PIL.Image")
FREE = ("n", 3, "h", "w")


def seen(folder: Path, model: ModelProto, **settings: Any) -> tuple[list[Values], str]:
    """What a model is given of a folder, and what is said of it."""
    settled = samples.settled({"from": folder, **settings}, load(model))
    again = samples.settled(settled.source, load(pictured(*FREE)) if not settled.data else load(model))
    assert again.source == settled.source  # what is settled stays
    return [feeds["x"] for feeds in samples.load(settled.source, load(model))], settled.told


def folder(path: Path, **config: Any) -> Path:
    for number, (height, width) in enumerate(SIZES):
        picture(path / f"{number}.png", height, width)
    if config:
        (path / "preprocessor_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("number", range(len(PROCESSORS)))
def test_as_transformers_does_it(number: int, tmp_path: Path) -> None:
    case = cases("images")[number]
    found, told = seen(folder(tmp_path, **case["config"]), pictured(*FREE))
    assert told.endswith("(from preprocessor_config.json)")
    for one, wanted in zip(found, case["made"], strict=True):
        assert list(one.shape) == wanted["shape"]
        assert np.abs(np.subtract(some(one), wanted["some"])).max() < 1e-6


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_letterbox_by_metadata_as_opencv_and_ultralytics_do_it(size: tuple[int, int], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    said = {"imgsz": str(list(size)), "stride": "32", "task": "detect", "author": "Ultralytics"}
    found, told = seen(folder(tmp_path), pictured(*FREE, **said))
    assert told == f"images: letterbox to {size[0]} x {size[1]}, RGB, / 255 (from the metadata of the model)"
    for number, one in enumerate(found):
        image = cv2.imread(str(tmp_path / f"{number}.png"))
        share = min(size[0] / image.shape[0], size[1] / image.shape[1])
        new = round(image.shape[0] * share), round(image.shape[1] * share)
        wide, high = (size[1] - new[1]) / 2, (size[0] - new[0]) / 2
        sides = round(high - 0.1), round(high + 0.1), round(wide - 0.1), round(wide + 0.1)
        image = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
        wanted = cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=(114, 114, 114))
        assert one.shape == (1, 3, *size)
        difference = np.abs(one[0] * 255 - wanted[..., ::-1].transpose(2, 0, 1).astype(float))
        assert difference.max() < 1.001  # OpenCV rounds in whole numbers


YOLOV5 = {"stride": "32", "names": "{0: 'a'}"}


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({}, "640 x 640"),
        ({"imgsz": "[64, 96]"}, "64 x 96"),
        ({"imgsz": "64"}, "64 x 64"),
        ({"imgsz": "[[1], 2]"}, "640 x 640"),
        ({"imgsz": "{[]: 1}"}, "640 x 640"),
        ({"imgsz": "1e999"}, "640 x 640"),
        ({"imgsz": "(" * 999}, "640 x 640"),
        ({"imgsz": "1" * 99999}, "640 x 640"),
        ({"stride": "9" * 5000}, "640 x 640"),
        ({"stride": "often"}, "640 x 640"),
    ],
)
def test_metadata_may_say_anything(said: dict[str, str], size: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    model = load(pictured(*FREE, **(YOLOV5 | said)))
    words = f"images: letterbox to {size}, RGB, / 255 (from the metadata of the model)"
    assert samples.settled(tmp_path, model).told == words


def test_metadata_of_a_classifier_is_a_centre_crop(tmp_path: Path) -> None:
    model = pictured(*FREE, imgsz="[32, 32]", stride="1", task="classify", names="{}")
    assert seen(folder(tmp_path), model)[1].startswith(
        "images: shortest edge to 32, centre crop of 32 x 32, RGB, / 255 ("
    )


def test_timm_s_config_beside_the_model(tmp_path: Path) -> None:
    own = {
        "input_size": [3, 28, 28],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": [0.1] * 3,
        "std": [0.5] * 3,
    }
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "any", "pretrained_cfg": own}))
    (tmp_path / "in").mkdir()
    folder(tmp_path / "in")
    onnx.save(pictured(*FREE), tmp_path / "m.onnx")
    settled = samples.settled(tmp_path / "in", load(tmp_path / "m.onnx"))
    words = "shortest edge to 32, centre crop of 28 x 28, RGB, / 255, mean 0.1, std 0.5 (from config.json)"
    assert settled.told == f"images: {words}"
    assert settled.data["interpolation"] == "bicubic" and settled.data["from"] == "in"


def test_paddle_s_inference_yml(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "r.yml").write_text(
        "PreProcess:\n  transform_ops:\n  - DecodeImage: {img_mode: BGR}\n  - MultiLabelEncode: null\n"
        "  - RecResizeImg: {image_shape: [3, 48, 320]}\n"
    )
    found, told = seen(folder(tmp_path), pictured("n", 3, 48, "w"), config=str(tmp_path / "r.yml"))
    assert told.startswith("images: letterbox to 48 x 320, BGR, / 255, mean 0.5, std 0.5")
    assert found[2].shape == (1, 3, 48, 320) and not found[2][..., 48:].any()
    (tmp_path / "r.yml").write_text(
        "PreProcess:\n  transform_ops:\n  - DetResizeForTest: {resize_long: 96}\n"
        "  - NormalizeImage: {scale: 1./255., mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}\n"
    )
    found, told = seen(tmp_path, pictured(*FREE), config=str(tmp_path / "r.yml"))
    assert [one.shape[2:] for one in found] == [(64, 96), (96, 32), (96, 96)]
    assert "longest edge to 96, sides multiples of 32, BGR" in told


def test_the_user_goes_first_and_settings_are_texts_or_numbers(tmp_path: Path) -> None:
    folder(
        tmp_path, size={"shortest_edge": 32}, crop_size=28, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_center_crop=1
    )
    as_said, _ = seen(tmp_path, pictured(*FREE))
    assert as_said[0].shape == (1, 3, 28, 28)
    texts = {"size": "20x24", "mean": "0.1,0.2,0.3", "std": "0.5", "scale": "1/100", "channels": "bgr"}
    found, told = seen(tmp_path, pictured(*FREE), **texts)
    numbers = {"size": [20, 24], "mean": [0.1, 0.2, 0.3], "std": 0.5, "scale": 0.01, "channels": "bgr"}
    assert all(np.array_equal(a, b) for a, b in zip(found, seen(tmp_path, pictured(*FREE), **numbers)[0], strict=True))
    words = "resized to 20 x 24, BGR, / 100, mean 0.1/0.2/0.3, std 0.5"
    assert told == f"images: {words} (from --preprocess and preprocessor_config.json)"
    plain, _ = seen(tmp_path, pictured(*FREE), size="20x24", mean=0, std=1, scale=1)
    assert np.allclose(found[0], (plain[0][:, ::-1] / 100 - np.reshape([0.1, 0.2, 0.3], (1, 3, 1, 1))) / 0.5, atol=1e-5)


def test_what_others_say_holds_where_it_still_can(tmp_path: Path) -> None:
    yolo = pictured(*FREE, imgsz="[64, 64]", stride="32", task="detect")
    folder(tmp_path)
    assert seen(tmp_path, yolo, size=96)[1].startswith("images: letterbox to 96 x 96, RGB")
    assert seen(tmp_path, yolo, fit="stretch")[1].startswith("images: resized to 64 x 64, RGB")
    assert seen(tmp_path, yolo, fit="longest", size=48)[1].startswith(
        "images: longest edge to 48, sides multiples of 32"
    )
    folder(tmp_path, size={"shortest_edge": 32}, crop_size=28, do_center_crop=True)
    assert seen(tmp_path, pictured(*FREE), size=20)[1].startswith("images: resized to 20 x 20, RGB")
    assert seen(tmp_path, pictured(*FREE), crop=20)[1].startswith("images: shortest edge to 32, centre crop of 20 x 20")


def test_the_model_s_size_goes_before_that_of_files(tmp_path: Path) -> None:
    folder(tmp_path, size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True)
    assert seen(tmp_path, pictured("n", 3, 56, 56))[1].startswith("images: shortest edge to 64, centre crop of 56 x 56")
    assert [one.shape for one in seen(tmp_path, pictured("n", 56, 56, 3))[0]] == [(1, 56, 56, 3)] * 3
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 90}}')
    assert seen(tmp_path, pictured("n", 3, 64, 64))[1].startswith("images: letterbox to 64 x 64")


@pytest.mark.parametrize(("wanted", "group"), [(1, 1), (3, 1), (3, 3)])
def test_the_first_layer_says_how_many_channels_there_are(wanted: int, group: int) -> None:
    build = Net()
    x = build.input("x", ["n", "channels", "h", "w"])
    model = load(build.model(build.conv(x, wanted, 6, group=group)))
    assert Pictured.of(Path("in"), model, {}).channels == wanted


def test_axes_that_say_nothing(tmp_path: Path) -> None:
    assert seen(folder(tmp_path), pictured("n", "num_channels", "h", "w"))[0][0].shape == (1, 3, 97, 150)
    assert seen(tmp_path, pictured("n", "a", "b", "c"), layout="nhwc")[0][0].shape == (1, 97, 150, 3)
    with pytest.raises(InputError, match="does not take them"):
        seen(tmp_path, pictured("n", "a", "b", "c"))
    masked = net({"x": (1, FREE), "pixel_mask": (7, ("n", "h", "w")), "orig_target_sizes": (7, ("n", 2))})
    (feeds, *_) = samples.load(tmp_path, load(masked))
    assert feeds["pixel_mask"].dtype == np.int64 and feeds["pixel_mask"].shape == (1, 97, 150)
    assert feeds["orig_target_sizes"].tolist() == [[150, 97]]
    grey, told = seen(tmp_path, pictured("n", 1, 8, 8), mean=[0.4, 0.5, 0.6])
    assert grey[0].shape == (1, 1, 8, 8) and "grey, / 255, mean 0.5" in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fitt": "stretch"}, "--preprocess fitt: is no setting for images; did you mean fit?"),
        ({"rate": 16000}, "--preprocess rate: is no setting for images"),
        ({"fit": "squeeze"}, "--preprocess fit is 'squeeze', and must be one of stretch, letterbox"),
        ({"fit": "letterbox"}, "letterbox wants a size: give --preprocess size"),
        ({"size": "0x4"}, "--preprocess size is '0x4', and must be a number of pixels"),
        ({"scale": "1/0"}, "--preprocess scale is '1/0', and must be a number"),
        ({"mean": "1,2"}, "--preprocess mean is '1,2', and must be a number, or 3"),
        ({"std": 0}, "--preprocess std is 0"),
        ({"size": 1000000}, "--preprocess size comes to 1000000 x 1000000, more than"),
        ({"fit": "shortest", "size": 100000}, "would become 100000 high and"),
        ({"config": "nowhere.json"}, "nowhere.json: no such file"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        seen(folder(tmp_path), pictured(*FREE), **settings)
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": 20}, "--preprocess size=20: input 'x' takes images 8 high and 8 wide"),
        ({"fit": "longest", "size": 8}, "fit="),
    ],
)
def test_what_the_model_does_not_take(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        seen(folder(tmp_path), pictured("n", 3, 8, 8), **given)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": {"max_pixels": 3}}, "its 'size' says max_pixels, which is not known"),
        ({"size": 4, "do_pan_and_scan": True}, "its 'do_pan_and_scan' makes more of an image than is known"),
        ({"size": 4, "resample": 9}, "its 'resample' is 9"),
        ({"crop_size": {"height": 4}}, "the width of its 'crop_size' is None"),
    ],
)
def test_files_that_ask_for_too_much(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"preprocessor_config\.json: .*{words}"):
        seen(folder(tmp_path, **config), pictured(*FREE))


def test_a_crop_that_is_no_square_is_filled(tmp_path: Path) -> None:
    """A file speaks of squares, and the model takes 320 by 640: both sides are covered, whatever a picture is."""
    pillow = importlib.import_module("PIL.Image")
    for number, size in enumerate(((100, 100), (60, 200), (200, 60))):
        pillow.fromarray(np.full((*size, 3), 255, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 256}, "crop_size": 224}')
    found, told = seen(tmp_path, pictured("n", 3, 320, 640))
    assert told.startswith("images: as small as covers 366 x 732, centre crop of 320 x 640")
    assert all(one.shape == (1, 3, 320, 640) and (one == 1).all() for one in found)
