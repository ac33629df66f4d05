"""A model file without its large weights: each of these is a place in the file, as one of external data is.

A file is parsed by hand as far as the wire format of protobuf goes (https://protobuf.dev/programming-guides/encoding):
``ModelProto.graph``, in it ``GraphProto.initializer``, in it ``TensorProto.raw_data``, which is left where it is. All
else is parsed by protobuf itself. The tensor says where its data lies by the fields of external data, with the model's
own file as their location; so there is one way in which weights are read, cut and written, wherever they lie.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import message
from onnx import GraphProto, ModelProto, TensorProto

from graphprune.model.checked import tensors
from graphprune.model.storage import varint

LARGE = 64 << 20
"""Bytes of a file from which on its weights stay in it."""
LEAST = 1 << 16
"""Bytes of a weight that does."""
_MOST = 64
"""Fields that a tensor with raw data has at most; numbers may have a field each."""
_BYTES, _WIDTHS = 2, {1: 8, 5: 4}
_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

Field = tuple[int, int, int, int]
"""Number of a field (0 where it is a number), where it begins, where its value does, and where it ends."""


class _Odd(Exception):
    """The file is none, or has a form that is left to protobuf."""


def read(path: Path) -> ModelProto | None:
    """A model whose large weights stay in its file; None where it is small, or of a form that is left to protobuf.

    Raises:
        OSError: the file cannot be read.
    """
    if path.stat().st_size < LARGE:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return ModelProto.FromString(_model(data, path.name))
        except (_Odd, IndexError, message.DecodeError):
            return None


def own(tensor: TensorProto, path: Path | None) -> bool:
    """Whether the data of a tensor lies in the file of its model, or did before it was cut."""
    return path is not None and any(e.key == "location" and e.value == path.name for e in tensor.external_data)


def place(tensor: TensorProto, location: str, offset: int | None, length: int) -> None:
    """Let a tensor say where its data lies; what is yet to be made has no offset."""
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))


def _model(data: mmap.mmap, name: str) -> bytes:
    fields = list(_fields(data, 0, len(data)))
    graphs = [field for field in fields if field[0] == _GRAPH]
    if len(graphs) != 1:
        raise _Odd
    _, start, inside, end = graphs[0]
    graph = _graph(data, inside, end, name)
    return data[:start] + _tag(_GRAPH) + varint(len(graph)) + graph + data[end:]


def _graph(data: mmap.mmap, start: int, end: int, name: str) -> bytes:
    found, kept = [], start
    for number, begin, inside, after in _fields(data, start, end):
        if number == _INITIALIZER and after - inside >= LEAST and (tensor := _tensor(data, inside, after, name)):
            found += [data[kept:begin], _tag(_INITIALIZER), varint(len(tensor)), tensor]
            kept = after
    return b"".join([*found, data[kept:end]])


def _tensor(data: mmap.mmap, start: int, end: int, name: str) -> bytes | None:
    """A tensor without its raw data; None where it is to be left as it is."""
    fields = []
    for field in _fields(data, start, end):
        fields.append(field)
        if len(fields) > _MOST:
            return None
    raw = [field for field in fields if field[0] == _RAW]
    if len(raw) != 1 or raw[0][3] - raw[0][2] < LEAST:
        return None
    _, begin, inside, after = raw[0]
    tensor = TensorProto.FromString(data[start:begin] + data[after:end])
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data or not _plain(tensor):
        return None
    if any(d < 0 for d in tensor.dims) or tensors.size(tensor) != after - inside:
        return None
    place(tensor, name, inside, after - inside)
    return tensor.SerializeToString(deterministic=True)


def _plain(tensor: TensorProto) -> bool:
    """Whether a tensor is of numbers that take whole bytes each."""
    kind = tensor.data_type
    return tensors.known(kind) and kind != TensorProto.STRING and tensors.width(kind) % 8 == 0


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """Fields of a message, in their order."""
    at = start
    while at < end:
        tag, inside = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, after = _varint(data, inside)
        elif kind == _BYTES:
            length, inside = _varint(data, inside)
            after = inside + length
        elif kind in _WIDTHS:
            after = inside + _WIDTHS[kind]
        else:
            raise _Odd
        if number == 0 or after > end:
            raise _Odd
        yield number if kind == _BYTES else 0, at, inside, after
        at = after


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _Odd


def _tag(number: int) -> bytes:
    return varint(number << 3 | _BYTES)
