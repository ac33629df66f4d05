"""Named arrays in a ``.npz`` file. ``numpy.savez`` takes names as keywords, so that none may be called ``file``.

Strings, which ONNX Runtime takes as objects, are written as text: nothing is pickled. What a header declares is held
against what is there, and against the memory that is allowed, before it is read.
"""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graphprune.errors import InputError
from graphprune.model import limits
from graphprune.relation import Shape

Arrays = dict[str, npt.NDArray[Any]]
BROKEN = (
    *(ValueError, EOFError, SyntaxError, tokenize.TokenError),  # of NumPy, which parses heads as Python
    *(KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),  # of archives
)
"""What reading a file raises that is no such file, or a broken or encrypted one, beside :exc:`OSError`."""
_HEADER = 10_000
"""Bytes of the longest header that NumPy reads of a stranger's file."""


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
    """All arrays of a file, as :func:`write` writes them; raises what :func:`check` does."""
    check(path)
    with np.load(path, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    return {name: value.astype(object) if value.dtype.kind == "U" else value for name, value in found.items()}


def check(path: Path) -> None:
    """See before they are read that a file has room for its arrays, and holds what they declare.

    Raises:
        InputError: there is no room for them.
        ValueError: one declares more than is there; or another of :data:`BROKEN`.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if (told := limits.too_many(sum(member.file_size for member in members))) is not None:
            raise InputError(f"{path}: its arrays take {told}")
        for member in members:
            with archive.open(member) as file:
                shape, _, dtype = header(file)
                check_size(shape, dtype, member.file_size, member.filename)


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array of a ``.npy`` file, which stays there until it is read.

    Raises:
        ValueError: it is no such file, declares more than is there, or holds objects.
    """
    if zipfile.is_zipfile(path):
        raise ValueError("it holds several arrays: call it .npz")
    with path.open("rb") as file:
        shape, _, dtype = header(file)
        check_size(shape, dtype, path.stat().st_size, path.name)
    return np.load(path, mmap_mode="r" if prod(shape) else None, allow_pickle=False)


def header(file: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of an array whose file begins here (NumPy's NEP 1).

    Raises:
        ValueError: it is none, or its header is longer than any.
    """
    version = np.lib.format.read_magic(file)
    wide = version != (1, 0)
    length = file.read(4 if wide else 2)
    if len(length) < (4 if wide else 2):
        raise ValueError("it ends in its header")
    (size,) = struct.unpack("<I" if wide else "<H", length)
    if size > _HEADER:
        raise ValueError(f"its header has {size:,} bytes, and at most {_HEADER:,} are read")
    text = BytesIO(length + file.read(size))
    read_header = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
    shape, fortran, dtype = read_header(text)
    return shape, fortran, dtype


def check_size(shape: Shape, dtype: np.dtype[Any], there: int, name: str) -> None:
    """Raise ValueError where an array declares more bytes than are there, or has a size below 0."""
    declared = prod(shape) * dtype.itemsize
    if declared > there or min(shape, default=0) < 0:
        raise ValueError(f"{name!r} declares {limits.shown(shape)}, {limits.told(declared)}, and holds {there} bytes")
