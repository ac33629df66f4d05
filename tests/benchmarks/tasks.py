"""Real models with labels that cost nothing: what they are asked, and how many answers are right.

Calibration inputs and scored ones never overlap: texts are drawn with other seeds, digits from other images.
"""

from __future__ import annotations

import json
import random
import string
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

import models
from graphprune.verdict.detections import agreement
from models import prose, shapes
from models.digits import accuracy, images
from tests.benchmarks import sentences
from tests.benchmarks.voices import SEQUENCE, STREAM

Array = npt.NDArray[np.float32]
SCORED = 150
"""Rendered lines that are scored."""


@dataclass(frozen=True)
class Task:
    """A model with calibration inputs and a score.

    Attributes:
        find: gives the file of the model; raises LookupError where something is to be installed for it.
        inputs: so many unlabelled calibration inputs: by name of the input, samples along the first axis; or for each
            run, where a model remembers.
        score: the share of answers that a model gets right; of a language model what a byte costs it.
        shapes: sizes of inputs that the model leaves free.
        near: how near it stays to the original, 1 where it is the same; None where right answers say enough.
        shown: a score in words: in per cent, where it is not a cost.
    """

    find: Callable[[], Path]
    inputs: Callable[[int], dict[str, npt.NDArray[Any]] | list[dict[str, npt.NDArray[Any]]]]
    score: Callable[[ModelProto], float]
    shapes: dict[str, tuple[int, ...]] | None = None
    near: Callable[[ModelProto], float] | None = None
    shown: Callable[[float], str] = lambda share: f"{100 * share:.1f}"

    @property
    def path(self) -> Path:
        """The file of the model."""
        return self.find()


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


def outputs(model: ModelProto, x: npt.NDArray[Any], batch: int = 25) -> Array:
    """The first output, in batches."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    active = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = active.get_inputs()[0].name
    return np.concatenate([active.run(None, {name: x[i : i + batch]})[0] for i in range(0, len(x), batch)])


def recognised(model: ModelProto) -> float:
    """The share of characters of rendered lines that a text recogniser gets right, by matching blocks."""
    held = [p.value for p in model.metadata_props if p.key == "character"]
    characters = (held[0] if held else _keys()).split("\n")
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


@cache
def _keys() -> str:
    """What the classes of PP-OCRv5's recogniser stand for, from the package that carries it."""
    return (
        models.packaged("ppocr-v5-rec")
        .with_name("ppocr_keys_v5.txt")
        .read_text(encoding="utf-8")
        .removeprefix("blank\n")
        .rstrip("\n")
    )


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


PAGE = 320
"""Pixels of a rendered page, each way."""


