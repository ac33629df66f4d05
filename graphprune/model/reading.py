"""A file or its bytes, read as a proto; what cannot be read is told in one line."""

from __future__ import annotations

import re
import warnings
from math import prod
from pathlib import Path

import onnx
from google.protobuf import json_format, message, text_format
from onnx import ModelProto, TensorProto, helper

from graphprune.errors import InputError

_UNREADABLE = (message.Error, json_format.Error, text_format.Error, onnx.parser.ParseError, ValueError, TypeError)
"""What the parsers of ONNX's formats raise, binary, JSON and text; the suffix of a file says which one reads it."""


_HEAD = 4096


def parsed(data: bytes) -> ModelProto:
    """A model from the bytes of a file."""
    try:
        return ModelProto.FromString(data)
    except message.DecodeError as error:
        raise InputError(f"not an ONNX model, or truncated: {len(data)} bytes that hold none") from error


def read(path: Path) -> ModelProto:
    """A model from a file, binary, JSON or text as its suffix says; external data stays where it is."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The onnxtxt format is experimental")
            return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _UNREADABLE as error:
        if (kind := _other(path)) is not None:
            raise InputError(f"{path}: is a {kind} of graphprune, and no model; see 'graphprune --help'") from error
        raise InputError(f"{path}: not an ONNX model, or truncated ({_reason(error)})") from error


def _other(path: Path) -> str | None:
    """What else of this program a file is, as ``plan``, by the format that its head names; None where it is nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode(errors="strict")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"\bformat\"?\s*[:=]\s*\"graphprune-(\w+)/", head)
    return found and found[1]


def _reason(error: BaseException) -> str:
    """What a parser says, without the lists that follow its first line; ONNX's own has its reason in the last."""
    text = error.args[0] if error.args else ""
    lines = (text.decode(errors="replace") if isinstance(text, bytes) else str(error)).strip().splitlines()
    if isinstance(error, onnx.parser.ParseError):
        return " ".join(lines)
    return lines[0] if lines else type(error).__name__


def complete(tensor: TensorProto) -> bool:
    """Whether raw data has the length that dims and type ask for; typed fields are read when used."""
    if not tensor.HasField("raw_data"):
        return True
    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        return False
    count = prod(tensor.dims)
    packed = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
    expected = (count + 1) // 2 if packed else count * size
    return tensor.data_type > TensorProto.FLOAT4E2M1 or _raw_length(tensor, expected) == expected


def _raw_length(tensor: TensorProto, expected: int) -> int:
    """Bytes of raw data, read off the size of the message where that says it: asking for the data would copy it."""
    rest = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=b"")
    for key in ("name", "doc_string"):
        if tensor.HasField(key):
            setattr(rest, key, getattr(tensor, key))
    digits = max(expected.bit_length() + 6, 7) // 7  # of the length, as a varint, where an empty one has one
    if tensor.ByteSize() - rest.ByteSize() == expected + digits - 1:
        return expected
    return len(tensor.raw_data)
