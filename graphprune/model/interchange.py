"""The forms that a model can have in memory: a ``ModelProto``, an ``onnx_ir.Model``, an ``onnx_graphsurgeon.Graph``.

The libraries convert. onnx-ir keeps all that a model holds; what a round trip through onnx-graphsurgeon loses
(documentation, metadata, versions, quantisation annotations, initializers that nothing reads) is carried over here,
field by field, so that nothing is dropped from the user's model. None of them is imported before it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from graphprune.errors import BackendError, InputError
from graphprune.model import storage
from graphprune.model.bodies import subgraphs
from graphprune.model.messages import copy_all_but
from graphprune.model.model import Model, check

PROTO, IR, SURGEON = "onnx.ModelProto", "onnx_ir.Model", "onnx_graphsurgeon.Graph"


@dataclass(frozen=True)
class Form:
    """A model in one of the forms, and the way back.

    Attributes:
        value: the model as that library has it.
        form: which one.
        before: the same as a ``ModelProto``.
        model: the same as this program has it.
    """

    value: Any
    form: str
    before: ModelProto
    model: Model

    def back(self, made: Any, by: str) -> Model:
        """What came of it, with what the library has lost on the way.

        Args:
            made: a model in any of the forms.
            by: who made it, for messages.

        Raises:
            InputError: it is no model, or one that breaks the specification.
        """
        proto = to_proto(made)
        if proto is None:
            raise InputError(f"{by} gave a {type(made).__name__}, which is no model")
        if self.form == SURGEON or isinstance(made, _type("onnx_graphsurgeon", "Graph")):
            carry(self.before, proto)
        found = Model(proto, self.model.path)
        check(found)
        return found


def convert(model: Model, form: str) -> Form:
    """A model in one of the forms, with all weights in it, and dense; the model itself is not changed.

    Raises:
        BackendError: the library is not installed.
    """
    proto = whole(model)
    if form == IR:
        return Form(_library("onnx_ir").from_proto(proto), form, proto, model)
    if form == SURGEON:
        return Form(_library("onnx_graphsurgeon").import_onnx(proto), form, proto, model)
    return Form(proto, form, _twin(proto), model)


def named(annotation: Any, by: str) -> str:
    """Which form a type annotation asks for.

    Raises:
        InputError: it is the type of something else.
    """
    text = annotation if isinstance(annotation, str) else f"{_module(annotation)}.{getattr(annotation, '__name__', '')}"
    if text.endswith(("ModelProto", "_empty")) or annotation is Any:
        return PROTO
    if text.startswith(("onnx_ir.", "ir.")) and text.endswith("Model"):
        return IR
    if text.startswith(("onnx_graphsurgeon.", "gs.")) and text.endswith("Graph"):
        return SURGEON
    raise InputError(f"{by} takes a {text}; a step takes a {PROTO}, an {IR} or an {SURGEON}")


def to_proto(model: Any) -> ModelProto | None:
    """A model of any form as a ``ModelProto``, None where it is none; a ``ModelProto`` is given back as it is."""
    if isinstance(model, ModelProto):
        return model
    if isinstance(model, _type("onnx_ir", "Model")):
        return _library("onnx_ir").to_proto(model)
    if isinstance(model, _type("onnx_graphsurgeon", "Graph")):
        return _library("onnx_graphsurgeon").export_onnx(model)
    return None


def whole(model: Model) -> ModelProto:
    """A copy of a model with all its weights in it: those of other files, and those that are yet to be made."""
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"initializer"})
    for tensor in model.graph.initializer:
        copy = proto.graph.initializer.add()
        if tensor.data_location == TensorProto.EXTERNAL or tensor.name in model.lazy:
            copy.CopyFrom(numpy_helper.from_array(model.tensor_array(tensor), tensor.name))
        else:
            copy.CopyFrom(tensor)
    return proto


def stored(model: Model) -> ModelProto:
    """The same as it is stored: what is sparse in a file is sparse in it."""
    proto = whole(model)
    storage.encode_all(proto, model.stored, numpy_helper.to_array)
    return proto


def carry(before: ModelProto, after: ModelProto) -> None:
    """Give a model back what a library has lost of it: fields that were set, and are not any more."""
    _restore(before, after, {"graph", "functions", "training_info"})
    _carry_graph(before.graph, after.graph)
    functions = {(f.domain, f.name, f.overload): f for f in before.functions}
    for function in after.functions:
        old = functions.get((function.domain, function.name, function.overload))
        if old is not None:
            _restore(old, function, {"node"})
            _carry_nodes(old.node, function.node)


def _carry_graph(before: GraphProto, after: GraphProto) -> None:
    _restore(before, after, {"node", "initializer", "sparse_initializer", "input", "output", "value_info"})
    _carry_nodes(before.node, after.node)
    for field in ("input", "output", "value_info", "initializer"):
        old = {value.name: value for value in getattr(before, field)}
        for value in getattr(after, field):
            if value.name in old:
                own = {f.name for f in value.DESCRIPTOR.fields}
                _restore(old[value.name], value, own - {"doc_string", "metadata_props"})
    read = {name for node in before.node for name in node.input} | {o.name for o in before.output}
    read.update(name for node in before.node for graph in subgraphs(node) for name in _names(graph))
    there = {t.name for t in after.initializer}
    after.initializer.extend(t for t in before.initializer if t.name not in read | there)


def _names(graph: GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield from node.input
        for inner in subgraphs(node):
            yield from _names(inner)
    yield from (o.name for o in graph.output)


def _carry_nodes(before: Iterable[NodeProto], after: Iterable[NodeProto]) -> None:
    old = {tuple(node.output): node for node in before}
    for node in after:
        match = old.get(tuple(node.output))
        if match is not None and match.op_type == node.op_type:
            _restore(match, node, {"input", "output", "attribute"})
            for one, other in zip(subgraphs(match), subgraphs(node), strict=False):
                _carry_graph(one, other)


def _restore(before: Message, after: Message, skip: set[str]) -> None:
    """Copy fields that one message has and the other has not."""
    present = {field.name for field, _ in after.ListFields()}
    copy_all_but(before, after, skip | present)


def _twin(proto: ModelProto) -> ModelProto:
    found = ModelProto()
    found.CopyFrom(proto)
    return found


def _module(annotation: Any) -> str:
    """The package that a type comes from."""
    return str(getattr(annotation, "__module__", "")).partition(".")[0]


def _type(module: str, name: str) -> type:
    """A type of a library that whoever holds such a value has imported."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else _Nothing


class _Nothing:
    """No value is of this type."""


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise BackendError(f"{name} is not installed: pip install {name.replace('_', '-')}") from None
