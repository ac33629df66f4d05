"""Which ids stay: those of a file, and those that calibration inputs hold most often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import InputError
from graphprune.model import parsing
from graphprune.relation import IntArray
from graphprune.run import arrays
from graphprune.run.calibration import Batches

_FORM = "give ids one a line, a .json list of them, or a .npy array"


def read(ids: str | Sequence[int]) -> IntArray:
    """Ids of a file (one a line, a list in ``.json``, an array in ``.npy``, or a file that a run wrote), or given ones.

    Raises:
        InputError: the file cannot be read as ids; says why.
    """
    if not isinstance(ids, str):
        return np.unique(np.asarray(list(ids), np.int64))
    path = Path(ids)
    try:
        found = np.asarray(_read(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: holds no ids ({error}); {_FORM}") from error
    if found.size and found.dtype.kind not in "iu":
        raise InputError(f"{path}: holds {found.dtype} in place of ids; {_FORM}")
    return np.unique(found.astype(np.int64))


def _read(path: Path) -> Any:
    if path.suffix == ".npy":
        return arrays.mapped(path)
    text = parsing.text(path)
    if path.suffix == ".json":
        data = parsing.parsed(text)
        return data.get("old_ids", []) if isinstance(data, dict) else data
    return [_number(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _number(number: int, line: str) -> int:
    try:
        return int(line)
    except ValueError:
        raise ValueError(f"line {number} is {line.strip()[:40]!r}") from None


def most_used(batches: Batches, inputs: Sequence[str], size: int, count: int) -> tuple[IntArray, int]:
    """The ids that come most often; of those that come as often as others the lower ones.

    Args:
        batches: gives the calibration inputs.
        inputs: those that hold ids.
        size: how many ids there are.
        count: how many stay, at most.

    Returns:
        The ids, ascending, of which each comes at least once; and how many different ones came.
    """
    counts = np.zeros(size, np.int64)
    for feeds in batches():
        for name in inputs:
            own = np.asarray(feeds[name]).reshape(-1) if name in feeds else np.zeros(0, np.int64)
            counts += np.bincount(own[(own >= 0) & (own < size)], minlength=size)
    order = np.argsort(-counts, kind="stable")[:count]
    return np.sort(order[counts[order] > 0]), int((counts > 0).sum())
