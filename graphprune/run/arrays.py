"""Named arrays in a ``.npz`` file. ``numpy.savez`` takes names as keywords, so that none may be called ``file``.

Strings, which ONNX Runtime takes as objects, are written as text: nothing is pickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def write(path: Path | IO[bytes], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under their names, as ``numpy.load`` reads them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                held = np.asanyarray(value)
                held = held.astype(np.str_) if held.dtype == object else held
                np.lib.format.write_array(file, held, allow_pickle=False)


def save(path: Path, value: npt.NDArray[Any]) -> None:
    """Write one array as ``.npy``.

    ``numpy.save`` writes to files by C, and its error does not say what is wrong (a full disk is "3 requested and 0
    written"); what is no file it writes to in pieces.

    Raises:
        OSError: with its number.
    """
    with path.open("wb") as file:
        np.lib.format.write_array(SimpleNamespace(write=file.write), value, allow_pickle=False)


def read(path: Path) -> Arrays:
    """All arrays of a file that :func:`write` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    return {name: value.astype(object) if value.dtype.kind == "U" else value for name, value in found.items()}
