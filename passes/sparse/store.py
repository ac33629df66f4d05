"""The pass at the end that says how weights are stored: dense, or as ONNX's sparse tensors.

What a runtime computes is the same. ONNX Runtime reads sparse tensors, and makes them dense when it loads the model;
others, TensorRT among them, want dense ones. Which form is smaller is computed of each weight, whatever its pattern.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import ClassVar

from onnx import ModelProto, TensorProto

from graphprune.analysis.reasons import Reason
from graphprune.errors import InputError
from graphprune.model import Model, files, storage
from graphprune.model.storage import Constant
from graphprune.passes.contract import Pass
from graphprune.passes.judge import Validate
from graphprune.passes.sparse.sparse import Sparse
from graphprune.passes.sparse.stored_proof import Beside, prove
from graphprune.passes.state import State

STORES = ("dense", "sparse", "auto")
_LEAST = 256
"""Elements below which a tensor that the run did not make sparse stays dense: scales stand in such."""
_MOST = 1_800_000_000
"""Bytes that a model's file may hold where its weights lie outside: a protobuf message cannot hold 2 GiB."""
_OLDEST = 4
"""IR version before which every initializer is an input."""
_BEHIND = ("smaller", "validate")


@dataclass(frozen=True)
class Entry:
    """A weight that is stored sparse.

    Attributes:
        name: of the constant.
        elements: how many it has.
        left: how many of them are stored.
        dense, sparse: bytes in either form.
    """

    name: str
    elements: int
    left: int
    dense: int
    sparse: int


@dataclass(frozen=True)
class Dense(Reason):
    """Why a weight that the run made sparse is stored dense.

    Attributes:
        weight: name of the constant.
    """

    weight: str = field(kw_only=True)


@dataclass(frozen=True)
class Stored:
    """How weights are stored.

    Attributes:
        how: one of ``STORES``.
        weights: those that are stored sparse.
        dense: those that the run made sparse and that are stored dense, and why.
        beside: what files and loading take, beside the same model stored dense; None where nothing is stored sparse.
    """

    how: str
    weights: list[Entry] = field(default_factory=list)
    dense: list[Dense] = field(default_factory=list)
    beside: Beside | None = None


def check(how: str) -> None:
    """Raise InputError where there is no such way to store."""
    if how not in STORES:
        raise InputError(f"--store {how}: there is none of this name; choose from {', '.join(STORES)}")


@dataclass(frozen=True)
class Store(Pass):
    """Say how weights are stored.

    Attributes:
        how: ``dense``; ``sparse``, whatever the run made sparse; ``auto``, whatever is smaller so.
    """

    name: ClassVar[str] = "store"

    how: str = "auto"

    def requires(self, state: State) -> Sequence[str]:
        """What comes behind it only judges."""
        check(self.how)
        found = [
            f"{one.name!r} is ahead, and works on dense weights; put it before"
            for one in state.ahead
            if one.name not in _BEHIND
        ]
        if self.how != STORES[0] and any(isinstance(one, Validate) and one.tensorrt for one in state.ahead):
            found.append("TensorRT reads dense weights alone, and is to build the result; store it dense")
        return found

    def call(self, state: State) -> State:
        """Choose the weights that are stored sparse."""
        sparse = state.found(Sparse)
        made = frozenset() if sparse is None else frozenset(one.target.weight for one in sparse.thinned)
        if self.how == "sparse" and sparse is None:
            raise InputError("store: sparse is for what the run made sparse, which is nothing here; choose auto")
        found = Stored(self.how)
        if self.how != STORES[0]:
            found = choose(state.model, made, self.how)
        model = replace(state.model, stored=frozenset(entry.name for entry in found.weights))
        if state.model is state.original:  # whose proto is the user's
            model.proto = ModelProto()
            model.proto.CopyFrom(state.model.proto)
        after = state.having(found, model=model)
        if found.weights or self.how == STORES[0]:
            return after
        what = "is smaller" if self.how == "auto" else "can be stored"
        return after.noting(f"no weight {what} as a sparse tensor: all are stored dense")

    def proves(self, state: State) -> bool:
        """Where something is stored sparse, and proofs are asked for."""
        return self.how != STORES[0] and state.job.prove

    def ensures(self, before: State, after: State) -> State:
        """The file passes ONNX's checker, holds the same weights, and ONNX Runtime makes the same of it."""
        found = after.found(Stored)
        assert found is not None
        if not found.weights:
            return after
        return after.having(replace(found, beside=prove(after.model, after.job)))


def choose(model: Model, made: frozenset[str], how: str) -> Stored:
    """The weights that are stored sparse, and why others are not.

    Args:
        model: the model.
        made: those that the run made sparse.
        how: ``sparse``, or ``auto``: those that are smaller so, whoever made them sparse.
    """
    found, inside = Stored(how), 0
    held = list(storage.constants(model.graph))
    names = Counter(one.name for one in held)
    for one in held:
        if one.name not in made and (how == "sparse" or one.tensor.data_type not in storage.TYPES):
            continue
        why = next(_bars(model, one, names[one.name]), "") if one.name in made or _large(one) else "small"
        if not why:
            entry, places = _measured(model, one)
            inside += places if files.outside(model, one.tensor) else 0
            if how == "auto" and entry.sparse >= entry.dense:
                why = "as a sparse tensor it would be larger"
            elif inside > _MOST:
                why = "the places of what is left would make the file larger than protobuf can hold"
            else:
                found.weights.append(entry)
        if why and one.name in made:
            found.dense.append(Dense(why, weight=one.name))
    return found


def _large(one: Constant) -> bool:
    return prod(one.tensor.dims) >= _LEAST


def _bars(model: Model, one: Constant, count: int) -> Iterator[str]:
    """Why a constant cannot be stored sparse."""
    proto = model.proto
    if one.tensor.data_type not in storage.TYPES:
        yield f"ONNX Runtime reads no sparse tensors of type {TensorProto.DataType.Name(one.tensor.data_type)}"
    if proto.ir_version < _OLDEST:
        yield f"the file is of IR version {proto.ir_version}, in which every initializer is an input"
    if any(value.name == one.name for value in one.graph.input):
        yield "it is the default value of an input of the graph"
    if one.node is not None and model.opsets.get("", 1) < storage.OPSET:
        yield f"it stands in a Constant node, which holds sparse tensors from operator set {storage.OPSET} on"
    if count > 1:
        yield "several bodies of control flow have a constant of its name"


def _measured(model: Model, one: Constant) -> tuple[Entry, int]:
    """A constant in both forms, and bytes of the places alone."""
    value = model.tensor_array(one.tensor)
    outside = one.tensor.data_location == TensorProto.EXTERNAL
    found = storage.measure(one.tensor, value)
    dense = value.nbytes if outside else one.tensor.ByteSize()
    return Entry(one.name, value.size, found.left, dense, found.size), found.places
