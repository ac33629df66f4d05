"""Arrays of many runs of a model: in memory up to a limit, and behind that on disk, mapped where they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

import numpy as np

from graphprune.relation import Values
from graphprune.run.arrays import save

MEMORY = 1 << 30
"""Bytes that one shelf holds in memory."""
_SMALL = 1 << 12
"""Bytes up to which an array always stays in memory."""


class Shelf:
    """Arrays by the number of a run and by name.

    Args:
        folder: for those that memory has no room for.
        memory: bytes that may be held in memory.
    """

    def __init__(self, folder: Path, memory: int = MEMORY) -> None:
        self.folder, self.memory = folder, memory
        self.held: dict[int, dict[str, Values | Path]] = {}
        self.used = 0
        self._numbers = count()

    def put(self, run: int, arrays: Mapping[str, Values]) -> None:
        """Keep arrays of a run, in place of others of the same names."""
        own = self.held.setdefault(run, {})
        for name, given in arrays.items():
            self.drop(run, [name])
            value = np.asarray(given)
            if value.nbytes <= _SMALL or value.dtype.hasobject or self.used + value.nbytes <= self.memory:
                self.used += value.nbytes
                own[name] = value
            else:
                path = self.folder / f"{next(self._numbers)}.npy"
                save(path, value)
                own[name] = path

    def get(self, run: int, names: Iterable[str] | None = None) -> dict[str, Values]:
        """Arrays of a run: those of these names, or all."""
        own = self.held.get(run, {})
        return {n: _read(own[n]) for n in (list(own) if names is None else names)}

    def drop(self, run: int, names: Iterable[str]) -> None:
        """Forget arrays of a run; names that are not there are no harm."""
        for name in names:
            match self.held.get(run, {}).pop(name, None):
                case Path() as path:
                    path.unlink()
                case None:
                    pass
                case value:
                    self.used -= value.nbytes


def _read(held: Values | Path) -> Values:
    return np.load(held, mmap_mode="r") if isinstance(held, Path) else held
