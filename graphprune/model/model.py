"""A model as it was loaded: nodes, and where each constant comes from.

Weights stay where they are (in the proto, or in the external file) until one is asked for.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from abc import ABCMeta
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.errors import InputError
from graphprune.model import limits, reading, skeleton, storage
from graphprune.model.bodies import free_names, signature, subgraphs, subgraphs_in
from graphprune.model.checked import structure, tensors, verdict
from graphprune.model.commit import settle
from graphprune.model.control import Layout
from graphprune.model.external import declare
from graphprune.model.sorting import in_order
from graphprune.relation import Shape, Values
from graphprune.rules.control import DOMAIN
from graphprune.rules.floating import RANDOM

_CONSTANT_ATTRIBUTES = ("value", "value_float", "value_floats", "value_int", "value_ints")


@dataclass(frozen=True, slots=True)
class Source:
    """A constant tensor.

    Attributes:
        name: the tensor's name in the graph.
        kind: ``initializer``; ``constant`` (a Constant node); ``fill`` (ConstantOfShape of a constant shape).
        shape: its shape.
        dtype: its ``TensorProto`` data type.
        node: index of the node that makes it, None for an initializer.
    """

    name: str
    kind: str
    shape: Shape
    dtype: int
    node: int | None = None


class Use(NamedTuple):
    """One input of one node."""

    node: int
    input: int


@dataclass
class Model:
    """An ONNX model.

    Attributes:
        proto: the model; tensors with external data hold only their references.
        path: the file that it came from, None for a model made in memory.
        lazy: initializers whose values are made when they are asked for, and written one at a time.
        stored: constants that are sparse tensors in its file; they are dense here (see ``graphprune.model.storage``).
        original: the model that this one is the canonical form of, where it is one.
        runs_as: the model that runs in place of this one, where its control flow is laid open.
        layout: how control flow was laid open.
        copies: nodes that were added so that each reader of a computed constant has its own: by the output of each, the
            output of the node that it is a copy of.
        untried: whether it came from elsewhere and has not run yet (see ``graphprune.run.first``).
    """

    proto: ModelProto
    path: Path | None = None
    lazy: dict[str, Callable[[], Values]] = field(default_factory=dict, repr=False)
    stored: frozenset[str] = frozenset()
    original: Model | None = None
    runs_as: Model | None = None
    layout: Layout | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    untried: bool = False

    @property
    def source(self) -> Model:
        """The model as it was loaded."""
        return self.original or self

    @property
    def runnable(self) -> Model:
        """The model as ONNX Runtime runs it."""
        return self.runs_as or self

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.path.name if self.path else (self.proto.graph.name or "model")

    @property
    def graph(self) -> GraphProto:
        """The main graph."""
        return self.proto.graph

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """Nodes of the main graph, each behind those that it reads; in the file's order where that is so already."""
        return in_order(list(self.proto.graph.node), self.name)

    @cached_property
    def opsets(self) -> dict[str, int]:
        """Version of each operator set, ONNX's own under ``""``."""
        return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in self.proto.opset_import}

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Initializers by name."""
        return {t.name: t for t in self.proto.graph.initializer}

    @cached_property
    def constant_names(self) -> set[str]:
        """Every tensor that is computed from constants alone."""
        found = set(self.sources)
        for node in self.nodes:
            if node.input and all(name in found for name in node.input if name) and _foldable(node):
                found.update(o for o in node.output if o)
        return found

    @cached_property
    def signatures(self) -> list[bytes]:
        """For each node what it does, whatever it reads."""
        return [signature(node) for node in self.nodes]

    @cached_property
    def producer(self) -> dict[str, int]:
        """Index of the node that makes each tensor."""
        return {out: i for i, n in enumerate(self.nodes) for out in n.output if out}

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """Where each tensor is read by nodes of the main graph; subgraphs are in :attr:`captured`."""
        found: dict[str, list[Use]] = {}
        for i, node in enumerate(self.nodes):
            for k, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append(Use(i, k))
        return found

    @cached_property
    def captured(self) -> dict[int, list[str]]:
        """For each node with subgraphs, the outer tensors that they read."""
        found: dict[int, list[str]] = {}
        for i, node in enumerate(self.nodes):
            names = sorted({name for g in subgraphs(node) for name in free_names(g)})
            if names:
                found[i] = names
        return found

    @cached_property
    def read_outside(self) -> frozenset[str]:
        """Tensors that others than nodes of the main graph read: its caller, and the subgraphs of nodes."""
        return frozenset(self.output_names).union(*self.captured.values())

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Inputs that a caller must feed: those that no initializer gives a default."""
        return [i for i in self.proto.graph.input if i.name not in self.initializers]

    @cached_property
    def output_names(self) -> list[str]:
        """Names of the graph's outputs."""
        return [o.name for o in self.proto.graph.output]

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Every constant that is not computed from others, by name: initializers, Constant nodes, and fills."""
        found = {t.name: Source(t.name, "initializer", tuple(t.dims), t.data_type) for t in self.graph.initializer}
        for i, node in enumerate(self.nodes):
            if node.domain not in ("", "ai.onnx") or subgraphs_in(node):
                continue
            if node.op_type == "Constant":
                tensor = constant_tensor(node)
                if tensor is not None:
                    found[node.output[0]] = Source(node.output[0], "constant", tuple(tensor.dims), tensor.data_type, i)
            elif node.op_type == "ConstantOfShape" and node.input[0] in found:
                shape = self._dims(found[node.input[0]], i)
                found[node.output[0]] = Source(node.output[0], "fill", shape, _fill(node).data_type, i)
        return found

    def _dims(self, source: Source, index: int) -> Shape:
        """A constant as the shape of what a node fills.

        Raises:
            InputError: it is no shape that a tensor can have.
        """
        if prod(source.shape) > limits.RANK:  # a shape in several axes is read as one, as ONNX Runtime does
            raise InputError(
                f"{self.name}: node {node_name(self, index)!r} (ConstantOfShape) asks for a tensor of "
                f"{limits.shown(source.shape)} axes; at most {limits.RANK} are known"
            )
        return tuple(int(d) for d in self._read(source).reshape(-1))

    @cached_property
    def _roots(self) -> dict[str, str]:
        """The constant that each Identity of one passes on; a chain of them is gone through once."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if node.op_type == "Identity" and node.output[0] not in self.sources:
                read = found.get(node.input[0], node.input[0])
                if read in self.sources:
                    found[node.output[0]] = read
        return found

    def root(self, name: str) -> str:
        """The constant that a name stands for, through Identity nodes; the name itself where it is no constant."""
        return self._roots.get(name, name)

    def array(self, name: str) -> Values:
        """The value of a constant, read now.

        Raises:
            InputError: it is a fill of more than is allowed.
        """
        return self._read(self.sources[name])

    def _read(self, source: Source) -> Values:
        if source.kind == "initializer":
            return self.tensor_array(self.initializers[source.name])
        assert source.node is not None
        node = self.nodes[source.node]
        if source.kind == "constant":
            tensor = constant_tensor(node)
            assert tensor is not None
            return self.tensor_array(tensor)
        if min(source.shape, default=0) < 0:
            raise InputError(
                f"{self.name}: node {node_name(self, source.node)!r} makes a tensor of shape {source.shape}, which "
                "none can have; export the model again"
            )
        if (told := limits.too_large(source.shape, source.dtype)) is not None:
            raise InputError(f"{self.name}: node {node_name(self, source.node)!r} ({node.op_type}) makes {told}")
        return np.full(source.shape, numpy_helper.to_array(_fill(node)).reshape(-1)[0])

    def tensor_array(self, tensor: TensorProto) -> Values:
        """The value of a tensor of this model; external data is mapped, not copied."""
        if tensor.name in self.lazy:
            return self.lazy[tensor.name]()
        if tensor.data_location != TensorProto.EXTERNAL:
            try:
                return numpy_helper.to_array(tensor)
            except ValueError as error:
                raise InputError(
                    f"{self.name}: tensor {tensor.name!r} holds what it does not declare: {error}; export it again"
                ) from error
        path, offset, length = self.external(tensor)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = prod(tensor.dims)
        if dtype.itemsize * count != length:  # several elements in a byte
            loaded = TensorProto()
            loaded.CopyFrom(tensor)
            onnx.external_data_helper.load_external_data_for_tensor(loaded, str(path.parent))
            return numpy_helper.to_array(loaded)
        with open(path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, dtype, count, offset).reshape(tuple(tensor.dims))

    def external(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """File, offset and length in bytes of the data of a tensor that lies outside, or in the model's own file."""
        entries = {e.key: e.value for e in tensor.external_data}
        folder = (self.path.parent if self.path else Path()).resolve()
        place = self.path if self.path and skeleton.own(tensor, self.path) else (folder / entries["location"]).resolve()
        return place, int(entries.get("offset", 0)), tensors.size(tensor)

    @cached_property
    def sha256(self) -> str:
        """Of the file, or of the serialised proto for a model made in memory."""
        if self.original is not None:
            return self.original.sha256
        if self.path is None:
            return hashlib.sha256(self.source.proto.SerializeToString(deterministic=True)).hexdigest()
        return digest(self.path)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; large ones are read in parts."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            found.update(chunk)
    return found.hexdigest()


class Foreign(metaclass=ABCMeta):  # noqa: B024 -- nothing is to be overridden
    """A model of onnx-ir or onnx-graphsurgeon: told by the name of its class, since neither is imported for it."""

    words = "an onnx_ir.Model or an onnx_graphsurgeon.Graph"

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        library = getattr(other, "__module__", "").partition(".")[0]
        return (library, other.__name__) in {("onnx_ir", "Model"), ("onnx_graphsurgeon", "Graph")}


AnyModel = str | os.PathLike[str] | bytes | ModelProto | Model | Foreign
"""What stands for a model: a path, the bytes of a file, or a model in memory."""


def load(model: AnyModel) -> Model:
    """Load a model and check that its graph is well formed.

    Raises:
        InputError: no such file, not ONNX, truncated, or a graph that breaks the specification.
    """
    if isinstance(model, Model):
        declare(model.source.proto, model.source.path)
        return model
    if isinstance(model, bytes):
        loaded = Model(reading.parsed(model))
    elif isinstance(model, ModelProto | Foreign):
        loaded = Model(_proto_of(model))
    else:
        path = Path(model)
        if not path.is_file():
            told = "a folder; give the .onnx file in it" if path.is_dir() else "no file, but a device or a pipe"
            raise InputError(f"{path}: is {told}" if path.exists() else f"{path}: no such file")
        settle(Path(os.path.realpath(path)).parent)
        loaded = Model(reading.read(path), path)
    check(loaded)
    declare(loaded.proto, loaded.path)
    loaded.untried = True
    return loaded


def _proto_of(model: ModelProto | Foreign) -> ModelProto:
    from graphprune.model.interchange import to_proto  # which stands on this file

    found = to_proto(model)
    assert found is not None
    return found


def check(model: Model) -> None:
    """Lay out what is sparse in a model, once its structure is seen to be right, and see the rest (``model.checked``).

    Raises:
        InputError: it is no model; names the place and a remedy.
    """
    structure.see(model.proto, model.name, model.path)
    storage.lay_out(model)
    verdict.see(model.proto, model.nodes, model.name)


def node_name(model: Model, index: int) -> str:
    """What to call a node: its name, or its first output where it has none."""
    node = model.nodes[index]
    return node.name or next((o for o in node.output if o), f"#{index}")


def _foldable(node: NodeProto) -> bool:
    if node.domain == DOMAIN:
        return False
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type) not in RANDOM


def _fill(node: NodeProto) -> TensorProto:
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
    return numpy_helper.from_array(np.zeros(1, np.float32))


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """What a Constant node holds, None where that is no numbers; its elements may lie outside (``tensor_array``)."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in _CONSTANT_ATTRIBUTES:
            kind = np.float32 if "float" in attribute.name else np.int64
            return numpy_helper.from_array(np.asarray(helper.get_attribute_value(attribute), dtype=kind))
    return None
