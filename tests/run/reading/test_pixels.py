"""Pictures as cameras, scanners and attackers make them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.errors import InputError
from graphprune.run.reading import pixels
from tests.run.reading.helpers import picture

pillow = pytest.importorskip("PIL.Image")


def test_pictures_stand_upright(tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png", 4, 6)
    exif = pillow.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    pillow.fromarray(np.rot90(shown).copy()).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(pixels.opened(tmp_path / "b.png", grey=False), shown)


def test_alpha_palettes_and_deep_greys(tmp_path: Path) -> None:
    shown = picture(tmp_path / "a.png", 4, 6)
    half = np.full((4, 6, 1), 128, np.uint8)
    pillow.fromarray(np.concatenate([shown, half], 2)).save(tmp_path / "rgba.png")
    assert np.array_equal(pixels.opened(tmp_path / "rgba.png", grey=False), shown)
    grey = np.array(pillow.fromarray(shown).convert("L"))
    assert np.array_equal(pixels.opened(tmp_path / "a.png", grey=True)[..., 0], grey)
    pillow.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(pixels.opened(tmp_path / "deep.png", grey=True)[..., 0], grey)
    assert np.array_equal(pixels.opened(tmp_path / "deep.png", grey=False), grey[..., None].repeat(3, 2))
    pillow.fromarray(shown).quantize(4).save(tmp_path / "few.gif")
    assert pixels.opened(tmp_path / "few.gif", grey=False).shape == (4, 6, 3)
    pillow.fromarray(np.ones((4, 6), np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(InputError, match=r"real\.tif: holds fractions"):
        pixels.opened(tmp_path / "real.tif", grey=True)


def bomb() -> bytes:
    """A PNG of 40,000 by 40,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def cut() -> bytes:
    """The first half of a JPEG."""
    noise, file = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), io.BytesIO()
    pillow.fromarray(noise).save(file, "JPEG")
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(), "more than .* pixels, too large to open"),
        (cut(), "not an image"),
        (b"", "not an image"),
        (bomb()[:40], ""),
    ],
)
def test_hostile_pictures_are_one_clear_line(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(InputError, match=rf"bad\.png: {words}") as told:
        pixels.opened(tmp_path / "bad.png", grey=False)
    assert "\n" not in str(told.value)


def test_crops_and_pads() -> None:
    square = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    assert pixels.cropped(square, (2, 3))[..., 0].tolist() == [[6, 7, 8], [11, 12, 13]]
    assert pixels.cropped(square, (8, 5))[:, 0, 0].tolist() == [0, 0, 0, 5, 10, 15, 20, 0]
    around = pixels.padded(square[:1, :2], (2, 5), (7,), corner=False)
    assert around.dtype == np.uint8 and around[..., 0].tolist() == [[7, 0, 1, 7, 7], [7] * 5]
    assert pixels.padded(square[:1, :2], (2, 3), (0.5,), corner=True)[..., 0].tolist() == [[0, 1, 0.5], [0.5] * 3]


SIDES = st.integers(1, 70)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(SIDES, SIDES), wanted=st.tuples(SIDES, SIDES), kind=st.sampled_from((*pixels.FILTERS, pixels.OPENCV))
)
def test_every_picture_comes_to_the_size_that_is_wanted(
    size: tuple[int, int], wanted: tuple[int, int], kind: str
) -> None:
    picture = np.full((*size, 3), 200, np.uint8)
    inner = pixels.fitted(size, "letterbox", wanted)
    assert all(new <= most for new, most in zip(inner, wanted, strict=True))
    assert any(new == most for new, most in zip(inner, wanted, strict=True))
    boxed = pixels.padded(pixels.resized(picture, inner, kind), wanted, (114,), corner=False)
    assert boxed.shape == (*wanted, 3) and (boxed == 200).all(2).sum() == inner[0] * inner[1]
    short = pixels.fitted(size, "shortest", wanted)
    assert all(new >= least for new, least in zip(short, wanted, strict=True)) and any(np.equal(short, wanted))
    assert (pixels.cropped(pixels.resized(picture, short, kind), wanted) == np.full((*wanted, 3), 200)).all()
