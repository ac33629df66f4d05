"""Weights of training code on disk: safetensors, and PyTorch's own files where torch is installed."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.errors import BackendError, InputError
from graphprune.model import limits, paths
from graphprune.model.files import atomically
from graphprune.relation import Values

_TORCH = (".pt", ".pth", ".bin", ".ckpt")


@dataclass
class Checkpoint:
    """Tensors of a file, and what else it holds.

    Attributes:
        tensors: by name, in the file's order.
        metadata: of a safetensors file.
        half: names of tensors that are bfloat16 in the file and float32 here.
    """

    tensors: dict[str, Values]
    metadata: dict[str, str] | None = None
    half: frozenset[str] = frozenset()


def read(path: Path) -> Checkpoint:
    """Read a state dict.

    Raises:
        InputError: no such file, or not a state dict.
        BackendError: the library that reads it is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    paths.reads("the state dict", path)
    if (told := limits.too_many(_held(path))) is not None:
        raise InputError(f"{path}: its tensors take {told}")
    return _read_torch(path) if path.suffix in _TORCH else _read_safetensors(path)


def _held(path: Path) -> int:
    """Bytes of what a file holds: PyTorch's are archives, whose parts may be deflated."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(part.file_size for part in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a state dict ({error})") from error


def write(path: Path, tensors: Mapping[str, Values], like: Checkpoint) -> None:
    """Write a state dict, in the format that the name ends with.

    Raises:
        BackendError: the library that writes it is not installed.
    """
    if path.suffix in _TORCH:
        torch = library("torch")
        made = {n: torch.from_numpy(np.array(v)) for n, v in tensors.items()}
        made = {n: v.to(torch.bfloat16) if n in like.half else v for n, v in made.items()}
        atomically(path, lambda file: torch.save(made, file))
        return
    numpy = library("safetensors.numpy")
    if like.half:
        types = library("ml_dtypes")
        tensors = {n: v.astype(types.bfloat16) if n in like.half else v for n, v in tensors.items()}
    data = numpy.save({n: np.ascontiguousarray(v) for n, v in tensors.items()}, like.metadata)
    head, rest = _ordered(data)
    atomically(path, lambda file: file.write(head) + file.write(rest))


def _ordered(data: bytes) -> tuple[bytes, memoryview]:
    """The head of a safetensors file with its metadata sorted, and what follows; the library's order is by chance."""
    end = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:end])
    if "__metadata__" in head:
        head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as the library aligns it
    return len(text).to_bytes(8, "little") + text, memoryview(data)[end:]


def _read_safetensors(path: Path) -> Checkpoint:
    reader = library("safetensors")
    tensors: dict[str, Values] = {}
    half = set()
    try:
        with reader.safe_open(str(path), framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if file.get_slice(name).get_dtype() == "BF16":
                    half.add(name)
                tensors[name] = _single(file.get_tensor(name))
            return Checkpoint(tensors, file.metadata(), frozenset(half))
    except Exception as error:  # its errors share no base class
        raise InputError(f"{path}: not a safetensors file ({error}); PyTorch's end with .pt or .pth") from error


def _read_torch(path: Path) -> Checkpoint:
    torch = library("torch")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise InputError(f"{path}: not a state dict that torch.load reads: {str(error).splitlines()[0]}") from error
    for key in ("state_dict", "model", "module"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(v, torch.Tensor) for v in held.values()):
        raise InputError(f"{path}: not a state dict: it holds more than tensors by name")
    if (told := limits.too_many(sum(v.numel() * v.element_size() for v in held.values()))) is not None:
        raise InputError(f"{path}: its tensors declare {told}")  # one number, repeated, may be a tensor of any size
    half = frozenset(n for n, v in held.items() if v.dtype == torch.bfloat16)
    return Checkpoint({n: (v.float() if n in half else v).numpy() for n, v in held.items()}, None, half)


def _single(value: Values) -> Values:
    return value.astype(np.float32) if value.dtype.kind == "V" or value.dtype.name == "bfloat16" else value


def library(name: str) -> Any:
    """An optional library.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise BackendError(f"{package} is not installed: pip install {package}") from error
