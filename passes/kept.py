"""What finished parts of a job have found, kept in a folder: an interrupted job that is run again goes on from there.

Entries are addressed by content: by a hash of everything that they follow from (versions, model, inputs, options). So
nothing has to be told apart or cleaned up, several jobs may share a folder, and what is found there is what would be
computed again. An entry begins with a hash of itself: one that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from graphprune import __version__
from graphprune.errors import InputError
from graphprune.model import Model, commit
from graphprune.relation import Values
from graphprune.run.arrays import BROKEN, write
from graphprune.run.runtime import Feeds

Arrays = Mapping[str, Values]


class Keeping(Protocol):
    """Where arrays are kept, by what they follow from."""

    def on(self, *parts: object) -> Keeping:
        """Entries that follow from more."""

    def read(self, *parts: object) -> dict[str, Values] | None:
        """An entry; None where there is none."""

    def write(self, arrays: Arrays, *parts: object) -> None:
        """Keep an entry."""


@dataclass(frozen=True)
class Memory:
    """Entries for as long as a job runs."""

    entries: dict[tuple[str, ...], Arrays] = field(default_factory=dict)
    about: tuple[str, ...] = ()

    def on(self, *parts: object) -> Memory:
        """Entries that follow from more."""
        return Memory(self.entries, (*self.about, *map(repr, parts)))

    def read(self, *parts: object) -> dict[str, Values] | None:
        """An entry; None where there is none. Who gets one may change it."""
        found = self.entries.get((*self.about, *map(repr, parts)))
        return None if found is None else {name: value.copy() for name, value in found.items()}

    def write(self, arrays: Arrays, *parts: object) -> None:
        """Keep an entry."""
        key = (*self.about, *map(repr, parts))
        self.entries[key] = {name: np.array(value) for name, value in arrays.items()}


@dataclass(frozen=True)
class Kept:
    """A folder of entries.

    Attributes:
        folder: it is made when the first entry is written.
        about: what all entries of the job follow from, hashed.
        option: by which the user named the folder.
    """

    folder: Path
    about: str = ""
    option: str = "--resume"

    def on(self, *parts: object) -> Kept:
        """Entries that follow from more."""
        return Kept(self.folder, hashed(self.about, *map(repr, parts)), self.option)

    def read(self, *parts: object) -> dict[str, Values] | None:
        """An entry; None where there is none, or it is damaged."""
        try:
            held = self._place(*parts).read_bytes()
        except OSError:
            return None
        digest, body = held[:32], held[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, AttributeError, TypeError, *BROKEN):  # whole, and something else
            return None

    def write(self, arrays: Arrays, *parts: object) -> None:
        """Keep an entry; it appears whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        body = io.BytesIO()
        write(body, arrays)
        put(self._place(*parts), [hashlib.sha256(body.getbuffer()).digest(), body.getbuffer()], self.option)

    def _place(self, *parts: object) -> Path:
        return self.folder / f"{hashed(self.about, *map(repr, parts))}.part"


def about(model: Model, batches: Callable[[], Iterable[Feeds]], *options: object) -> str:
    """What a job's entries follow from: versions, the model with its weights, all inputs, and options."""
    versions = __version__, np.__version__, onnx.__version__, ort.__version__
    digest = hashlib.sha256()
    for feeds in batches():
        for name, value in sorted(feeds.items()):
            digest.update(repr((name, value.shape, value.dtype.str)).encode())
            digest.update(repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).data)
    return hashed(*versions, content(model), digest.hexdigest(), *map(repr, options))


def content(model: Model) -> str:
    """A hash of a model with all of its weights, wherever they lie."""
    digest = hashlib.sha256(model.proto.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            digest.update(np.ascontiguousarray(model.tensor_array(tensor)).tobytes())
    return digest.hexdigest()


def put(place: Path, parts: Iterable[bytes | memoryview], option: str) -> None:
    """Write a file; it appears whole or not at all, and its folder with it.

    Args:
        place: the file.
        parts: what it holds.
        option: by which the user named its folder.

    Raises:
        InputError: it cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, made = commit.waiting(place.parent, place.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(parts)
            commit.move([(made, place)])
        finally:
            commit.forget(made)
    except OSError as error:
        raise InputError(f"{option} {place.parent}: cannot be written ({error.strerror or error})") from error


def hashed(*parts: str) -> str:
    """A hash of some texts, each apart from the next."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()