@cache
def pages(seed: int, count: int) -> tuple[Array, list[list[tuple[int, int, int, int]]]]:
    """Rendered pages, ``[count, 3, PAGE, PAGE]``, and where their lines are: left, top, right, bottom."""
    rng = random.Random(seed)
    found, boxes = [], []
    for _ in range(count):
        ink, paper = rng.randint(0, 90), rng.randint(160, 255)
        canvas, own, y = Image.new("L", (PAGE, PAGE), paper), [], rng.randint(8, 40)
        while y < PAGE - 50:
            font = ImageFont.load_default(rng.randint(16, 30))
            text, x = _words(rng)[:14], rng.randint(6, 60)
            box = ImageDraw.Draw(canvas).textbbox((x, y), text, font=font)
            ImageDraw.Draw(canvas).text((x, y), text, fill=ink, font=font)
            own.append(tuple(int(v) for v in (box[0], box[1], min(box[2], PAGE - 1), box[3])))
            y = int(box[3]) + rng.randint(16, 50)
        page = np.asarray(canvas, np.float64)
        page = page + np.random.default_rng(rng.randint(0, 1 << 30)).normal(0, rng.uniform(0, 10), page.shape)
        rgb = np.repeat(np.clip(page, 0, 255)[None] / 255, 3, 0)
        mean, std = (np.array(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        found.append(((rgb - mean) / std).astype(np.float32))
        boxes.append(own)
    return np.stack(found), boxes


def detected(model: ModelProto) -> float:
    """F1 of the lines that a text detector finds on pages: found is what overlaps by half with the shrunk line."""
    x, wanted = pages(6, SCORED // 5)
    right = found = total = 0
    for probability, boxes in zip(outputs(model, x, 5)[:, 0], wanted, strict=True):
        labels = ndimage.label(probability > 0.3)[0]
        areas = [s for s in ndimage.find_objects(labels) if (s[0].stop - s[0].start) * (s[1].stop - s[1].start) >= 30]
        matched = sum(any(_overlap(b, a) for a in areas) for b in boxes)
        right, found, total = right + matched, found + len(areas), total + len(boxes)
    return 2 * right / max(found + total, 1)


def _overlap(box: tuple[int, int, int, int], area: tuple[slice, slice]) -> bool:
    """Whether an area is the middle of a line: detectors of this kind mark lines shrunk by two fifths."""
    height = box[3] - box[1]
    shrunk = (box[0] + 0.3 * height, box[1] + 0.3 * height, box[2] - 0.3 * height, box[3] - 0.3 * height)
    wide = max(0.0, min(shrunk[2], area[1].stop) - max(shrunk[0], area[1].start))
    high = max(0.0, min(shrunk[3], area[0].stop) - max(shrunk[1], area[0].start))
    inside = wide * high
    both = (shrunk[2] - shrunk[0]) * (shrunk[3] - shrunk[1])
    both += (area[1].stop - area[1].start) * (area[0].stop - area[0].start) - inside
    return inside >= 0.5 * both


KINDS = {
    ".py": "python", ".json": "json", ".c": "c", ".h": "c", ".so": "elf", ".pyc": "pythonbytecode", ".html": "html",
    ".md": "markdown", ".js": "javascript", ".css": "css", ".png": "png", ".xml": "xml", ".csv": "csv",
}  # fmt: skip


@cache
def files(seed: int, count: int) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Files of this Python installation as magika reads them (1,024 bytes from each end), and their types by name.

    Seeds halve the files: even ones take from one half, odd ones from the other.
    """
    whole = sorted(
        p for root in (sys.prefix, sys.base_prefix) for p in Path(root, "lib").rglob("*")
        if p.suffix in KINDS and p.is_file() and p.stat().st_size > 200
    )  # fmt: skip
    mine = [p for p in whole if zlib.crc32(p.name.encode()) % 2 == seed % 2]
    by_kind: dict[str, list[Path]] = {}
    for path in random.Random(seed).sample(mine, len(mine)):
        by_kind.setdefault(KINDS[path.suffix], []).append(path)
    rounds = zip_longest(*by_kind.values())  # all types alike, as far as they reach
    chosen = [p for one in rounds for p in one if p is not None][:count]
    rows = []
    for path in chosen:
        data = path.read_bytes()
        first, last = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
        rows.append([*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last])
    return np.array(rows, np.int32), [KINDS[p.suffix] for p in chosen]


def identified(model: ModelProto) -> float:
    """The share of files of which magika's model names the type."""
    config = models.packaged("magika").with_name("config.min.json")
    labels = json.loads(config.read_text())["target_labels_space"]
    x, wanted = files(8, 2 * SCORED)
    found = outputs(model, x).argmax(-1)
    return float(np.mean([labels[f] == w for f, w in zip(found, wanted, strict=True)]))


def _digits(count: int) -> dict[str, npt.NDArray[Any]]:
    return {"image": images("train")[0][:count]}


def _same_boxes(model: ModelProto) -> float:
    """Mean average precision where what the original finds is true: the metric ``detections``, on held-out images."""
    whole = shapes.found(onnx.load(models.trained("shapes-detector")))
    return agreement(whole, shapes.found(model)).map


LINE, TURNED = (8, 3, 48, 320), (8, 3, 48, 192)
FRAME = {"input": (1, 576), "state": (2, 1, 128)}


def _carried(name: str) -> Callable[[], Path]:
    return partial(models.packaged, name)


TASKS = {
    "digits CNN": Task(partial(models.trained, "digits-cnn"), _digits, accuracy),
    "digits transformer": Task(partial(models.trained, "digits-transformer"), _digits, accuracy),
    "shapes": Task(
        partial(models.trained, "shapes-detector"),
        lambda n: {"images": shapes.drawn("train", n)[0]},
        shapes.precision,
        near=_same_boxes,
    ),
    "tiny LM": Task(
        partial(models.trained, "tiny-lm"),
        lambda n: {"input_ids": prose.texts("train", n)},
        prose.bits,
        shown=lambda bits: f"{bits:.3f} bits",
    ),
    "PP-OCR cls": Task(_carried("ppocr-v4-cls"), lambda n: {"x": turned(3, n)[0]}, oriented, {"x": TURNED}),
    "silero": Task(SEQUENCE.path, SEQUENCE.calibration, SEQUENCE.told, near=SEQUENCE.near),
    "silero, branches": Task(STREAM.path, STREAM.calibration, STREAM.told, FRAME, STREAM.near),
    "MiniLM": Task(sentences.path, sentences.calibration, sentences.found, near=sentences.near),
    "magika": Task(_carried("magika"), lambda n: {"bytes": files(7, n)[0]}, identified),
    "PP-OCRv4 rec": Task(_carried("ppocr-v4-rec"), lambda n: {"x": lines(1, n)[0]}, recognised, {"x": LINE}),
    "PP-OCRv5 rec": Task(_carried("ppocr-v5-rec"), lambda n: {"x": lines(1, n)[0]}, recognised, {"x": LINE}),
    "PP-OCRv4 det": Task(
        _carried("ppocr-v4-det"), lambda n: {"x": pages(5, n)[0]}, detected, {"x": (4, 3, PAGE, PAGE)}
    ),
}


def at_hand(names: Sequence[str]) -> Iterator[str]:
    """Names of tasks, all where none is given, whose model is there; a line says what the others want."""
    for name in names or TASKS:
        try:
            TASKS[name].find()
        except LookupError as missing:
            print(f"{name} is left out: {missing}", flush=True)
        else:
            yield name


def original(task: Task) -> ModelProto:
    """The model of a task."""
    return onnx.load(task.path)
