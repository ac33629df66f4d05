"""Real models with labels that cost nothing: what they are asked, and how many answers are right.

Calibration inputs and scored ones never overlap: texts are drawn with other seeds, digits from other images.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto
from PIL import Image, ImageDraw, ImageFont

import models
from models.digits import accuracy, images

Array = npt.NDArray[np.float32]
SCORED = 150
"""Rendered lines that are scored."""


@dataclass(frozen=True)
class Task:
    """A model with calibration inputs and a score.

    Attributes:
        path: the model.
        inputs: so many unlabelled calibration inputs, by name of the input, samples along the first axis.
        score: the share of answers that a model gets right.
    """

    path: Path
    inputs: Callable[[int], dict[str, Array]]
    score: Callable[[ModelProto], float]


def _words(rng: random.Random) -> str:
    letters = string.ascii_letters + string.digits
    return " ".join("".join(rng.choice(letters) for _ in range(rng.randint(3, 8))) for _ in range(rng.randint(1, 3)))


def render(text: str, rng: random.Random, size: tuple[int, int]) -> Array:
    """A line of text: random size, place, colours and noise, as ``[3, height, width]`` in [-1, 1]."""
    width, height = size
    font = ImageFont.load_default(rng.randint(20, 30))
    left, top, right, bottom = font.getbbox(text)
    ink, paper = rng.randint(0, 90), rng.randint(160, 255)
    canvas = Image.new("L", (int(right - left) + 16, int(bottom - top) + 14), paper)
    ImageDraw.Draw(canvas).text((8 - left, 7 - top), text, fill=ink, font=font)
    canvas = canvas.rotate(rng.uniform(-1.5, 1.5), Image.Resampling.BILINEAR, fillcolor=paper)
    scaled = canvas.resize((min(width, max(1, int(canvas.width * height / canvas.height))), height))
    page = np.full((height, width), 127.5)
    page[:, : scaled.width] = np.asarray(scaled, dtype=np.float64)
    page += np.random.default_rng(rng.randint(0, 1 << 30)).normal(0, rng.uniform(0, 12), page.shape)
    return np.repeat(((np.clip(page, 0, 255) / 127.5) - 1)[None], 3, 0).astype(np.float32)


@cache
def lines(seed: int, count: int, size: tuple[int, int] = (320, 48)) -> tuple[Array, list[str]]:
    """Rendered lines and what they say."""
    rng = random.Random(seed)
    texts = [_words(rng) for _ in range(count)]
    return np.stack([render(t, rng, size) for t in texts]), texts


def outputs(model: ModelProto, x: Array, batch: int = 25) -> Array:
    """The first output, in batches."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    active = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = active.get_inputs()[0].name
    return np.concatenate([active.run(None, {name: x[i : i + batch]})[0] for i in range(0, len(x), batch)])


def recognised(model: ModelProto) -> float:
    """The share of characters of rendered lines that a text recogniser gets right, by matching blocks."""
    characters = next(p.value for p in model.metadata_props if p.key == "character").split("\n")
    x, texts = lines(2, SCORED)
    right = total = 0
    for row, text in zip(outputs(model, x).argmax(-1), texts, strict=True):
        kept = [c for k, c in enumerate(row) if c and (k == 0 or c != row[k - 1])]
        found = "".join(characters[c - 1] if c <= len(characters) else " " for c in kept)
        blocks = SequenceMatcher(
            None, text.replace(" ", ""), found.replace(" ", ""), autojunk=False
        ).get_matching_blocks()
        right, total = right + sum(b.size for b in blocks), total + len(text.replace(" ", ""))
    return right / total


def turned(seed: int, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rendered lines, every other one upside down."""
    x, _ = lines(seed, count, (192, 48))
    x, labels = x.copy(), np.arange(count) % 2
    x[labels == 1] = x[labels == 1, :, ::-1, ::-1]
    return x, labels


def oriented(model: ModelProto) -> float:
    """The share of lines of which a classifier tells whether they are upside down."""
    x, labels = turned(4, SCORED)
    return float((outputs(model, x).argmax(-1) == labels).mean())


TASKS = {
    "PP-OCRv4 rec": Task(models.packaged("ppocr-v4-rec"), lambda n: {"x": lines(1, n)[0]}, recognised),
    "PP-OCR cls": Task(models.packaged("ppocr-v4-cls"), lambda n: {"x": turned(3, n)[0]}, oriented),
    "digits CNN": Task(models.trained("digits-cnn"), lambda n: {"image": images("train")[0][:n]}, accuracy),
    "digits transformer": Task(
        models.trained("digits-transformer"), lambda n: {"image": images("train")[0][:n]}, accuracy
    ),
}


def original(task: Task) -> ModelProto:
    """The model of a task."""
    return onnx.load(task.path)
