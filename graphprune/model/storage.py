"""How weights with many zeros are stored: dense, or as ONNX's sparse tensors, which hold what is left and its places.

Such a tensor is a ``sparse_initializer`` of a graph, or the ``sparse_value`` of a Constant node. In memory every model
is dense: what a file stores sparse is laid out when it is loaded, and ``Model.stored`` names the constants that are
sparse in the file, and will be when it is written.

- Places are linear, one number for each element. The other form that ONNX has, a number for each axis, is larger.
- Places stand in ``int64_data``, where protobuf writes a number in as many bytes as it needs: 3 below 2 M, where
  ``raw_data`` takes 8. ONNX's checker wants 64 bits, and reads no places from an external file; values may lie there.
- An element is what has a bit set, so that -0.0 is one: what is read back is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from graphprune.errors import InputError
from graphprune.model import limits
from graphprune.model.bodies import subgraphs
from graphprune.relation import IntArray, Values

if TYPE_CHECKING:
    from graphprune.model.model import Model

IR_VERSION = 6
"""The first that has sparse tensors."""
OPSET = 11
"""The first in which a Constant node may hold one."""
TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
}
"""Types of weights that ONNX Runtime reads sparse: those of whole bytes."""

Part = GraphProto | FunctionProto


def lay_out(model: Model) -> None:
    """Make what a model stores sparse dense; whoever else holds its proto sees no change.

    Raises:
        InputError: a sparse tensor is not what the specification says.
    """
    if not any(_held(part) for part in parts(model.proto)):
        return
    _check_room(model)
    proto, read = ModelProto(), model.tensor_array
    proto.CopyFrom(model.proto)
    found: set[str] = set()
    for part in parts(proto):
        for node in part.node:
            sparse = _value(node)
            if sparse is not None:
                dense = _dense(model.name, node.output[0], sparse, read)
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("value", dense))
                found.add(node.output[0])
        if isinstance(part, GraphProto):
            found.update(sparse.values.name for sparse in part.sparse_initializer)
            _lay_out_initializers(model, part, main=part is proto.graph)
    model.proto, model.stored = proto, frozenset(found)


def _check_room(model: Model) -> None:
    """See before they are laid out that there is room for all sparse tensors of a model: dims of a few bytes say any.

    Raises:
        InputError: there is none.
    """
    total = 0
    for part in parts(model.proto):
        held = [(node.output[0], value) for node in part.node if (value := _value(node)) is not None]
        if isinstance(part, GraphProto):
            held += [(sparse.values.name, sparse) for sparse in part.sparse_initializer]
        for name, sparse in held:
            if (told := limits.too_large(sparse.dims, sparse.values.data_type)) is not None:
                raise InputError(f"{model.name}: sparse tensor {name!r} is laid out as {told}")
            total += limits.size(sparse.dims, sparse.values.data_type)
            if (told := limits.too_many(total)) is not None:
                raise InputError(f"{model.name}: its sparse tensors are laid out, up to {name!r} in {told}")


def _lay_out_initializers(model: Model, graph: GraphProto, main: bool) -> None:
    read = model.tensor_array
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        if main and sparse.values.data_location == TensorProto.EXTERNAL:  # stays there until it is asked for
            graph.initializer.append(_outside(name, sparse))
            model.lazy[name] = partial(_read, model.name, name, _twin(sparse), read)
        else:
            graph.initializer.append(_dense(model.name, name, sparse, read))
    del graph.sparse_initializer[:]


def parts(proto: ModelProto) -> Iterator[Part]:
    """Every graph and function of a model."""
    yield from _graphs(proto.graph)
    for function in proto.functions:
        yield function
        for node in function.node:
            for inner in subgraphs(node):
                yield from _graphs(inner)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


@dataclass(frozen=True)
class Constant:
    """A constant of a graph, and where it stands.

    Attributes:
        name: of the constant.
        tensor: its name, type, dims and elements, or where these are.
        graph: the graph that holds it, or holds the node.
        node: the Constant node that holds it; None of an initializer.
    """

    name: str
    tensor: TensorProto
    graph: GraphProto
    node: NodeProto | None = None


def constants(graph: GraphProto) -> Iterator[Constant]:
    """Constants of a graph and of those that it holds, which could be stored sparse but for their own kind."""
    for one in _graphs(graph):
        yield from (Constant(tensor.name, tensor, one) for tensor in one.initializer)
        for node in one.node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                dense = next((a.t for a in node.attribute if a.name == "value"), None)
                if dense is not None:
                    yield Constant(node.output[0], dense, one, node)


def _held(part: Part) -> bool:
    own = isinstance(part, GraphProto) and len(part.sparse_initializer) > 0
    return own or any(_value(node) is not None for node in part.node)


def _value(node: NodeProto) -> SparseTensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return next((a.sparse_tensor for a in node.attribute if a.name == "sparse_value"), None)


def encode(tensor: TensorProto, value: Values) -> SparseTensorProto:
    """A tensor as a sparse one.

    Args:
        tensor: its name, type, dims and documentation.
        value: its elements.
    """
    flat, bits = _bits(value)
    places = np.flatnonzero(bits)
    found = SparseTensorProto(dims=tensor.dims, indices=_indices(places))
    found.values.CopyFrom(numpy_helper.from_array(flat[places], tensor.name))
    _document(tensor, found.values)
    return found


@dataclass(frozen=True)
class Measure:
    """What a tensor would take as a sparse one.

    Attributes:
        left: how many elements it would hold.
        places: bytes of their places.
        size: bytes of it all.
    """

    left: int
    places: int
    size: int


def measure(tensor: TensorProto, value: Values) -> Measure:
    """What :func:`encode` would make, without making it."""
    bits = _bits(value)[1]
    left = int(np.count_nonzero(bits))
    places = left + sum(int(np.count_nonzero(bits[1 << 7 * size :])) for size in range(1, 9))
    bare = SparseTensorProto(dims=tensor.dims, indices=TensorProto(data_type=TensorProto.INT64, dims=[left]))
    values = TensorProto(dims=[left], data_type=tensor.data_type, name=tensor.name)
    _document(tensor, values)
    sizes = (
        values.ByteSize() + _field(left * bits.itemsize),
        bare.indices.ByteSize() + (_field(places) if places else 0),
    )
    bare.ClearField("indices")
    return Measure(left, places, bare.ByteSize() + sum(map(_field, sizes)))


def _field(size: int) -> int:
    """Bytes of a field that holds so many."""
    return 1 + len(varint(size)) + size


def _bits(value: Values) -> tuple[Values, Values]:
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat, flat.view(f"u{flat.itemsize}")


def _document(source: TensorProto, target: TensorProto) -> None:
    if source.HasField("doc_string"):
        target.doc_string = source.doc_string
    target.metadata_props.extend(source.metadata_props)


def _indices(places: IntArray) -> TensorProto:
    """Ascending numbers as a tensor, each in groups of 7 bits: written as protobuf does, without an object for each."""
    written, start = bytearray(), 0
    for size in range(1, 10):
        stop = int(np.searchsorted(places, 1 << 7 * size)) if size < 9 else len(places)
        group = np.empty((stop - start, size), np.uint8)
        for k in range(size):
            group[:, k] = places[start:stop] >> 7 * k & 0x7F | (0x80 if k + 1 < size else 0)
        written += group.tobytes()
        start = stop
    found = TensorProto(data_type=TensorProto.INT64, dims=[len(places)])
    number = TensorProto.DESCRIPTOR.fields_by_name["int64_data"].number
    if written:
        found.MergeFromString(bytes([number << 3 | 2]) + varint(len(written)) + bytes(written))
    return found


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def decode(sparse: SparseTensorProto, read: Callable[[TensorProto], Values]) -> Values:
    """The elements of a sparse tensor.

    Args:
        sparse: the tensor.
        read: reads a dense tensor.

    Raises:
        ValueError: it is not what the specification says; says why.
    """
    shape = tuple(sparse.dims)
    values, places = read(sparse.values).reshape(-1), read(sparse.indices).astype(np.int64)
    count, room = len(values), prod(shape)
    if places.shape == (count, len(shape)) and places.ndim == 2:
        if (places < 0).any() or (places >= np.array(shape)).any():
            raise ValueError(f"it has a place outside of {shape}")
        places = np.asarray(np.ravel_multi_index(tuple(places.T), shape), np.int64).reshape(-1)
    if places.shape != (count,):
        raise ValueError(f"it has {count} values, and places of shape {places.shape}")
    if count and (places[0] < 0 or places[-1] >= room or (places[1:] <= places[:-1]).any()):
        raise ValueError(f"its places do not ascend, each once, from 0 to below {room}")
    found = np.zeros(room, values.dtype)
    found[places] = values
    return found.reshape(shape)


def _dense(model: str, name: str, sparse: SparseTensorProto, read: Callable[[TensorProto], Values]) -> TensorProto:
    found = numpy_helper.from_array(_read(model, name, sparse, read), name)
    _document(sparse.values, found)
    return found


def _outside(name: str, sparse: SparseTensorProto) -> TensorProto:
    """A dense tensor whose values are yet to be made; where they come from stands in it as in any other."""
    found = TensorProto(name=name, dims=sparse.dims, data_type=sparse.values.data_type)
    found.data_location = TensorProto.EXTERNAL
    found.external_data.extend(sparse.values.external_data)
    return found


def _read(model: str, name: str, sparse: SparseTensorProto, read: Callable[[TensorProto], Values]) -> Values:
    nameless = _twin(sparse)
    nameless.values.ClearField("name")  # under it stands what is laid out
    try:
        return decode(nameless, read)
    except ValueError as error:
        raise InputError(f"{model}: sparse tensor {name!r} cannot be read: {error}; have it written again") from error


def _twin(sparse: SparseTensorProto) -> SparseTensorProto:
    found = SparseTensorProto()
    found.CopyFrom(sparse)
    return found


def encode_all(proto: ModelProto, stored: Set[str], array: Callable[[TensorProto], Values]) -> None:
    """Store constants of a model sparse, in its own graph and in all that it holds.

    Args:
        proto: the model; it is changed.
        stored: names of the constants.
        array: reads a dense tensor.
    """
    for part in parts(proto):
        for node in part.node:
            encode_node(node, stored, array)
        if not isinstance(part, GraphProto) or not any(t.name in stored for t in part.initializer):
            continue
        dense = [t for t in part.initializer if t.name not in stored]
        part.sparse_initializer.extend(encode(t, array(t)) for t in part.initializer if t.name in stored)
        del part.initializer[:]
        part.initializer.extend(dense)
    if stored:
        proto.ir_version = max(proto.ir_version, IR_VERSION)


def encode_node(node: NodeProto, stored: Set[str], array: Callable[[TensorProto], Values]) -> None:
    """Store the value of a Constant node sparse, where that is one of some constants."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or node.output[0] not in stored:
        return
    dense = next((a.t for a in node.attribute if a.name == "value"), None)
    if dense is not None:
        sparse = encode(dense, array(dense))
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("sparse_value", sparse))
