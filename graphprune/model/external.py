"""The files that a model is read from: its own, and those that hold its external data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from graphprune.model import paths


def declare(proto: ModelProto, path: Path | None) -> None:
    """Tell the run that the files of a model are read.

    Raises:
        InputError: one of them is to be written.
    """
    if path is not None and paths.known(path):
        return
    for file, what in sources(proto, path).items():
        paths.reads(what, file)


def sources(proto: ModelProto, path: Path | None) -> dict[Path, str]:
    """Each file that a model is read from, with what to call it."""
    name, folder = (path.name, path.parent) if path is not None else ("the model", Path())
    found = {} if path is None else {path: "the model"}
    for tensor in _outside(proto):
        place = next((e.value for e in tensor.external_data if e.key == "location"), "")
        found.setdefault(folder / place, f"the external data of {name}")
    return found


def _outside(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor whose data lies outside, wherever in the model it stands."""
    for function in proto.functions:
        yield from _in_nodes(function.node)
    for training in proto.training_info:
        yield from _in_graph(training.initialization)
        yield from _in_graph(training.algorithm)
    yield from _in_graph(proto.graph)


def _in_graph(graph: GraphProto) -> Iterator[TensorProto]:
    sparse = [t for pair in graph.sparse_initializer for t in (pair.values, pair.indices)]
    yield from _external([*graph.initializer, *sparse])
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            kind = attribute.type
            if kind in (AttributeProto.TENSOR, AttributeProto.TENSORS):
                yield from _external([attribute.t, *attribute.tensors])
            elif kind in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
                pairs = [attribute.sparse_tensor, *attribute.sparse_tensors]
                yield from _external(t for pair in pairs for t in (pair.values, pair.indices))
            elif kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                for graph in (attribute.g, *attribute.graphs):
                    yield from _in_graph(graph)


def _external(tensors: Iterable[TensorProto]) -> Iterator[TensorProto]:
    # what is cut, and not yet written, has no place of its own
    return (t for t in tensors if t.data_location == TensorProto.EXTERNAL and t.external_data)
