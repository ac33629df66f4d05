"""The form of a model that is analysed and rewritten: what the file shares is apart, what it wraps is laid open.

1. Functions of the model's own are inlined where they are called (by ONNX's inliner, on a copy without weights).
2. Constants that are put together from pieces of others become constants (see ``graphprune.model.assembled``).
3. The bodies of If, Loop and Scan are laid open (see ``graphprune.model.control``).
4. A constant that is computed (a dequantised weight, a transposed one) and read in several places becomes one for each,
   as each use of an initializer is one. The copies are named ``<tensor>@<reader's output>:<input>``, which is there to
   be read by people; which tensors are copies stands in ``Model.copies``.

Where nothing of this occurs, the model is returned as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.model import Model, Use, assembled, control, names
from graphprune.model.checked.functions import called, keys
from graphprune.model.messages import copy_all_but
from graphprune.rules.control import DOMAIN

_SIZES = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)
_MOST_COPIES = 16
"""Of computed constants, for each node of the model."""


def canonicalize(model: Model) -> Model:
    """The model in canonical form; tensors are shared with it, not copied."""
    return _split(_flatten(assemble(inline(model))))


def inline(model: Model) -> Model:
    """The model with functions of its own laid open where they are called; itself where it calls none."""
    functions = called(model.proto)
    if not any(key in functions for key in keys(model.graph.node)):
        return model
    bare = ModelProto()
    copy_all_but(model.proto, bare, {"graph", "functions"})
    copy_all_but(model.graph, bare.graph, {"initializer"})
    bare.functions.extend(functions.values())
    proto = onnx.inliner.inline_local_functions(bare)
    proto.graph.initializer.extend(model.graph.initializer)
    return Model(proto, model.path, lazy=model.lazy, original=model.source)


def assemble(model: Model) -> Model:
    """The model with constants in place of what puts them together; itself where there is nothing of the kind."""
    made = {part: assembled.made(model, part) for part in assembled.find(model)}
    gone = {i for part, constants in made.items() for i in part.nodes if constants}
    if not gone:
        return model
    needed, touched = assembled.held(model) | {i.name for i in model.graph.input}, set[str]()
    for index in reversed(range(len(model.nodes))):
        node = model.nodes[index]
        if index in gone or (touched & set(node.output) and not needed & set(node.output)):
            gone.add(index)  # also what computed only the sizes and positions of the pieces
            touched.update(node.input)
        else:
            needed.update(node.input)
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"node", "initializer", "value_info"})
    proto.graph.node.extend(node for i, node in enumerate(model.nodes) if i not in gone)
    proto.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed or t.name not in touched)
    lost = {name for i in gone for name in model.nodes[i].output} | (touched - needed)
    proto.graph.value_info.extend(value for value in model.graph.value_info if value.name not in lost)
    lazy = dict(model.lazy)
    for constant in (c for constants in made.values() for c in constants):
        proto.graph.initializer.append(constant.tensor)
        if constant.later is not None:
            lazy[constant.tensor.name] = constant.later
    return Model(proto, model.path, lazy=lazy, original=model.source)


def _flatten(model: Model) -> Model:
    if not control.holds_bodies(model.graph):
        return model
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"node"})
    ordered = ModelProto()
    ordered.graph.node.extend(model.nodes)
    ordered.graph.initializer.extend(model.graph.initializer)
    ordered.graph.input.extend(model.graph.input)
    layout = control.flatten(ordered, proto)
    proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return Model(proto, model.path, lazy=model.lazy, original=model.source, runs_as=model, layout=layout)


def _split(model: Model) -> Model:
    """Give every reader of a computed constant its own copy of the nodes that compute it.

    From the last of them on: what a node reads that is copied has another reader then. Where that doubles at every step
    of a chain, what is left when there are too many copies stays shared.
    """
    made: dict[int, list[NodeProto]] = {}
    copies: dict[str, str] = {}
    taken = names.of(model.graph)
    extra: dict[str, list[tuple[NodeProto, int]]] = {}  # readers among the copies, by what they read
    redirected: dict[tuple[int, int], str] = {}
    most = _MOST_COPIES * (len(model.nodes) + _MOST_COPIES)
    for index in reversed(list(_computed(model))):
        node = model.nodes[index]
        if len(copies) + len(model.uses.get(node.output[0], [])) + len(extra.get(node.output[0], [])) > most:
            break
        name = node.output[0]
        readers: list[Use | tuple[NodeProto, int]] = [*model.uses.get(name, []), *extra.get(name, [])]
        kept = name in model.read_outside
        for reader in readers if kept else readers[1:]:
            copy = NodeProto()
            copy.CopyFrom(node)
            if isinstance(reader, Use):
                consumer = model.nodes[reader.node].output[0]
                place = reader.input
            else:
                consumer, place = reader[0].output[0], reader[1]
            copy.output[0] = names.fresh(f"{name}@{consumer}:{place}", taken)
            copies[copy.output[0]] = name
            if node.name:
                copy.name = f"{node.name}@{consumer}:{place}"
            if isinstance(reader, Use):
                redirected[(reader.node, reader.input)] = copy.output[0]
            else:
                reader[0].input[reader[1]] = copy.output[0]
            made.setdefault(index, []).append(copy)
            for k, read in enumerate(copy.input):
                extra.setdefault(read, []).append((copy, k))
    if not made:
        return model
    proto = ModelProto()
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"node"})
    for index, node in enumerate(model.nodes):
        changed = {k: redirected[(index, k)] for k in range(len(node.input)) if (index, k) in redirected}
        proto.graph.node.append(node)
        for k, fresh in changed.items():
            proto.graph.node[-1].input[k] = fresh
        proto.graph.node.extend(made.get(index, []))
    if model.layout is not None:
        for index, added in made.items():
            inside = model.layout.of(model.nodes[index])
            model.layout.home.update((copy.output[0], inside) for copy in added if inside)
    return Model(
        proto,
        model.path,
        lazy=model.lazy,
        original=model.source,
        runs_as=model.runs_as,
        layout=model.layout,
        copies=copies,
    )


def _computed(model: Model) -> Iterator[int]:
    """Nodes that compute one constant from others, sizes and single numbers apart."""
    weighty: set[str] = {
        name
        for name, source in model.sources.items()
        if source.dtype not in _SIZES and any(size > 1 for size in source.shape)
    }
    for index, node in enumerate(model.nodes):
        if len(node.output) != 1 or node.output[0] not in model.constant_names or node.output[0] in model.sources:
            continue
        if any(model.root(name) in weighty for name in node.input) and model.root(node.output[0]) not in model.sources:
            weighty.add(node.output[0])
            yield index


def merge(nodes: list[NodeProto], copies: Mapping[str, str]) -> list[NodeProto]:
    """Copies that were not told apart after all become one node again, under the name of the first.

    Args:
        nodes: all nodes, in order.
        copies: by the output of a copy, that of the node that it is a copy of, which stands before it.
    """
    seen: dict[tuple[str, bytes], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    copied = set(copies.values())
    for node in nodes:
        for k, name in enumerate(node.input):
            if name in renamed:
                node.input[k] = renamed[name]
        output = node.output[0] if len(node.output) == 1 else ""
        if output in copies or output in copied:
            bare = NodeProto()
            bare.CopyFrom(node)
            bare.ClearField("output")
            bare.ClearField("name")
            key = copies.get(output, output), bare.SerializeToString(deterministic=True)
            if key in seen:
                renamed[output] = seen[key]
                continue
            seen[key] = output
        kept.append(node)
    return kept
