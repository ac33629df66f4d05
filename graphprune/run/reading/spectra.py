"""Log-mel features of sounds, in NumPy.

Two kinds, with the numbers that transformers' extractors have for them:

- ``whisper``: a Fourier transform of frames that are centred (400 samples, every 160th), Slaney's mel scale and areas
  up to 8 kHz, ``log10``, nothing more than 8 below the loudest (Radford et al., 2022);
- ``ast``: Kaldi's filter banks (frames of 400 samples, every 160th; offset taken out, pre-emphasis 0.97) and their
  natural logarithm (Gong et al., 2021).
"""

from __future__ import annotations

import numpy as np

from graphprune.relation import Values

FRAME, HOP = 400, 160
WHISPER, AST = "whisper", "ast"
_FLOOR = 1.192092955078125e-07
"""Kaldi's: the distance of 1 to the next single."""


def whisper(wave: Values, mels: int, rate: int) -> Values:
    """``[mels, samples // 160]`` of a wave that is as long as the model wants it."""
    power = _power(np.pad(wave.astype(np.float64), FRAME // 2, "reflect"), _hann(FRAME, periodic=True), FRAME)
    highest = 8000.0
    points = _from_slaney(np.linspace(0, _slaney(np.array([highest]))[0], mels + 2))
    bank = _triangles(np.linspace(0, rate // 2, FRAME // 2 + 1), points) * (2 / (points[2:] - points[:-2]))
    logs = np.log10(np.maximum(power[:-1] @ bank, 1e-10))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).T


def ast(wave: Values, mels: int, rate: int, frames: int) -> Values:
    """``[frames, mels]``: cut, or filled with zeros at the end."""
    size = 512
    power = _power(wave.astype(np.float64), _hann(FRAME, periodic=False), size, kaldi=True)
    lowest, highest = _kaldi(np.array([20.0, rate // 2])).tolist()
    points = np.linspace(lowest, highest, mels + 2)
    bank = _triangles(_kaldi(rate / size * np.arange(size // 2 + 1)), points)
    logs = np.log(np.maximum(power @ bank, _FLOOR))[:frames]
    return np.pad(logs, ((0, frames - len(logs)), (0, 0)))


def _power(wave: Values, window: Values, size: int, kaldi: bool = False) -> Values:
    """``[frames, size // 2 + 1]``."""
    if len(wave) < FRAME:
        wave = np.pad(wave, (0, FRAME - len(wave)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP]
    if kaldi:
        frames = frames - frames.mean(1, keepdims=True)
        before = np.concatenate([frames[:, :1], frames[:, :-1]], 1)
        frames = frames - 0.97 * before
    found: Values = np.abs(np.fft.rfft(frames * window, size)) ** 2
    return found


def _hann(size: int, periodic: bool) -> Values:
    return np.hanning(size + 1)[:-1] if periodic else np.hanning(size)


def _triangles(bins: Values, points: Values) -> Values:
    """``[bins, mels]``: each filter rises from one point to the next and falls to the one behind that."""
    slopes = points[None] - bins[:, None]
    widths = np.diff(points)
    return np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))


def _kaldi(hertz: Values) -> Values:
    return 1127 * np.log(1 + hertz / 700)


def _slaney(hertz: Values) -> Values:
    """Even up to 1 kHz, logarithmic behind (Slaney, Auditory Toolbox, 1998)."""
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + np.log(np.maximum(hertz, 1e-9) / 1000) * (27 / np.log(6.4)))


def _from_slaney(mels: Values) -> Values:
    return np.where(mels < 15, 200 * mels / 3, 1000 * np.exp((mels - 15) * (np.log(6.4) / 27)))
