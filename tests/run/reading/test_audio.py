"""Folders of sounds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model import load
from graphprune.relation import Values
from graphprune.run import samples
from tests.run.reading.as_transformers import cases, some
from tests.run.reading.helpers import INT64, net, tone

soundfile = pytest.importorskip("soundfile")


def read(folder: Path, model: ModelProto, **settings: Any) -> tuple[list[dict[str, Values]], str]:
    settled = samples.settled({"from": folder, **settings}, load(model))
    assert samples.settled(settled.source, load(model)).source == settled.source
    return list(samples.load(settled.source, load(model))), settled.told


def wave(*shape: int | str, **metadata: str) -> ModelProto:
    return net({"x": (1, shape)}, **metadata)


def test_waves_are_one_channel_cut_or_filled(tmp_path: Path) -> None:
    long, short = tone(tmp_path / "a.wav", channels=2), tone(tmp_path / "b.flac", 0.1)
    found, told = read(tmp_path, wave("n", 2000))
    assert told == "sounds: their own rate, 2000 samples (nothing says otherwise; --preprocess does)"
    assert np.array_equal(found[0]["x"], [long[:2000], np.pad(short, (0, 400))])
    assert [f["x"].shape for f in read(tmp_path, wave("n", 1, "t"))[0]] == [(1, 1, 4000), (1, 1, 1600)]
    assert [f["x"].shape for f in read(tmp_path, wave(2000))[0]] == [(2000,)] * 2
    parts, told = read(tmp_path, wave(2, 2000), take="all")
    assert [f["x"].shape for f in parts] == [(2, 2000)] and told.endswith("; what makes no batch of 2 left out")
    with pytest.raises(InputError, match="holds 3 sounds, fewer than the batch of 4 that"):
        read(tmp_path, wave(4, 2000), take="all")
    with pytest.raises(InputError, match="holds 2 sounds, fewer than the batch of 3 that"):
        read(tmp_path, wave(3, 2000))
    parts, told = read(tmp_path, wave("n", "t"), length="0.1s", take="all", rate=16000)
    assert "0.1 s each, all parts" in told and parts[0]["x"].shape == (4, 1600)
    assert np.array_equal(parts[0]["x"][:3].reshape(-1)[:4000], long)


def test_the_rate_is_that_of_the_metadata_or_the_user(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    tone(tmp_path / "a.wav", 0.5, 44100)
    found, told = read(tmp_path, wave("n", "t", sample_rate="16000"))
    assert told == "sounds: 16000 Hz, their own length (from the metadata of the model)"
    assert found[0]["x"].shape == (1, 8000)
    spectrum = np.abs(np.fft.rfft(found[0]["x"][0]))
    assert np.argmax(spectrum) == 220  # 440 Hz still, in half a second
    assert read(tmp_path, wave("n", "t", sample_rate="16000"), rate="8000")[0][0]["x"].shape == (1, 4000)
    assert "16000 Hz" in read(tmp_path, wave("n", "t", sample_rate="9" * 5000, sampling_rate="16000"))[1]
    tone(tmp_path / "b.wav", 0.5, 16000)
    with pytest.raises(InputError, match=r"b\.wav: has 16000 samples a second, others 44100"):
        read(tmp_path, wave("n", "t"))


def test_what_a_model_wants_beside_the_sound(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0.1)
    model = net({
        "input": (1, ("n", 2000)), "state": (1, (2, "n", 8)), "sr": (INT64, ()), "attention_mask": (INT64, ("n", 2000)),
        "length": (INT64, ("n",)),
    })  # fmt: skip
    (found,) = read(tmp_path, model)[0]
    assert found["state"].shape == (2, 1, 8) and not found["state"].any()
    assert found["sr"] == 16000 and found["length"].tolist() == [1600]
    assert found["attention_mask"].sum() == 1600
    with pytest.raises(InputError, match="also wants 'speaker', for which nothing is known here"):
        read(tmp_path, net({"input": (1, ("n", 2000)), "speaker": (INT64, ("n",))}))


SHAPES: list[tuple[int | str, ...]] = [
    ("n", "t"), ("n", 80, 200), ("n", 128, "frames"), ("n", 40, 128), ("n", "frames", "mels")
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_features_as_transformers_has_them(number: int, tmp_path: Path) -> None:
    case = cases("sounds")[number]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(case["config"]))
    tone(tmp_path / "a.flac", 0.5)
    (found,) = read(tmp_path, wave(*SHAPES[number]))[0]
    (wanted,) = case["made"]
    assert (
        list(found["x"].shape) == wanted["shape"] and np.abs(np.subtract(some(found["x"]), wanted["some"])).max() < 1e-4
    )


def test_log_mel_finds_a_tone(tmp_path: Path) -> None:
    time = np.arange(16000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 3000 * time), 16000)
    for features, shape, axis in (("whisper", ("n", 80, 100), 0), ("ast", ("n", 98, 80), 1)):
        (found,) = read(tmp_path, wave(*shape), features=features)[0]
        loud = found["x"][0].mean(1 - axis)
        # 3 kHz lies in band 53 of 80 by Slaney's scale, in band 50 by Kaldi's from 20 Hz on
        assert abs(int(np.argmax(loud)) - {"whisper": 53, "ast": 50}[features]) <= 2


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(InputError, match=r"a\.wav: not a sound"):
        read(tmp_path, wave("n", "t"))
    tone(tmp_path / "a.wav")
    for settings, words in (
        ({"rate": "fast"}, "--preprocess rate is 'fast'"),
        ({"length": "2s"}, "seconds ask for a rate too"),
        ({"length": 30}, "input 'x' takes 2000 samples"),
        ({"features": "whisper"}, "features whisper have two axes beside the batch"),
        ({"fit": "letterbox"}, "--preprocess fit: is no setting for sounds"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path, wave("n", 2000), **settings)
    with pytest.raises(InputError, match="does not take them: it wants ids"):
        read(tmp_path, net({"ids": (INT64, ("n", "t"))}))
    (tmp_path / "preprocessor_config.json").write_text(
        '{"sampling_rate": 16000, "feature_extractor_type": "ClapFeatureExtractor"}'
    )
    with pytest.raises(InputError, match="ClapFeatureExtractor is not known here"):
        read(tmp_path, wave("n", "t"))


def test_soundfile_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.errors import BackendError

    tone(tmp_path / "a.wav")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendError, match=r"pip install 'graphprune\[audio\]'"):
        read(tmp_path, wave("n", "t"))
