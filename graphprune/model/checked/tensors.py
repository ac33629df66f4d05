"""Tensors of a proto: do they hold what their dims and type ask for."""

from __future__ import annotations

from math import prod

from onnx import SparseTensorProto, TensorProto, helper

from graphprune.errors import InputError
from graphprune.model.checked import text
from graphprune.model.checked.outside import Outside

_KINDS = dict(TensorProto.DataType.items())
_BITS = {
    **{_KINDS[name]: 4 for name in ("INT4", "UINT4", "FLOAT4E2M1")},
    **{kind: 2 for name, kind in _KINDS.items() if name in ("INT2", "UINT2")},
    **{kind: 6 for name, kind in _KINDS.items() if name.startswith("FLOAT6")},
}
"""Bits of an element, where that is no whole number of bytes."""
_PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MOST = 1 << 62


def known(kind: int) -> bool:
    """Whether a number is that of an element type."""
    return kind in _KINDS.values() and kind != TensorProto.UNDEFINED


def width(kind: int) -> int:
    """Bits of an element of a known type, strings apart."""
    return _BITS.get(kind) or int(helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8


def size(tensor: TensorProto) -> int:
    """Bytes that the elements of a tensor of a known type take; those of strings are counted as one each."""
    bits = 8 if tensor.data_type == TensorProto.STRING else width(tensor.data_type)
    return (prod(tensor.dims) * bits + 7) // 8


def see(tensor: TensorProto, label: str, outside: Outside) -> None:
    """See that a tensor holds its elements, or says where they lie.

    Args:
        tensor: it.
        label: the model, and what to call the tensor.
        outside: files beside the model.

    Raises:
        InputError: it does not.
    """
    text.see([tensor.name], label)
    dims, kind = tuple(tensor.dims), tensor.data_type
    if not known(kind):
        raise InputError(f"{label} has data type {kind}, and ONNX knows no such; write it again in one that it knows")
    if any(d < 0 for d in dims) or prod(dims) > _MOST:
        raise InputError(f"{label} has the dims {dims}, which no tensor can have; write it again")
    if tensor.HasField("segment"):
        raise InputError(f"{label} is stored in segments, which nothing reads; write it again in one piece")
    if tensor.data_location == TensorProto.EXTERNAL:
        outside.see(tensor, label, size(tensor))
    elif (held := _held(tensor)) is not None:
        raise InputError(f"{label} does not hold {dims} elements of {_name(kind)}: {held}; the file is cut or damaged")


def see_sparse(sparse: SparseTensorProto, label: str, outside: Outside) -> None:
    """The same of a sparse tensor; whether its places are right is seen when it is laid out (``storage``).

    Raises:
        InputError: it has no values of numbers, or no places, or dims that no tensor has.
    """
    see(sparse.values, f"{label}, values", outside)
    see(sparse.indices, f"{label}, indices", outside)
    dims = tuple(sparse.dims)
    if not dims or any(d < 0 for d in dims) or prod(dims) > _MOST:
        raise InputError(f"{label} has the dims {dims}, which no sparse tensor can have; write it again")
    if sparse.values.data_type == TensorProto.STRING or sparse.indices.data_type != TensorProto.INT64:
        raise InputError(f"{label} must hold numbers, and their places as INT64; write it again")


def _held(tensor: TensorProto) -> str | None:
    """What is wrong with the data that a tensor holds itself; None where it is whole."""
    count, kind, expected = prod(tensor.dims), tensor.data_type, size(tensor)
    if tensor.HasField("raw_data"):
        if kind == TensorProto.STRING:
            return "strings have no raw form"
        found = len(tensor.raw_data)  # a copy, which is cheaper than the message's own ByteSize()
        return None if found == expected else f"{found:,} bytes where {expected:,} belong"
    field = helper.tensor_dtype_to_field(kind)
    wanted = expected if kind in _BITS else count * 2 if kind in _PAIRS else count
    found = len(getattr(tensor, field))
    if found == wanted:
        return None
    other = next((name for name in _FIELDS if name != field and len(getattr(tensor, name))), None)
    return f"{found:,} in {field} where {wanted:,} belong" + (f", and some in {other}" if other else "")


def _name(kind: int) -> str:
    return TensorProto.DataType.Name(kind)
