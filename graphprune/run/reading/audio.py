"""Sounds as the input of a model: one channel, at one rate, cut or filled with silence, as a wave or as features.

Settings, each said by the user, else by the extractor that transformers keeps beside the model, else by the model's
metadata, else what stands first:

- ``rate``: samples a second; by default that of the files;
- ``length``: samples, or seconds as ``2s``; by default the model's own, or that of each file;
- ``take``: ``first`` part of that length, or ``all`` of them, each a sample;
- ``features``: ``wave``, ``whisper`` or ``ast`` (see ``spectra``), of so many ``mels`` and for ``ast`` ``frames``;
- ``normalize``: ``false``; ``true`` brings each wave to mean 0 and variance 1;
- ``mean`` (0) and ``std`` (1): of features, ``(feature - mean) / std``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ValueInfoProto

from graphprune.errors import BackendError, InputError
from graphprune.model import Model, limits
from graphprune.relation import Shape, Values
from graphprune.run.reading import asked, batches, exported, filling, kinds, spectra
from graphprune.run.reading.asked import Settings
from graphprune.run.reading.configs import Config

KEYS = ("rate", "length", "take", "features", "mels", "frames", "normalize", "mean", "std")
_WAVE = "wave"
_MOST = 1 << 28
"""Numbers of the largest sample that is made."""
_RATES = ("sample_rate", "sampling_rate", "rate")
"""What exporters call the rate in a model's metadata."""
_MASKS = ("attention_mask", "padding_mask")
_LENGTHS = ("length", "lengths", "input_lengths", "audio_signal_length", "x_lens", "speech_lengths")


@dataclass(frozen=True)
class Sound:
    """What is done with a sound; see the module. ``length`` and ``rate`` are 0 where files say them."""

    rate: int
    length: int
    whole: bool
    features: str
    mels: int
    frames: int
    normalize: bool
    mean: float
    std: float

    def told(self) -> str:
        """In words: ``16000 Hz, 30 s, log-mel of 80 bands as Whisper``."""
        parts = [f"{self.rate} Hz" if self.rate else "their own rate"]
        if self.features != spectra.AST:
            long = f"{self.length / self.rate:g} s" if self.rate else f"{self.length} samples"
            parts.append("their own length" if not self.length else f"{long}{' each, all parts' if self.whole else ''}")
        if self.normalize:
            parts.append("mean 0 and variance 1")
        if self.features == spectra.WHISPER:
            parts.append(f"log-mel of {self.mels} bands as Whisper's")
        elif self.features == spectra.AST:
            parts.append(f"{self.frames} frames of log-mel of {self.mels} bands as Kaldi's")
        if (self.mean, self.std) != (0.0, 1.0):
            parts.append(f"mean {self.mean:.4g}, std {self.std:.4g}")
        return ", ".join(parts)

    def plain(self) -> dict[str, Any]:
        """As settings, all of them said but those that files say."""
        found = {
            "features": self.features, "mels": self.mels, "frames": self.frames, "normalize": self.normalize,
            "take": "all" if self.whole else "first", "mean": self.mean, "std": self.std,
        }  # fmt: skip
        return found | {k: v for k, v in (("rate", self.rate), ("length", self.length)) if v}


def from_config(config: Config) -> dict[str, Any]:
    """What an extractor of transformers says; empty where the file does not speak of sounds."""
    data, where = config.data, config.path
    if "sampling_rate" not in data:
        return {}
    kind = str(data.get("feature_extractor_type", ""))
    rate = asked.whole(f"{where}: its 'sampling_rate'", data["sampling_rate"])
    found: dict[str, Any] = {"rate": rate}
    if kind.startswith("Whisper"):
        if (data.get("n_fft", spectra.FRAME), data.get("hop_length", spectra.HOP)) != (spectra.FRAME, spectra.HOP):
            raise InputError(f"{where}: frames other than of 400 samples, every 160th, are not known here; give arrays")
        seconds = asked.whole(f"{where}: its 'chunk_length'", data.get("chunk_length", 30))
        return {**found, "features": spectra.WHISPER, "mels": data.get("feature_size", 80), "length": seconds * rate}
    if kind.startswith("AST"):
        found |= {
            "features": spectra.AST,
            "mels": data.get("num_mel_bins", 128),
            "frames": data.get("max_length", 1024),
        }
        if data.get("do_normalize", True):
            mean, std = data.get("mean", -4.2677393), data.get("std", 4.5689974)
            found |= {"mean": mean, "std": 2 * asked.number(f"{where}: its 'std'", std)}
        return found
    if kind and not kind.startswith("Wav2Vec2"):
        raise InputError(f"{where}: {kind} is not known here: give --preprocess features, or inputs by module:function")
    return {**found, "normalize": bool(data.get("do_normalize", True))}


def from_metadata(model: Model) -> dict[str, Any]:
    """The rate that an exporter has written into a model."""
    said = exported.said(model)
    rates = (exported.count(said.get(key, "")) for key in _RATES)
    return next(({"rate": rate} for rate in rates if rate is not None), {})


