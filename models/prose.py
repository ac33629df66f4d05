"""Docstrings and comments of Python's standard library as bytes, split once and for all, and what they cost a model.

The text is read from the sources, without importing them; it differs a little from one version of Python to the next.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto

Tokens = npt.NDArray[np.int64]
OTHERS = ("site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "encodings")
"""Folders that are no part of the library, or hold next to no prose."""
HELD_OUT = 8
"""One file of so many is held out, by a hash of its name."""
LENGTH = 128
"""Bytes of a text that a model is asked about at once."""
SCORED = 256
"""Texts that are scored."""
BLOCK = re.compile(r"(?:^[ \t]*#.*\n)+", re.MULTILINE)


@cache
def text(part: str) -> bytes:
    """All prose of a part, ``train`` or ``held out``: one docstring or block of comments after the other, each once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, bool] = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if set(inside.parts).isdisjoint(OTHERS):
            held = zlib.crc32(inside.as_posix().encode()) % HELD_OUT == 0
            for one in (*docstrings(path), *_comments(path)):
                found[one] = found.get(one, False) if one in found else held  # what both say is where it was first
    return "\n\n".join(one for one, held in found.items() if held == (part == "held out")).encode()


def docstrings(path: Path) -> Iterator[str]:
    """Docstrings of a file, which is read and not imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # some are there to be refused
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node)
            if told:
                yield told


def _comments(path: Path) -> Iterator[str]:
    """Blocks of lines that are comments, without their signs."""
    for block in BLOCK.findall(path.read_text(encoding="utf-8", errors="replace")):
        yield "\n".join(re.sub(r"^[ \t]*#+ ?", "", line).rstrip() for line in block.splitlines())


def texts(part: str, count: int, length: int = LENGTH) -> Tokens:
    """Texts ``[count, length]`` of a part, evenly spread over it; each byte is a token."""
    whole = np.frombuffer(text(part), np.uint8)
    starts = np.linspace(0, len(whole) - length, count).astype(np.int64)
    return whole[starts[:, None] + np.arange(length)].astype(np.int64)


def bits(model: ModelProto | Path, part: str = "held out", count: int = SCORED) -> float:
    """Bits that a model takes for a byte of a part: the mean of minus log2 of what it gives to the byte that follows.

    Its perplexity is two to the power of this. The model has no cache: ``input_ids`` to ``logits``.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    active = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    total, ids = 0.0, texts(part, count)
    for rows in np.array_split(ids, max(1, count // 32)):
        (logits,) = active.run(["logits"], {"input_ids": rows})
        logits = np.asarray(logits, np.float64)[:, :-1]
        top = logits.max(-1)
        spread = np.log(np.exp(logits - top[..., None]).sum(-1)) + top
        right = np.take_along_axis(logits, rows[:, 1:, None], -1)[..., 0]
        total += float((spread - right).sum())
    return total / (ids.size - len(ids)) / float(np.log(2))
