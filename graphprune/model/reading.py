"""A file or its bytes, read as a proto; what cannot be read is told in one line."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
from google.protobuf import json_format, message, text_format
from onnx import ModelProto

from graphprune.errors import InputError
from graphprune.model import skeleton
from graphprune.model.checked import kinds

_UNREADABLE = (message.Error, json_format.Error, text_format.Error, onnx.parser.ParseError, ValueError, TypeError)
"""What the parsers of ONNX's formats raise, binary, JSON and text; the suffix of a file says which one reads it."""


def parsed(data: bytes) -> ModelProto:
    """A model from the bytes of a file."""
    try:
        return ModelProto.FromString(data)
    except message.DecodeError as error:
        told = (kind := kinds.other(data[: kinds.HEAD])) and f"; they are {kind}"
        raise InputError(f"not an ONNX model, or truncated: {len(data)} bytes that hold none{told or ''}") from error


def read(path: Path) -> ModelProto:
    """A model from a file, binary, JSON or text as its suffix says.

    External data stays where it is, and so do weights of a large binary file.
    """
    try:
        if onnx.serialization.registry.get_format_from_file_extension(path.suffix) in (None, "protobuf"):
            found = skeleton.read(path)
            if found is not None:
                return found
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The onnxtxt format is experimental")
            found = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _UNREADABLE as error:
        _tell(path)
        raise InputError(f"{path}: not an ONNX model, or truncated ({_reason(error)})") from error
    if not found.HasField("graph"):
        _tell(path)
    return found


def _tell(path: Path) -> None:
    """Say what a file is that is no model, where something tells."""
    with path.open("rb") as file:
        kind = kinds.other(file.read(kinds.HEAD))
    if kind is not None:
        raise InputError(f"{path}: is {kind}")


def _reason(error: BaseException) -> str:
    """What a parser says, without the lists that follow its first line; ONNX's own has its reason in the last."""
    text = error.args[0] if error.args else ""
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else str(error)).strip().splitlines()
    if isinstance(error, onnx.parser.ParseError):
        return " ".join(lines)
    return lines[0] if lines else type(error).__name__