def settle(
    given: Settings, said: Settings, model: Model, place: Path, input_shapes: Mapping[str, Shape], by: str = ""
) -> Sound:
    """What is done with sounds.

    Args:
        given: settings of the user.
        said: settings of others.
        model: the model.
        place: where sounds come from.
        input_shapes: sizes of inputs where the model leaves them free.
        by: who these others are, for messages.

    Raises:
        InputError: a setting is none, or the model does not take what comes of it.
    """

    def asks(key: str) -> str:
        return f"--preprocess {key}" if key in given else f"{key} {by}"

    both = {**said, **given}
    value = _main(model, place)
    sizes = [d or g for d, g in zip(filling.dims(value), _given(value, input_shapes), strict=True)]
    features = asked.word(asks("features"), both.get("features", _WAVE), (_WAVE, spectra.WHISPER, spectra.AST))
    rate = asked.whole(asks("rate"), both["rate"]) if "rate" in both else 0
    length = _samples(asks("length"), both.get("length"), rate)
    mels, frames = (asked.whole(asks(k), both.get(k, d)) for k, d in (("mels", 80), ("frames", 1024)))
    if features == _WAVE:
        own = sizes[-1]
        if own and length and "length" in given and own != length:
            raise InputError(f"--preprocess length={given['length']}: input {value.name!r} takes {own} samples")
        length = own or length
    elif len(sizes) != 3:
        raise InputError(f"{place}: features {features} have two axes beside the batch, and {value.name!r} has {sizes}")
    elif features == spectra.WHISPER:
        mels, length = sizes[1] or mels, sizes[2] * spectra.HOP or length or 30 * (rate or 16000)
    else:
        frames, mels = sizes[1] or frames, sizes[2] or mels
    found = Sound(
        rate or (16000 if features != _WAVE else 0), length,
        asked.word(asks("take"), both.get("take", "first"), ("first", "all")) == "all", features, mels, frames,
        asked.yes(asks("normalize"), both.get("normalize", False)),
        asked.number(asks("mean"), both.get("mean", 0)), asked.number(asks("std"), both.get("std", 1)),
    )  # fmt: skip
    if max(length, frames * mels) > _MOST:
        raise InputError(f"{place}: {found.told()}: more than {_MOST:,} numbers a sample")
    if found.std == 0:
        raise InputError(f"{asks('std')} is 0, by which nothing can be divided")
    if found.whole and not length:
        raise InputError("--preprocess take=all: parts of which length? Say it by --preprocess length")
    return found


def _given(value: ValueInfoProto, input_shapes: Mapping[str, Shape]) -> Shape:
    dims = filling.dims(value)
    found = input_shapes.get(value.name, ())
    return found if len(found) == len(dims) else (0,) * len(dims)


def _main(model: Model, place: Path) -> ValueInfoProto:
    """The input that a sound goes into."""
    for value in model.inputs:
        own = filling.ending(value.name) in (*_MASKS, *_LENGTHS) or filling.is_state(value)
        if filling.dtype(value).kind == "f" and 1 <= len(filling.dims(value)) <= 3 and not own:
            return value
    names = ", ".join(f"{v.name} {'x'.join(str(s or '?') for s in filling.dims(v))}" for v in model.inputs)
    raise InputError(f"{place}: holds sounds, and {model.name} does not take them: it wants {names}")


def _samples(key: str, value: Any, rate: int) -> int:
    """A length in samples, 0 where none is said."""
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("s"):
        if not rate:
            raise InputError(f"{key} is {value!r}: seconds ask for a rate too, by --preprocess rate")
        samples = asked.number(key, value[:-1]) * rate
        if not 0 < samples <= _MOST:
            raise InputError(f"{key} is {asked.shown(value)}, and must be from a sample to {_MOST:,} of them")
        return max(1, round(samples))
    return asked.whole(key, value)


def read(files: Sequence[Path], sound: Sound, model: Model, place: Path, most: int) -> Iterator[dict[str, Values]]:
    """Every sound, as many at a time as the model fixes; else so many where all are of one length, or one.

    Raises:
        InputError: a file is none, or of another rate than the ones before it.
        BackendError: soundfile, or what changes rates, is not installed.
    """
    value = _main(model, place)
    declared = filling.dims(value)
    even = bool(sound.length) or sound.features != _WAVE
    count = 1 if len(declared) == 1 else declared[0] or (most if even else 1)
    batch: list[tuple[Values, int]] = []
    rate, fed = sound.rate, False
    for path in files:
        wave, own = _opened(path, sound)
        if rate not in (0, own):
            raise InputError(f"{path}: has {own} samples a second, others {rate}; give one for all: --preprocess rate")
        rate = own
        for part, used in _parts(wave, sound):
            batch.append((_featured(part, used, sound, own), used))
            if batch[-1][0].shape != batch[0][0].shape:
                raise InputError(f"{path}: is {len(wave)} samples long, and others are not; give --preprocess length")
            if len(batch) == count:
                yield _fed(batch, value, model, own, place)
                batch, fed = [], True
    if batch and not declared[0]:
        yield _fed(batch, value, model, rate, place)
    elif batch and not fed:
        raise batches.short(place, kinds.AUDIO, len(batch), count, model)


