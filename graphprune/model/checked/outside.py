"""What tensors say of data outside of their file: is it there, in the model's folder, and long enough."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto

from graphprune.errors import InputError
from graphprune.model.checked import text

_PLACES = ("location", "offset", "length")
_LONGEST = 18
"""Digits of a number of bytes, which 64 bits hold."""


@dataclass
class Outside:
    """Files beside a model, each looked at once.

    Attributes:
        folder: of the model; the working folder for one that is in memory.
        own: the model's own file, wherever a link to it leads.
    """

    folder: Path
    own: Path | None = None
    _sizes: dict[str, int] = field(default_factory=dict)

    def see(self, tensor: TensorProto, label: str, size: int) -> None:
        """See that the data of a tensor lies where it says.

        Args:
            tensor: it; its dims and type are known to be right.
            label: the model, and what to call the tensor.
            size: bytes of its elements.

        Raises:
            InputError: it does not, or what is said of it is no place.
        """
        if tensor.data_type == TensorProto.STRING:
            raise InputError(f"{label} holds strings, which cannot lie outside of the model; write them into it")
        entries: dict[str, str] = {}
        for entry in tensor.external_data:
            text.see((entry.key, entry.value), f"{label}: external data")
            if entry.key in _PLACES and entry.key in entries:
                raise InputError(f"{label} says the {entry.key} of its external data twice; save the model again")
            entries[entry.key] = entry.value
        offset, length = (_number(entries.get(key), key, label) for key in _PLACES[1:])
        if length and length != size:
            raise InputError(f"{label} takes {size:,} bytes, and {length:,} of external data; save the model again")
        name = entries.get("location", "")
        if name not in self._sizes:
            self._sizes[name] = self._measure(name, label)
        if offset + size > self._sizes[name]:
            raise InputError(
                f"{label}: its external data {name!r} ends before it does, at {self._sizes[name]:,} of "
                f"{offset + size:,} bytes; copy the whole file beside the model"
            )

    def _measure(self, name: str, label: str) -> int:
        if not name or "\0" in name:
            raise InputError(f"{label} lies outside of the model, at no place ({name!r}); save the model again")
        try:
            if self.own is not None and name == self.own.name:
                return self.own.stat().st_size
            folder = self.folder.resolve()
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise InputError(
                    f"{label} points outside the model's folder, to {name!r}, and nothing is read there; move that "
                    "file beside the model, and save the model again"
                )
            found = path.stat()
        except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before Python 3.13
            raise InputError(
                f"{label}: its external data {name[:200]!r} is missing ({getattr(error, 'strerror', None) or error}); "
                "put it beside the model"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{label}: its external data {name!r} is no file, so that it is missing; put it there")
        return found.st_size


def _number(value: str | None, key: str, label: str) -> int:
    """A number of bytes; 0 where none is given, which is what ONNX Runtime takes a length of 0 for too."""
    if value is None:
        return 0
    if not re.fullmatch(r"[0-9]+", value) or len(value.lstrip("0")) > _LONGEST:
        raise InputError(f"{label} has {value[:40]!r} as the {key} of its external data: no number; save it again")
    return int(value)
