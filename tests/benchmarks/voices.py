"""A detector of voice (silero-vad, MIT) on sounds that are made up: pulses through formants, among silence and noise.

Where the voice is is known, since it was put there. Sounds are given as microphones give them, frame by frame; what the
model remembers is carried from one to the next, at both sample rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto
from scipy import signal

import models

Feeds: TypeAlias = dict[str, npt.NDArray[Any]]
Array: TypeAlias = npt.NDArray[np.float32]
FRAMES = {16000: (512, 64), 8000: (256, 32)}
"""Samples of a frame, and of the one before that come with it, by sample rate."""
VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
    (660, 1720, 2410),
)
"""Resonances in Hz (Peterson and Barney, 1952)."""
AT_ONCE = 8
"""Sounds of calibration in one run."""
HEARD, SECONDS = 24, 4.0
"""Sounds that are scored, and how long each is."""


def voice(rng: np.random.Generator, count: int, rate: int) -> npt.NDArray[np.float64]:
    """Syllables: a buzz whose pitch wanders, or a hiss, through three resonances."""
    t = np.arange(count) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t + rng.uniform(0, 6)))
    buzz = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0) + 0.02 * rng.standard_normal(count)
    made, start = np.zeros(count), 0
    while start < count:
        end = min(count, start + int(rng.uniform(0.08, 0.22) * rate))
        part = 0.3 * rng.standard_normal(end - start) if rng.random() < 0.2 else buzz[start:end]
        for formant, width in zip(VOWELS[rng.integers(len(VOWELS))], (60, 90, 120), strict=True):
            radius = np.exp(-np.pi * width / rate)
            part = signal.lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * formant / rate), radius**2], part)
        made[start:end] = part * np.sqrt(np.hanning(end - start))
        start = end + int(rng.uniform(0, 0.05) * rate)
    return made / max(float(np.abs(made).max()), 1e-9)


@cache
def sounds(seed: int, count: int, seconds: float, rate: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Sounds ``[count, samples]`` of voice, noise and silence in turn, and which samples are voice."""
    rng = np.random.default_rng(seed)
    length = int(seconds * rate)
    made, spoken = np.zeros((count, length)), np.zeros((count, length), bool)
    for sound, is_voice in zip(made, spoken, strict=True):
        start = 0
        while start < length:
            end = min(length, start + int(rng.uniform(0.3, 0.5) * seconds * rate))
            kind = rng.choice(["voice", "noise", "silence"], p=[0.5, 0.25, 0.25])
            if kind == "voice":
                sound[start:end], is_voice[start:end] = rng.uniform(0.2, 0.6) * voice(rng, end - start, rate), True
            elif kind == "noise":
                sound[start:end] = rng.uniform(0.01, 0.1) * rng.standard_normal(end - start)
            start = end
        sound += rng.uniform(0.001, 0.005) * rng.standard_normal(length)
    return made.astype(np.float32), spoken


def frames(x: Array, rate: int) -> Array:
    """Frames ``[frames, sounds, samples]``, each behind the end of the one before it."""
    size, before = FRAMES[rate]
    padded = np.pad(x, ((0, 0), (before, 0)))
    return np.stack([padded[:, i : i + before + size] for i in range(0, x.shape[1] - size + 1, size)])


def _by_frame(active: ort.InferenceSession, x: Array, rate: int) -> tuple[list[Feeds], Array]:
    """All sounds at once, a frame in a run."""
    state, given, said = np.zeros((2, len(x), 128), np.float32), list[Feeds](), []
    for frame in frames(x, rate):
        given.append({"input": frame, "state": state, "sr": np.array(rate)})
        probability, state = active.run(None, given[-1])
        said.append(probability[:, 0])
    return given, np.stack(said)


def _by_sound(active: ort.InferenceSession, x: Array, rate: int) -> tuple[list[Feeds], Array]:
    """One sound after the other, a second in a run."""
    given, said = list[Feeds](), []
    for whole in frames(x, rate).transpose(1, 0, 2):
        parts, h, c = [], np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)
        for start in range(0, len(whole), 31):
            given.append({"input": whole[start : start + 31], "h": h, "c": c})
            probability, h, c = active.run(None, given[-1])
            parts.append(probability)
        said.append(np.concatenate(parts))
    return given, np.stack(said, 1)


@dataclass(frozen=True)
class Detector:
    """One export of the detector.

    Attributes:
        file: its name in the package.
        rates: samples in a second that it takes.
        follow: what it is given for some sounds, run by run, and the probabilities of voice, ``[frames, sounds]``.
    """

    file: str
    rates: tuple[int, ...]
    follow: Callable[[ort.InferenceSession, Array, int], tuple[list[Feeds], Array]]

    def path(self) -> Path:
        """The file."""
        return models.carried("silero-vad", f"silero_vad/data/{self.file}")

    def calibration(self, count: int) -> list[Feeds]:
        """Runs on so many sounds of a second, as many at each rate, with what the original remembers."""
        active, found = _session(onnx.load(self.path())), list[Feeds]()
        for rate in self.rates:
            x, _ = sounds(9, -(-count // len(self.rates)), 1.0, rate)
            found += [f for i in range(0, len(x), AT_ONCE) for f in self.follow(active, x[i : i + AT_ONCE], rate)[0]]
        return found

    def heard(self, model: ModelProto, rate: int) -> Array:
        """The probabilities of voice on the sounds that are scored."""
        return self.follow(_session(model), sounds(10, HEARD, SECONDS, rate)[0], rate)[1]

    def near(self, model: ModelProto) -> float:
        """1 less the mean distance from the probabilities that the original gives."""
        return float(np.mean([1 - np.abs(self.heard(model, r) - _wanted(self, r)).mean() for r in self.rates]))

    def told(self, model: ModelProto) -> float:
        """The share of frames that are rightly told to be voice or not."""
        return float(np.mean([_right(self.heard(model, rate), rate) for rate in self.rates]))


def _session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def _wanted(detector: Detector, rate: int) -> Array:
    return detector.heard(onnx.load(detector.path()), rate)


def _right(said: Array, rate: int) -> float:
    spoken = frames(sounds(10, HEARD, SECONDS, rate)[1].astype(np.float32), rate)
    return float(((said > 0.5) == (spoken.mean(-1) > 0.5)).mean())


STREAM = Detector("silero_vad.onnx", (16000, 8000), _by_frame)
"""Two rates in two branches of an If, with more Ifs inside."""
SEQUENCE = Detector("silero_vad_16k_sequence.onnx", (16000,), _by_sound)
"""One rate, frames of a sound along the first axis: the recurrence is an LSTM."""
