"""What a model costs: parameters, multiply-accumulates, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from onnx import ModelProto, TensorProto

from graphprune.analysis import Analysis
from graphprune.analysis.web import Web
from graphprune.model import Model, Source, files, subgraphs
from graphprune.model.checked import tensors

WEIGHT_TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT4,
    TensorProto.UINT4,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E5M2,
}
"""Types of constants whose elements are parameters."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of one model.

    Attributes:
        parameters: elements of its constants of floating and quantised types, each counted once.
        macs: multiply-accumulates of convolutions and matrix products at the witness shape.
        bytes: size of the file with its external data; of the proto for a model in memory.
    """

    parameters: int
    macs: int
    bytes: int


def parameters(model: Model) -> int:
    """Elements of all weight-typed constants that the file holds or fills in."""
    inner = (g for node in model.nodes for g in subgraphs(node))
    return sum(map(elements, model.sources.values())) + sum(parameters(Model(ModelProto(graph=g))) for g in inner)


def elements(source: Source) -> int:
    """Elements of a constant that count as parameters: none for shapes."""
    return prod(source.shape) if source.dtype in WEIGHT_TYPES else 0


def stored_bytes(source: Source) -> float:
    """Bytes that the elements of a constant take in a file: none where they are filled in or are texts."""
    if source.kind == "fill" or source.dtype == TensorProto.STRING:
        return 0.0
    return tensors.width(source.dtype) / 8 * prod(source.shape)


def macs(analysis: Analysis, sizes: Sequence[int] | None = None) -> int:
    """Multiply-accumulates of the whole model at the witness shape.

    Args:
        analysis: the analysis.
        sizes: sizes of all vertices of the web, in place of the original ones.
    """
    return counted(analysis.web, sizes)


def counted(net: Web, sizes: Sequence[int] | None = None) -> int:
    """The same of a web alone, which takes no analysis."""
    chosen = net.sizes if sizes is None else sizes
    total = 0
    for node, relation in enumerate(net.relations):
        for product in relation.macs if relation is not None else ():
            start = net.dim_start[node]
            total += prod(int(chosen[start + d]) for d in product)
    return total


def file_bytes(model: Model) -> int:
    """Size of the model's file and of the external data that it names, or of its proto where there is no file."""
    if model.path is None:
        return files.size(model)
    outside = sum(model.external(t)[2] for t in model.graph.initializer if files.outside(model, t))
    return model.path.stat().st_size + outside
