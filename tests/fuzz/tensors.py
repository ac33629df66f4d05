"""Mutations of weights, and of what a graph says about its inputs, outputs and tensors."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tests.fuzz.nodes import NUMBERS, REALS, Mutation, graphs, some_tensor

SIZES = (0, 1, -1, 2, 3, 5, 1000, 2**20, 2**31, 2**40, 2**62)
KINDS = tuple(range(0, 25))


def _some(model: ModelProto, random: Random) -> TensorProto | None:
    """A weight, or the value of a Constant."""
    found = [t for g in graphs(model) for t in g.initializer]
    found += [a.t for g in graphs(model) for n in g.node for a in n.attribute if a.HasField("t")]
    return random.choice(found) if found else None


def change(model: ModelProto, random: Random) -> bool:
    tensor = _some(model, random)
    if tensor is not None:
        disturb(tensor, random)
    return tensor is not None


def disturb(tensor: TensorProto, random: Random) -> None:
    """Another shape, type, place or other values of one tensor."""
    random.choice((_reshape, _retype, _values, _values, _length, _outside, _segment))(tensor, random)


def _reshape(tensor: TensorProto, random: Random) -> None:
    dims = list(tensor.dims)
    way = random.randrange(6)
    if way == 0 or not dims:
        dims.insert(random.randint(0, len(dims)), random.choice([1, 1, *SIZES]))
    elif way == 1:
        del dims[random.randrange(len(dims))]
    elif way == 2:
        random.shuffle(dims)
    elif way == 3:
        dims = [int(np.prod(dims, dtype=object))] if abs(int(np.prod(dims, dtype=object))) < 2**62 else dims
    else:
        dims[random.randrange(len(dims))] = random.choice(SIZES)
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _retype(tensor: TensorProto, random: Random) -> None:
    array = _held(tensor)
    if array is None or random.random() < 0.4:
        tensor.data_type = random.choice(KINDS)
        return
    kind = random.choice([np.float16, np.float64, np.int64, np.int32, np.uint8, np.bool_])
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(array.astype(kind), tensor.name))


def _values(tensor: TensorProto, random: Random) -> None:
    """NaN, infinite, huge or zero: one, some, a channel or all; of whole numbers any."""
    array = _held(tensor)
    if array is None or not array.size:
        return
    value = random.choice(REALS) if array.dtype.kind == "f" else random.choice(NUMBERS)
    way = random.randrange(4)
    place: object = ...
    if way == 0 and array.ndim:
        place = tuple(random.randrange(n) for n in array.shape)
    elif way == 1 and array.ndim:
        place = random.randrange(len(array))
    elif way == 2 and array.ndim:
        place = (..., random.randrange(array.shape[-1]))
    with np.errstate(all="ignore"):
        array[place] = np.array(value).astype(array.dtype)  # type: ignore[index]
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _held(tensor: TensorProto) -> np.ndarray | None:
    if tensor.data_type not in (1, 2, 3, 6, 7, 9, 10, 11, 12, 13) or tensor.data_location or tensor.external_data:
        return None
    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError):
        return None  # disturbed before


def _length(tensor: TensorProto, random: Random) -> None:
    """Data that is shorter, longer, of two fields, or not there."""
    way = random.randrange(4)
    if way == 0:
        tensor.raw_data = tensor.raw_data[: random.randint(0, len(tensor.raw_data))]
    elif way == 1:
        tensor.raw_data = tensor.raw_data + bytes(random.randint(1, 9))
    elif way == 2:
        tensor.float_data.extend([1.0] * random.randint(1, 3))
    else:
        tensor.ClearField("raw_data")


def _outside(tensor: TensorProto, random: Random) -> None:
    """External data: of no file, outside of the folder, at any place."""
    tensor.data_location = random.choice([TensorProto.EXTERNAL, TensorProto.EXTERNAL, 7])
    entries = {
        "location": random.choice(
            ["w.bin", "", "../x", "/etc/hostname", "/dev/zero", ".", "model.onnx", "a\0b", "x" * 5000]
        ),
        "offset": random.choice(["0", "-1", "x", "", "9" * 30, "1e3"]),
        "length": random.choice(["4", "-4", "x", "9" * 30, str(2**62), "0"]),
        "checksum": "no",
    }
    for key in random.sample(sorted(entries), random.randint(1, 4)):
        tensor.external_data.add(key=key, value=entries[key])
    if random.random() < 0.5:
        tensor.ClearField("raw_data")


def _segment(tensor: TensorProto, random: Random) -> None:
    tensor.segment.begin, tensor.segment.end = random.choice(NUMBERS), random.choice(NUMBERS)


def drop(model: ModelProto, random: Random) -> bool:
    weights = model.graph.initializer
    if len(weights):
        del weights[random.randrange(len(weights))]
    return True


def double(model: ModelProto, random: Random) -> bool:
    """A weight twice, or with the name of another tensor, or an input with a default."""
    weights = model.graph.initializer
    if not len(weights):
        return False
    tensor, way = random.choice(weights), random.randrange(4)
    if way == 0:
        weights.append(tensor)
    elif way == 1:
        tensor.name = some_tensor(model, random)
    elif way == 2:
        tensor.name = ""
    else:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return True


def sparse(model: ModelProto, random: Random) -> bool:
    """A weight as a sparse tensor, with indices that may not be right."""
    weights = [t for t in model.graph.initializer if (a := _held(t)) is not None and a.size]
    if not weights:
        return False
    tensor = random.choice(weights)
    array = np.array(numpy_helper.to_array(tensor)).reshape(-1)
    if array.dtype.kind in "f":
        array[: array.size // 2] = 0
    places = np.flatnonzero(array).astype(np.int64)
    values = numpy_helper.from_array(array[places], tensor.name)
    if random.random() < 0.5 and places.size:
        places[random.randrange(places.size)] = random.choice(NUMBERS)
    made = model.graph.sparse_initializer.add(dims=tensor.dims)
    made.values.CopyFrom(values)
    made.indices.CopyFrom(numpy_helper.from_array(places, ""))
    if random.random() < 0.8:
        model.graph.initializer.remove(tensor)
    return True


def _declared(model: ModelProto, random: Random) -> ValueInfoProto | None:
    graph = model.graph
    if random.random() < 0.15:
        graph = random.choice(graphs(model))
    found = random.choice([graph.input, graph.input, graph.output, graph.value_info])
    return random.choice(found) if len(found) else None


def declare(model: ModelProto, random: Random) -> bool:
    """Another shape or type of an input, an output, or a tensor."""
    value = _declared(model, random)
    if value is None:
        return False
    shape, way = value.type.tensor_type.shape.dim, random.randrange(8)
    if way == 0:
        value.type.tensor_type.elem_type = random.choice(KINDS)
    elif way == 1:
        value.type.tensor_type.ClearField("shape")
    elif way == 2:
        value.ClearField("type")
        kind = random.choice(["sequence_type", "optional_type", "map_type", "sparse_tensor_type", ""])
        if kind:
            getattr(value.type, kind).SetInParent()
    elif way == 3:
        value.name = random.choice(["", "renamed", some_tensor(model, random)])
    elif way == 4 or not len(shape):
        shape.add().dim_value = random.choice(SIZES)
    elif way == 5:
        del shape[random.randrange(len(shape))]
    else:
        one = random.choice(shape)
        if random.random() < 0.4:
            one.dim_param = random.choice(["", "n", "batch", "a+b", "é", "n*2"])
        else:
            one.dim_value = random.choice(SIZES)
    return True


def interface(model: ModelProto, random: Random) -> bool:
    """An input or output less, twice, or more: any tensor."""
    graph, way = model.graph, random.randrange(4)
    part = random.choice([graph.input, graph.output])
    if way == 0 and len(part):
        del part[random.randrange(len(part))]
    elif way == 1 and len(part):
        part.append(random.choice(part))
    elif way == 2:
        graph.output.append(ValueInfoProto(name=some_tensor(model, random)))
    else:
        graph.output.append(helper.make_tensor_value_info(some_tensor(model, random), TensorProto.FLOAT, None))
    return True


def told(model: ModelProto, random: Random) -> bool:
    """What is said of tensors inside: nothing, twice, or something wrong."""
    said, way = model.graph.value_info, random.randrange(3)
    if way == 0:
        del said[:]
    elif way == 1 and len(said):
        said.append(random.choice(said))
    else:
        shape = [random.choice(SIZES) for _ in range(random.randint(0, 4))]
        said.append(helper.make_tensor_value_info(some_tensor(model, random), random.choice([1, 7, 10, 9]), shape))
    return True


MUTATIONS: tuple[Mutation, ...] = (change, change, change, drop, double, sparse, declare, declare, interface, told)
