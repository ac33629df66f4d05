"""Constants that a model puts together at run time from others: they become constants of their own.

Exporters write a recurrent weight as stretches of several stored ones, joined in another order of gates, and a
normalised one as a weight divided by its own norm. No element of such a weight can be followed to one place in the
file, so nothing of it could be cut. What takes part hangs together by the tensors that it reads and makes, and is
folded as a whole where

1. an element of it comes from several places or goes to several: a node makes more than each tensor that it reads
   holds (a join), or a tensor is read more than once (a cut into pieces, or a weight beside its own norm);
2. all weights that it reads and makes have one type, so that nothing loses its quantised or half-precision form;
3. no node sums over two of them: a weight that is the product of others has a dim inside that can be pruned;
4. what comes out of it is no larger than what goes in and is read by nothing else, so that no file grows.

ONNX Runtime computes it, as it would at run time.

What is only turned, converted or scaled is followed to its source instead (see ``graphprune.analysis.origins``), and
keeps the name that the training code knows. Only sizes and types decide; no operator is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import networkx as nx
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from graphprune.model import apart, limits
from graphprune.model.model import Model
from graphprune.relation import Shape, Values
from graphprune.rules import values as shape_values

_OPERANDS = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


@dataclass(frozen=True)
class _Kind:
    shape: Shape
    dtype: int

    @property
    def weighty(self) -> bool:
        """Whether it is a weight: not sizes, positions or a single number."""
        return self.dtype not in _OPERANDS and any(size > 1 for size in self.shape)


class _NotMadeError(Exception):
    """ONNX Runtime does not compute a constant."""


Kinds = dict[str, _Kind]
"""By name, of every constant around nodes that compute one."""


@dataclass(frozen=True)
class Part:
    """Nodes that hang together.

    Attributes:
        nodes: their indices, in order.
        reads: the weights that they read and none of them makes.
        results: what they make that other nodes read.
    """

    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    results: tuple[str, ...]


def find(model: Model) -> list[Part]:
    """Nodes that are to be folded, as they hang together."""
    computing = [
        i
        for i, node in enumerate(model.nodes)
        if node.output[:1] and node.output[0] in model.constant_names and not set(node.output) & set(model.sources)
    ]
    if not any(len(model.nodes[i].input) > 1 or len(model.nodes[i].output) > 1 for i in computing):
        return []
    kinds = _kinds(model, computing)
    kept = held(model).union(i.name for i in model.graph.input)
    return [part for part in _parts(model, computing, kinds) if _pays(model, part, kinds, kept)]


def held(model: Model) -> set[str]:
    """What more than nodes of the main graph read."""
    return set(model.output_names).union(*model.captured.values())


def _kinds(model: Model, computing: list[int]) -> Kinds:
    """Shape and type of every constant around these nodes, told by ONNX's inference without a weight being read.

    Values of short operands are followed in NumPy: ONNX's own propagation of them has no bound in memory.
    """
    nodes = [model.nodes[i] for i in computing]
    read = {name for node in nodes for name in node.input if name in model.sources}
    found = {name: _Kind(model.sources[name].shape, model.sources[name].dtype) for name in sorted(read)}
    values = {name: np.asarray(model.array(name)) for name, kind in found.items() if _short(kind)}
    bare = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    for node in nodes:
        value = _followed(node, found, values)
        if value is None:
            bare.graph.node.append(node)
            continue
        name = node.output[0]
        values[name], found[name] = value, _Kind(value.shape, helper.np_dtype_to_tensor_dtype(value.dtype))
    for name, kind in found.items():
        if name in values:
            bare.graph.initializer.append(numpy_helper.from_array(values[name], name))
        else:
            bare.graph.input.append(helper.make_tensor_value_info(name, kind.dtype, kind.shape))
    for value_info in shape_inference.infer_shapes(bare).graph.value_info:
        tensor = value_info.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value_info.name] = _Kind(tuple(d.dim_value for d in tensor.shape.dim), tensor.elem_type)
    return found


def _short(kind: _Kind) -> bool:
    """Whether a constant is an operand, and short enough to be followed."""
    return not kind.weighty and kind.dtype != TensorProto.STRING and prod(kind.shape) <= shape_values.LIMIT


def _followed(node: NodeProto, kinds: Kinds, values: Mapping[str, Values]) -> Values | None:
    """What a node makes of operands alone; None where it is no operand, or not known."""
    own = [name for name in node.output if name]
    if node.domain not in ("", "ai.onnx") or len(own) != 1 or own[0] != node.output[0]:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    shapes = [(kinds[n].shape if n in kinds else shape_values.UNKNOWN) if n else None for n in node.input]
    found = shape_values.evaluate(node.op_type, [values.get(n) for n in node.input], attributes, shapes)
    return found if found is not None and found.dtype.kind in "iub" else None


def _parts(model: Model, computing: list[int], kinds: Kinds) -> Iterator[Part]:
    graph: nx.Graph[int | str] = nx.Graph()
    for index in computing:
        node = model.nodes[index]
        names = [*_weights(node.input, kinds), *_weights(node.output, kinds)]
        graph.add_edges_from((index, name) for name in names)
    inside = set(computing)
    for component in sorted(nx.connected_components(graph), key=lambda c: min(v for v in c if isinstance(v, int))):
        nodes = tuple(sorted(v for v in component if isinstance(v, int)))
        made = [name for index in nodes for name in model.nodes[index].output if name]
        reads = tuple(sorted(v for v in component if isinstance(v, str) and v in model.sources))
        results = tuple(
            name for name in made if any(use.node not in inside for use in model.uses.get(name, [])) and name in kinds
        )
        if len(made) == len(set(made) & set(kinds)):  # else a shape is not known
            yield Part(nodes, reads, results)


def _pays(model: Model, part: Part, kinds: Kinds, kept: set[str]) -> bool:
    nodes = [model.nodes[i] for i in part.nodes]
    names = {name for node in nodes for name in [*_weights(node.input, kinds), *_weights(node.output, kinds)]}
    if len({kinds[name].dtype for name in names}) > 1 or not part.results:
        return False
    if sum(limits.size(kinds[name].shape, kinds[name].dtype) for name in names) > limits.limit():
        return False  # for want of room: where it does not run either, the witness says so
    if any(_sums(node, kinds) for node in nodes):
        return False
    made = {name for node in nodes for name in node.output}
    inside = set(part.nodes)
    own = [
        name for name in part.reads if name not in kept and all(use.node in inside for use in model.uses.get(name, []))
    ]
    if made & kept or _size(part.results, kinds) > _size(own, kinds):
        return False
    return any(_joins(node, kinds) for node in nodes) or any(
        len(model.uses.get(name, [])) > 1 for name in part.reads if kinds[name].weighty
    )


def _sums(node: NodeProto, kinds: Kinds) -> bool:
    """Whether a node makes less of several weights than the largest of them holds."""
    read, made = ([prod(kinds[name].shape) for name in _weights(side, kinds)] for side in (node.input, node.output))
    return len(read) > 1 and bool(made) and max(made) < max(read)


def _joins(node: NodeProto, kinds: Kinds) -> bool:
    read = [prod(kinds[name].shape) for name in _weights(node.input, kinds)]
    return len(read) > 1 and any(prod(kinds[name].shape) > max(read) for name in _weights(node.output, kinds))


def _weights(names: Iterable[str], kinds: Kinds) -> list[str]:
    return [n for n in names if n in kinds and kinds[n].weighty]


def _size(names: Iterable[str], kinds: Kinds) -> int:
    return sum(prod(kinds[name].shape) for name in names)


@dataclass(frozen=True)
class Made:
    """A constant that is made.

    Attributes:
        tensor: the initializer that holds it, or says how large it is.
        later: what makes its value when it is asked for, where weights lie outside of the file; else None.
    """

    tensor: TensorProto
    later: Callable[[], Values] | None = None


def made(model: Model, part: Part) -> list[Made]:
    """What comes out of a part, one weight at a time in memory where weights lie outside of the file.

    Nothing where ONNX Runtime does not run it: then the model stays as it is.
    """
    held = [model.initializers[name] for name in part.reads if name in model.initializers]
    outside = [tensor for tensor in held if tensor.data_location == TensorProto.EXTERNAL]
    found = []
    for name in part.results:
        try:
            value = _value(model, name)
        except _NotMadeError:
            return []
        if outside:
            tensor = TensorProto(name=name, dims=value.shape, data_type=helper.np_dtype_to_tensor_dtype(value.dtype))
            tensor.data_location = TensorProto.EXTERNAL  # where it comes from, and its own size
            tensor.external_data.extend(entry for entry in outside[0].external_data if entry.key == "location")
            tensor.external_data.add(key="length", value=str(value.nbytes))
            found.append(Made(tensor, partial(_value, model, name)))
        else:
            found.append(Made(numpy_helper.from_array(value, name)))
    return found


def _value(model: Model, name: str) -> Values:
    """A constant, computed from those that it is made of, as it is when the model runs."""
    wanted, nodes = {name}, list[NodeProto]()
    for index in range(model.producer[name], -1, -1):
        node = model.nodes[index]
        own = wanted & set(node.output)
        if own and not own & set(model.sources):
            nodes.append(node)
            wanted.update(n for n in node.input if n)
    feeds = {read: np.asarray(model.array(read)) for read in sorted(wanted & set(model.sources))}
    proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    proto.graph.name = "constants"
    proto.graph.node.extend(nodes[::-1])
    proto.graph.output.append(ValueInfoProto(name=name))
    for read, value in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(read, kind, value.shape))
    size = sum(value.nbytes for value in feeds.values())
    room = limits.limit() + 2 * size
    job = apart.Job(proto.SerializeToString(), feeds, [name], True, limits.seconds(size), room, 1)
    answer = apart.ask(job)
    apart.see(answer, job, model.name)
    found = answer.made[0] if answer.made else None
    if found is None or found.value is None:
        raise _NotMadeError
    return found.value
