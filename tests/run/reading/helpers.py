"""Small nets that take what a folder holds, and files to put into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from graphprune.relation import Values
from models.small import Net

INT64 = TensorProto.INT64


def net(inputs: dict[str, tuple[int, tuple[int | str, ...]]], **metadata: str) -> ModelProto:
    """A net that adds up all that its inputs hold.

    Args:
        inputs: by name their element types and shapes.
        metadata: what an exporter has written into it.
    """
    build = Net()
    casts = [build.op("Cast", build.input(name, shape, kind), to=1) for name, (kind, shape) in inputs.items()]
    sums = [build.op("ReduceSum", one, keepdims=0) for one in casts]
    model = build.model(build.op("Sum", *sums))
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def pictured(*shape: int | str, **metadata: str) -> ModelProto:
    """A net that takes images."""
    return net({"x": (1, shape)}, **metadata)


def picture(path: Path, height: int, width: int) -> Values:
    """A picture of a few soft blots, as a file; gives its pixels."""
    pillow = __import__("PIL.Image").Image
    blots = np.random.default_rng(height * width).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    soft = pillow.fromarray(blots).resize((width, height), pillow.Resampling.BICUBIC)
    soft.save(path)
    return np.asarray(soft)


def tone(path: Path, seconds: float = 0.25, rate: int = 16000, channels: int = 1) -> Values:
    """A tone of 440 Hz with some noise, as a file; gives what a reader gets of it."""
    soundfile = __import__("soundfile")
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 440 * time)[:, None] + 0.02 * noise, rate)
    return np.asarray(soundfile.read(path, dtype="float32", always_2d=True)[0]).mean(1)
