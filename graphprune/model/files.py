"""Writing: whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from graphprune.errors import FaultError, InputError
from graphprune.model import Model, commit, paths, skeleton, storage
from graphprune.model.checked import tensors
from graphprune.model.external import sources
from graphprune.model.messages import copy_all_but

_ALIGNMENT = 4096
_SMALL = 1024
_INSIDE = (1 << 31) - 1
"""Bytes that one protobuf message may have."""


def atomically(path: Path, write: Callable[[BinaryIO], object]) -> int:
    """Write a file beside its place, to appear there when it is complete and the run commits (see ``paths``).

    Returns:
        Bytes written.

    Raises:
        InputError: the folder is not there or cannot be written, the disk is full, or a folder has the file's name.
    """
    handle, temporary = paths.waiting(path)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        with suppress(PermissionError):  # not every file system has rights
            temporary.chmod(0o666 & ~_umask())
        size = temporary.stat().st_size
        paths.finished(temporary, path)
    except BaseException as error:
        commit.forget(temporary)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # else of a file that is read
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        raise
    return size


def declare(model: Model, output: paths.AnyPath | None, plan: paths.AnyPath | None = None) -> None:
    """Declare the files that a model is to be written to, and its plan: before anything is computed.

    Raises:
        InputError: one of them is read, or is another of them too, or cannot be written, or the disk has no room.
    """
    if output is None:
        if plan is not None:
            raise InputError(f"{plan}: is where the plan goes of a model that is written; say where that goes, by -o")
        return
    path = Path(output)
    paths.writes(paths.OUTPUT, path)
    if _outside(model) and not paths.is_stream(path):
        paths.writes(paths.DATA, data_place(path))
    paths.writes("the plan", plan_place(path, plan))
    _room(model, path)


def _room(model: Model, path: Path) -> None:
    """See that the disk has room for all of a model: what is written is no larger."""
    if paths.is_stream(path):
        return
    wanted = sum(tensors.size(tensor) for tensor in model.graph.initializer)
    try:
        free = shutil.disk_usage(path.resolve().parent).free
    except OSError:  # told when it is written
        return
    if free < wanted:
        raise InputError(
            f"{path}: the disk has {free / 1e9:.1f} GB free, and up to {wanted / 1e9:.1f} GB are written; free some, "
            "or write to another disk"
        )


def data_place(path: Path) -> Path:
    """Where the external data of a model goes."""
    return path.with_name(path.name + ".data")


def plan_place(output: Path, plan: paths.AnyPath | None = None) -> Path | None:
    """Where the plan goes: where it is asked for, or beside the model; a stream has nothing beside it."""
    return Path(plan) if plan is not None else beside(output, "plan")


def beside(output: Path, kind: str) -> Path | None:
    """Where something else about a model goes; a stream has nothing beside it.

    Args:
        output: where the model goes.
        kind: of what is told, as ``plan``.
    """
    return None if paths.is_stream(output) else output.with_name(f"{output.name.removesuffix('.onnx')}.{kind}.json")


def save(model: Model, path: Path, external: bool | None = None) -> int:
    """Write a model; weights go to ``<name>.data`` beside it where the original kept them outside too, or must.

    Args:
        model: the model.
        path: the file to write, or a stream, which holds all.
        external: whether weights go outside; by default as the original had it, and where one file cannot hold them.

    Returns:
        Bytes written.

    Raises:
        InputError: it cannot be written there, or over 2 GiB are to go into a stream.
    """
    if external is None:
        external = _outside(model)
    read = sources(model.proto, model.path)
    paths.apart(paths.OUTPUT, path, read)
    if paths.is_stream(path) and size(model) > _INSIDE:
        raise InputError(f"{path}: no stream holds a model of over 2 GiB, whose weights go beside it; give a file")
    if not external or paths.is_stream(path):
        return atomically(path, lambda file: _write_model(model, file))
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    data = data_place(path)
    paths.apart(paths.DATA, data, read)

    def write(file: BinaryIO) -> None:
        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.STRING or tensor.name in model.stored:
                continue
            _write_tensor(model, tensor, file, data.name)
        storage.encode_all(proto, model.stored, model.tensor_array)
        for sparse in proto.graph.sparse_initializer:  # their places stay inside, where checkers read them
            _put(sparse.values, sparse.values.raw_data, file, data.name)

    written = atomically(data, write)
    return written + atomically(path, lambda file: file.write(proto.SerializeToString(deterministic=True)))


def outside(model: Model, tensor: TensorProto) -> bool:
    """Whether a tensor lies in another file than the model's own, or comes from there."""
    return tensor.data_location == TensorProto.EXTERNAL and not skeleton.own(tensor, model.path)