def left_over(files: Sequence[Path], sound: Sound, model: Model, place: Path) -> str:
    """How many sounds are left over where the model takes a fixed number of them, in words.

    Raises:
        InputError: they do not make one batch.
    """
    declared = filling.dims(_main(model, place))
    if len(declared) == 1 or not declared[0]:
        return ""
    if sound.whole:  # how many parts there are is seen when they are read
        return f"what makes no batch of {declared[0]} left out" if declared[0] > 1 else ""
    return batches.told(place, kinds.AUDIO, len(files), declared[0], model)


def _parts(wave: Values, sound: Sound) -> Iterator[tuple[Values, int]]:
    """Parts of the length that is wanted, each with how much of it is sound."""
    length = sound.length if sound.features != spectra.AST else 0
    if not length:
        yield wave, len(wave)
        return
    for start in range(0, max(1, len(wave)) if sound.whole else 1, length):
        part = wave[start : start + length]
        yield np.pad(part, (0, length - len(part))), len(part)


def _featured(wave: Values, used: int, sound: Sound, rate: int) -> Values:
    if sound.normalize:
        heard = wave[:used] if used else wave
        wave = np.where(np.arange(len(wave)) < used, (wave - heard.mean()) / np.sqrt(heard.var() + 1e-7), 0)
    if sound.features == _WAVE:
        return wave
    made = (
        spectra.whisper(wave, sound.mels, rate)
        if sound.features == spectra.WHISPER
        else spectra.ast(wave, sound.mels, rate, sound.frames)
    )
    return (made - sound.mean) / sound.std


def _fed(
    batch: Sequence[tuple[Values, int]], value: ValueInfoProto, model: Model, rate: int, place: Path
) -> dict[str, Values]:
    waves = np.stack([one for one, _ in batch])
    used = np.array([count for _, count in batch])
    mask = np.arange(waves.shape[-1]) < used[:, None]
    roles: dict[str, filling.Make] = {
        **dict.fromkeys(_MASKS, lambda: mask),
        **dict.fromkeys(_LENGTHS, lambda: used),
        **dict.fromkeys(("sr", *_RATES), partial(np.array, rate)),
    }
    rank = len(filling.dims(value))
    sample = waves[0] if rank == 1 else waves[:, None] if rank == 3 and waves.ndim == 2 else waves
    return filling.filled(model, value, sample, roles, str(place))


def library() -> Any:
    """The library that reads sounds.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return importlib.import_module("soundfile")
    except (ImportError, OSError) as error:  # the second is what it is made of, which is missing
        raise BackendError(
            "soundfile is not installed, and reads sounds: pip install 'graphprune[audio]', or give arrays"
        ) from error


def _opened(path: Path, sound: Sound) -> tuple[Values, int]:
    """The samples of a file as one channel, no more of them than are used, and how many there are in a second."""
    soundfile = library()
    try:
        with soundfile.SoundFile(path) as file:
            own = int(file.samplerate)
            _check_length(path, file.frames, int(file.channels), sound, own)
            found = file.read(_wanted(sound, own), dtype="float32", always_2d=True)
    except InputError:
        raise
    except Exception as error:  # whatever a decoder makes of a broken file
        raise InputError(f"{path}: not a sound ({' '.join(str(error).split())})") from error
    if not len(found):
        raise InputError(f"{path}: holds no samples")
    wave = found.mean(1)
    if sound.rate in (0, own):
        return wave, own
    try:
        soxr = importlib.import_module("soxr")
    except ImportError as error:
        raise BackendError(
            f"{path}: has {own} samples a second, and the model wants {sound.rate}: pip install 'graphprune[audio]'"
        ) from error
    return np.asarray(soxr.resample(wave, own, sound.rate)), sound.rate


def _check_length(path: Path, frames: int, channels: int, sound: Sound, own: int) -> None:
    """Raise InputError where there is no room for what a file declares, at its own rate and at the one that is wanted.

    Of a short file that declares much, as of one of a low rate, much is allocated.
    """
    wanted = _wanted(sound, own)
    read = frames if wanted < 0 else min(frames, wanted)
    taken = 8 * read * max(channels, -(-sound.rate // max(own, 1)))  # single precision, and what is made of it
    if (told := limits.too_many(taken)) is not None:
        raise InputError(f"{path}: declares {frames:,} samples of {channels} channels, which take {told}")


def _wanted(sound: Sound, own: int) -> int:
    """How many samples of a file are used, and a tenth of a second that filters look ahead; -1 for all."""
    length = sound.frames * spectra.HOP + spectra.FRAME if sound.features == spectra.AST else sound.length
    if sound.whole or not length:
        return -1
    return -(-length * own // (sound.rate or own)) + own // 10
