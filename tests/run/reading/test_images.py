"""Folders of images as inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import graphprune
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.run import samples
from models.small import Net
from tests.helpers import command

pillow = pytest.importorskip("PIL.Image")


def net(*shape: int | str, kind: int = 1) -> ModelProto:
    build = Net()
    x = build.input("x", shape, kind)
    return build.model(build.op("Cast", x, to=1))


def save(folder: Path, name: str, size: tuple[int, int] = (6, 4)) -> np.ndarray:
    pixels = np.random.default_rng(len(name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    pillow.fromarray(pixels).save(folder / name)
    return pixels


def test_images_are_read_by_name_and_scaled(tmp_path: Path) -> None:
    second, first = save(tmp_path, "bb.png"), save(tmp_path, "a.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    found = [f["x"] for f in samples.load(tmp_path, load(net("batch", 3, 4, 6)))]
    for value, pixels in zip(found, (first, second), strict=True):
        assert value.shape == (1, 3, 4, 6) and value.dtype == np.float32
        assert np.allclose(value[0], pixels.transpose(2, 0, 1) / 255)


def test_sizes_are_the_model_s(tmp_path: Path) -> None:
    save(tmp_path, "a.png", (10, 20))
    assert next(iter(samples.load(tmp_path, load(net("n", 3, 8, 12)))))["x"].shape == (1, 3, 8, 12)
    assert next(iter(samples.load(tmp_path, load(net("n", 3, "h", "w")))))["x"].shape == (1, 3, 20, 10)
    assert next(iter(samples.load(tmp_path, load(net("n", 8, 12, 1)))))["x"].shape == (1, 8, 12, 1)


def test_normalised_as_the_folder_says(tmp_path: Path) -> None:
    pixels = save(tmp_path, "a.png")
    config = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "size": {"height": 4, "width": 6}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    (found,) = samples.load(tmp_path, load(net("n", 3, "h", "w")))
    wanted = (pixels / 255 - np.array(config["image_mean"])) / np.array(config["image_std"])
    assert np.allclose(found["x"][0], wanted.transpose(2, 0, 1), atol=1e-6)


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    pixels = save(tmp_path, "a.png")
    (found,) = samples.load(tmp_path, load(net("n", 4, 6, 3, kind=2)))
    assert found["x"].dtype == np.uint8 and np.array_equal(found["x"][0], pixels)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    with pytest.raises(InputError, match="does not take them: it wants x batchx8"):
        list(samples.load(tmp_path, load(net("batch", 8))))
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"b\.png: not an image"):
        list(samples.load(tmp_path, load(net("n", 3, 4, 6))))


def test_what_nobody_named_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in", "a.png")
    onnx.save(net("n", 3, "h", "w"), tmp_path / "m.onnx")
    model, own = load(tmp_path / "m.onnx"), tmp_path / "config.json"
    own.write_text('// of another program\n{"size": "big"}')
    told = samples.settled({"from": tmp_path / "in", "size": 4}, model).told
    assert told == "images: resized to 4 x 4, RGB, / 255 (from --preprocess; config.json cannot be read)"
    with pytest.raises(InputError, match=r"config\.json: not a JSON file"):
        samples.settled({"from": tmp_path / "in", "config": str(own)}, model)
    own.write_text('{"size": "big"}')
    assert samples.settled(tmp_path / "in", model).told.endswith("(nothing says otherwise; --preprocess does)")


def test_what_is_read_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in/cats").mkdir(parents=True)
    save(Path("in/cats"), "a.png")
    onnx.save(net("n", 3, "h", "w"), "m.onnx")
    for name in ("p.json", "preprocessor_config.json"):
        Path(name).write_text('{"size": {"height": 4, "width": 6}}')
    for how in (["--preprocess", "p.json", "--json", "p.json"], ["--json", "preprocessor_config.json"]):
        status, _, err = command(capsys, "validate", "m.onnx", "--inputs", "in", *how)
        assert status == 2 and f"{how[-1]}: is a file of settings itself" in err and "size" in Path(how[-1]).read_text()
    status, _, err = command(capsys, "validate", "m.onnx", "--inputs", "in", "--json", "in/cats/a.png")
    assert status == 2 and "in/cats/a.png: is no place for JSON" in err


def test_a_model_is_fitted_on_images(tmp_path: Path) -> None:
    for k in range(8):
        save(tmp_path, f"{'x' * k}a.png", (8, 8))
    build = Net()
    y = build.op("Relu", build.conv(build.input("x", ["batch", 3, 8, 8]), 3, 16))
    result = graphprune.prune(build.model(build.conv(y, 16, 4)), ratio=0.5, calibration=tmp_path)
    assert any(f.kept for f in result.fits)


def halved() -> ModelProto:
    """A net of free height and width that must both be even: it goes to half the size and back."""
    build = Net()
    x = build.conv(build.input("x", ["batch", 3, "height", "width"]), 3, 16)
    down = build.op("Relu", build.conv(x, 16, 16, strides=[2, 2]))
    up = build.op("Resize", down, "", build.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    return build.model(build.conv(build.op("Add", x, up), 16, 4))


def test_the_user_s_size_is_what_images_are_brought_to(tmp_path: Path) -> None:
    save(tmp_path, "a.png", (10, 20))
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 4, "width": 6}}')

    def shape(model: ModelProto, *given: int) -> tuple[int, ...]:
        shapes = {"x": given} if given else None
        return next(samples.load(tmp_path, load(model), input_shapes=shapes))["x"].shape

    assert shape(net("n", 3, "h", "w"), 1, 3, 8, 12) == (1, 3, 8, 12)
    assert shape(net("n", "h", "w", 3), 1, 8, 12, 3) == (1, 8, 12, 3)
    assert shape(net("n", "c", "h", "w"), 1, 1, 8, 12) == (1, 1, 8, 12)
    assert shape(net("n", 3, 16, "w")) == (1, 3, 16, 6)  # what the model fixes goes before what the folder says
    (tmp_path / "preprocessor_config.json").write_text('{"size": 5}')
    assert shape(net("n", 3, "h", "w")) == (1, 3, 5, 5)


def test_a_fixed_batch_is_filled_with_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path, name)
    assert [f["x"].shape for f in samples.load(tmp_path, load(net(2, 3, "h", "w")))] == [(2, 3, 4, 6)]
    told = samples.settled(tmp_path, load(net(2, 3, "h", "w"))).told
    assert told.endswith("; 1 of 3 left out, since 2 make a batch")
    with pytest.raises(InputError, match="holds 3 images, fewer than the batch of 16 that small takes at a time"):
        samples.settled(tmp_path, load(net(16, 3, "h", "w")))
    save(tmp_path, "b.png", (10, 20))
    with pytest.raises(InputError, match=r"b\.png: is 20 high and 10 wide.* another size; give the size"):
        list(samples.load(tmp_path, load(net(2, 3, "h", "w"))))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": {"height": "big"}}, "the height of its 'size' is 'big'"),
        ({"size": {"width": 0}}, "the width of its 'size' is 0"),
        ({"image_mean": [0.5, 0.5]}, "its 'image_mean' is .* must be a number, or 3"),
        ({"image_std": "one"}, "its 'image_std' is 'one'"),
        ({"rescale_factor": [1, 2]}, "its 'rescale_factor'"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=rf"preprocessor_config\.json: .*{words}"):
        list(samples.load(tmp_path, load(net("n", 3, "h", "w"))))


COMMANDS = {
    "prune": ("prune", "m.onnx", "--ratio", "0.5", "--align", "1", "--calibration", "in"),
    "blocks": ("prune", "m.onnx", "--blocks", "1", "--calibration", "in"),
    "sparsify": ("sparsify", "m.onnx", "--also", "*", "--calibration", "in"),
    "validate": ("validate", "m.onnx", "--inputs", "in"),
    "bench": ("bench", "m.onnx", "--rounds", "2", "--inputs", "in"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_images_that_a_model_does_not_run_at(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for number in range(4):
        save(Path("in"), f"{number}.png", (8, 7 + 2 * number))
    onnx.save(halved(), "m.onnx")
    status, _, err = command(capsys, *COMMANDS[case], "-q")
    assert status == 2 and err.count("\n") == 1
    assert "in/0.png: is 7 high and 8 wide, and m.onnx does not run at it; give the size" in err
    assert "--input-shape x=1x3xHEIGHTxWIDTH" in err
    if case != "blocks":  # there is none to take out
        assert command(capsys, *COMMANDS[case], "--input-shape", "x=1x3x8x10", "-q") == (0, "", "")