def _outside(model: Model) -> bool:
    """Whether weights of a model are kept outside of its file: they are already, or no file could hold them."""
    return any(outside(model, t) for t in model.graph.initializer) or size(model) > _INSIDE


def deflated(model: Model) -> int:
    """Bytes of a model as an archive would hold it: its file, and what lies outside, deflated (RFC 1951)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        return sum(_deflated(part) for part in sorted(Path(folder).iterdir()))


def _deflated(path: Path) -> int:
    packer, size = zlib.compressobj(6), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def size(model: Model) -> int:
    """Bytes of a model whose weights all lie in its file."""
    head, graph, fields = _fields(model)
    length = len(graph) + sum(1 + len(storage.varint(size)) + size for _, size in fields)
    return len(head) + 1 + len(storage.varint(length)) + length


def _write_model(model: Model, file: BinaryIO) -> None:
    """The bytes of a model, one weight at a time: a protobuf message is the sum of its fields, in any order."""
    head, graph, fields = _fields(model)
    length = len(graph) + sum(1 + len(storage.varint(size)) + size for _, size in fields)
    file.write(head + _GRAPH + storage.varint(length) + graph)
    for tensor, size in fields:
        file.write((_SPARSE if tensor.name in model.stored else _INITIALIZER) + storage.varint(size))
        if tensor.name in model.stored:
            file.write(storage.encode(tensor, model.tensor_array(tensor)).SerializeToString(deterministic=True))
        elif not _apart(model, tensor):
            file.write(tensor.SerializeToString(deterministic=True))
        else:
            before, length, after = _around(tensor)
            file.write(before + _RAW + storage.varint(length))
            _put_data(model, tensor, file)
            file.write(after)


def _fields(model: Model) -> tuple[bytes, bytes, list[tuple[TensorProto, int]]]:
    """What a model holds beside its graph, its graph without initializers, and these with their bytes."""
    head, graph, proto = ModelProto(), ModelProto(), model.proto
    copy_all_but(proto, head, {"graph"})
    copy_all_but(proto.graph, graph.graph, {"initializer"})
    if model.stored:
        graph.functions.extend(head.functions)
        storage.encode_all(graph, model.stored, model.tensor_array)
        del head.functions[:]
        head.functions.extend(graph.functions)
        head.ir_version = max(head.ir_version, storage.IR_VERSION)
    sizes = [(tensor, _inside(model, tensor)) for tensor in proto.graph.initializer]
    return head.SerializeToString(deterministic=True), graph.graph.SerializeToString(deterministic=True), sizes


def _apart(model: Model, tensor: TensorProto) -> bool:
    """Whether the data of a tensor is not in it."""
    return tensor.data_location == TensorProto.EXTERNAL or tensor.name in model.lazy


def _inside(model: Model, tensor: TensorProto) -> int:
    """Bytes of a tensor that holds its data, as it is stored."""
    if tensor.name in model.stored:
        return storage.encode(tensor, model.tensor_array(tensor)).ByteSize()
    if not _apart(model, tensor):
        return tensor.ByteSize()
    before, length, after = _around(tensor)
    return len(before) + len(_RAW) + len(storage.varint(length)) + length + len(after)


def _around(tensor: TensorProto) -> tuple[bytes, int, bytes]:
    """What stands before the data of a tensor that holds it, the bytes of that, and what stands behind."""
    before, after = TensorProto(), TensorProto()
    copy_all_but(tensor, before, {"data_location", "external_data", *_DATA, *_BEHIND})
    copy_all_but(tensor, after, {field.name for field in tensor.DESCRIPTOR.fields} - _BEHIND)
    return (
        before.SerializeToString(deterministic=True),
        tensors.size(tensor),
        after.SerializeToString(deterministic=True),
    )


def _put_data(model: Model, tensor: TensorProto, file: BinaryIO) -> None:
    """Write the data of a tensor: as it lies in another file, as it is made now, or as the tensor holds it."""
    if _apart(model, tensor) and tensor.name not in model.lazy:
        source, start, length = model.external(tensor)
        with open(source, "rb") as old:
            old.seek(start)
            _copy(old, file, length)
        return
    value = model.tensor_array(tensor)
    data: bytes | memoryview
    if tensors.width(tensor.data_type) % 8:  # several elements share a byte
        data = numpy_helper.from_array(value).raw_data
    else:
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    if len(data) != tensors.size(tensor):
        raise FaultError(f"{model.name}: tensor {tensor.name!r} is of {len(data)} bytes, not {tensors.size(tensor)}")
    file.write(data)


_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_BEHIND = {"doc_string", "metadata_props"}
"""Fields of a tensor that stand behind its data."""
_RAW = bytes([TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number << 3 | 2])
_GRAPH = bytes([ModelProto.DESCRIPTOR.fields_by_name["graph"].number << 3 | 2])
_INITIALIZER = bytes([GraphProto.DESCRIPTOR.fields_by_name["initializer"].number << 3 | 2])
_SPARSE = bytes([GraphProto.DESCRIPTOR.fields_by_name["sparse_initializer"].number << 3 | 2])


def _write_tensor(model: Model, tensor: TensorProto, file: BinaryIO, location: str) -> None:
    if not _apart(model, tensor) and (tensor.ByteSize() < _SMALL or tensor.data_type == TensorProto.STRING):
        return  # small tensors stay inside, where shape inference can read them, and strings can lie nowhere else
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset = file.tell()
    _put_data(model, tensor, file)
    _point(tensor, location, offset, file.tell() - offset)


def _put(tensor: TensorProto, data: bytes, file: BinaryIO, location: str) -> None:
    """Move the data of a tensor outside, unless it is small."""
    if tensor.ByteSize() < _SMALL:
        return
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset = file.tell()
    file.write(data)
    _point(tensor, location, offset, len(data))


def _point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Let a tensor say where its data lies."""
    for field in _DATA:
        tensor.ClearField(field)
    skeleton.place(tensor, location, offset, length)


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    while length > 0:
        chunk = source.read(min(length, 1 << 22))
        if not chunk:
            raise InputError("external data ends too early")
        target.write(chunk)
        length -= len(chunk)


def plain(data: Any) -> Any:
    """Data that JSON can hold: it knows no NaN and no infinity, which become null."""
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON, whole or not at all (see :func:`json_text`)."""
    text = json_text(data)
    atomically(path, lambda file: file.write(text.encode()))


def json_text(data: dict[str, Any]) -> str:
    """JSON as files hold it; each entry of a list at the top stands on a line of its own."""
    parts = []
    for key, value in data.items():
        entries = ",\n  ".join(map(_json, value)) if isinstance(value, list | tuple) else ""
        parts.append(f" {json.dumps(key)}: " + (f"[\n  {entries}\n ]" if entries else _json(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _json(value: Any) -> str:
    """JSON of a value on one line; only what holds a NaN or an infinity is gone through for it."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(plain(value))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
