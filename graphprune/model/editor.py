"""Small edits of a model's graph: new names, constants, inserted and unused nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from graphprune.model import Model, control, free_names, names, subgraphs
from graphprune.model.canonical import merge
from graphprune.model.messages import copy_all_but
from graphprune.relation import IntArray, Values
from graphprune.rules.control import DOMAIN


class Editor:
    """A copy of a model that is being changed; the original stays as it is.

    Attributes:
        proto: the copy; its nodes are in :attr:`nodes` until :meth:`finish`.
        nodes: copies of the original's nodes, in their order.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.proto = ModelProto()
        copy_all_but(model.proto, self.proto, {"graph"})
        copy_all_but(model.graph, self.proto.graph, {"node", "initializer"})
        self.nodes: list[NodeProto] = []
        for node in model.nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            self.nodes.append(copy)
        self.before: dict[int, list[NodeProto]] = {}  # new nodes, by the index of the node that they stand before
        self.initializers = dict(model.initializers)  # name -> tensor, original or new
        self.lazy = dict(model.lazy)
        self.names = names.of(model.graph)
        self.copies = dict(model.copies)  # see Model; what is named after a copy, or after what was copied, is one too
        self.copied = set(model.copies.values())
        self.layout = deepcopy(model.layout)
        self.shrunk: set[str] = set()  # activations that lost elements
        self.after: dict[int, list[NodeProto]] = {}
        self.attributes: list[tuple[int, str, Any, Any]] = []  # node, name, value before and after
        self.touched: set[str] = set()  # tensors that lost a reader through an edit

    def name(self, base: str) -> str:
        """A name that nothing has yet."""
        found, number = f"{base}_pruned", 2
        while found in self.names:
            found, number = f"{base}_pruned{number}", number + 1
        self.names.add(found)
        if base in self.copies or base in self.copied:
            self.copies[found] = self.copies.get(base, base)
        return found

    def constant(self, base: str, value: Values, before: int) -> str:
        """Add a constant and return its name.

        IR versions below 4 ask that every initializer be an input of the graph, so there it becomes a node.
        """
        name = self.name(base)
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        if self.model.proto.ir_version >= 4:
            self.initializers[name] = tensor
        else:
            self.insert(helper.make_node("Constant", [], [name], value=tensor), before)
        return name

    def later(self, base: str, value: Callable[[], Values]) -> str:
        """Add a constant of the type and shape of another, whose value is made when it is asked for; returns its name.

        Args:
            base: a weight outside of the file.
            value: makes the value.
        """
        name, tensor = self.name(base), TensorProto()
        tensor.CopyFrom(self.model.initializers[base])
        tensor.name = name
        self.initializers[name], self.lazy[name] = tensor, value
        return name

    def renew(self, name: str, value: Values, readers: int = 1) -> bool:
        """Give a constant another value in its place; False where more inputs read it than are meant to."""
        if len(self.model.uses.get(name, [])) != readers or name in self.model.read_outside:
            return False
        return self.replace(name, value)

    def replace(self, name: str, value: Values) -> bool:
        """Give a constant another value in its place, whatever reads it; False where it is made from a shape."""
        source = self.model.sources.get(name)
        if source is None:
            return False
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.lazy.pop(name, None)  # what was yet to be made is not wanted any more
        if source.kind == "initializer":
            before = self.initializers[name]
            if before.HasField("doc_string"):
                tensor.doc_string = before.doc_string
            tensor.metadata_props.extend(before.metadata_props)
            self.initializers[name] = tensor
            for declared in self.proto.graph.input:  # old exporters list initializers as inputs
                if declared.name == name:
                    for dim, size in zip(declared.type.tensor_type.shape.dim, value.shape, strict=True):
                        dim.dim_value = size
        elif source.kind == "constant" and source.node is not None:
            del self.nodes[source.node].attribute[:]
            self.nodes[source.node].attribute.append(helper.make_attribute("value", tensor))
        else:
            return False
        return True

    def replace_later(self, name: str, value: Callable[[], Values]) -> None:
        """The same for a weight outside the file; its value, of the same shape and type, is made when it is written."""
        self.lazy[name] = value

    def outside(self, name: str) -> bool:
        """Whether a weight lies outside the model's file."""
        held = self.model.initializers.get(name)
        return held is not None and held.data_location == TensorProto.EXTERNAL

    def insert(self, node: NodeProto, before: int) -> None:
        """Add a node in front of an original one."""
        self.before.setdefault(before, []).append(node)
        self._settle(node, before)

    def append(self, node: NodeProto, after: int) -> None:
        """Add a node behind an original one."""
        self.after.setdefault(after, []).append(node)
        self._settle(node, after)

    def _settle(self, node: NodeProto, beside: int) -> None:
        if self.layout is not None:  # as deep as the deepest tensor that it reads
            homes = [self.layout.home.get(name, 0) for name in node.input]
            inside = max([self.layout.of(self.model.nodes[beside]), *homes], key=self.layout.depth)
            if inside:
                self.layout.home.update((name, inside) for name in node.output)

    def redirect(self, node: int, position: int, name: str) -> None:
        """Let an input of a node read another tensor."""
        inputs = self.nodes[node].input
        while len(inputs) <= position:
            inputs.append("")
        if inputs[position]:
            self.touched.add(inputs[position])
        inputs[position] = name

    def pick(self, node: int, axis: int, positions: IntArray) -> None:
        """Keep only some positions of the first output of a node."""
        output = self.nodes[node].output[0]
        whole = self.name(output)
        self.rename(node, 0, whole)
        indices = self.constant(output, np.asarray(positions, np.int64), node)
        self.append(helper.make_node("Gather", [whole, indices], [output], axis=axis), node)

    def rename(self, node: int, place: int, name: str) -> None:
        """Give an output of a node another name; the node stays in the body that it is in."""
        self.nodes[node].output[place] = name
        if self.layout is not None and (inside := self.layout.of(self.model.nodes[node])):
            self.layout.home[name] = inside

    def behind(self, node: int, operator: str, constant: str) -> None:
        """Put an operator of two inputs behind a node, whose output it takes over; the other input is a constant."""
        output = self.nodes[node].output[0]
        raw = self.name(output)
        self.rename(node, 0, raw)
        self.append(helper.make_node(operator, [raw, constant], [output], name=raw), node)

    def set_attribute(self, node: int, name: str, value: float | Sequence[int]) -> None:
        """Set an attribute of a node; :attr:`attributes` keeps what it was."""
        attributes = self.nodes[node].attribute
        before = [helper.get_attribute_value(a) for a in attributes if a.name == name]
        self.attributes.append((node, name, before[0] if before else None, value))
        kept = [a for a in attributes if a.name != name]
        del attributes[:]
        attributes.extend([*kept, helper.make_attribute(name, value)])

    def drop_attributes(self, node: int, names: Iterable[str]) -> None:
        """Remove attributes of a node."""
        attributes = self.nodes[node].attribute
        kept = [a for a in attributes if a.name not in set(names)]
        del attributes[:]
        attributes.extend(kept)

    def finish(self) -> Model:
        """The changed model, without what the edits have left unused."""
        self._finished(copied=True)
        return Model(self.proto, self.model.path, lazy=self.lazy)

    def settle(self) -> Model:
        """The same where nobody else holds the original: weights that stay are not copied, and it is the result."""
        if self.layout is not None:  # bodies take theirs with them
            return self.finish()
        staying = self._finished(copied=False)
        proto, before = self.model.proto, self.model.initializers
        place = {tensor.name: k for k, tensor in enumerate(proto.graph.initializer)}
        for tensor in staying:
            if tensor.name not in place:
                proto.graph.initializer.append(tensor)
            elif tensor is not before[tensor.name]:
                proto.graph.initializer[place[tensor.name]].CopyFrom(tensor)
        stays = {tensor.name for tensor in staying}
        for name in reversed([name for name in place if name not in stays]):
            del proto.graph.initializer[place[name]]
        for message, other, skip in ((proto, self.proto, "graph"), (proto.graph, self.proto.graph, "initializer")):
            for field, _ in message.ListFields():
                if field.name != skip:
                    message.ClearField(field.name)
            copy_all_but(other, message, {skip})
        return Model(proto, self.model.path, lazy=self.lazy)

    def _finished(self, copied: bool) -> list[TensorProto]:
        """Put nodes in the copy that is changed, and where that is asked for initializers; returns those that stay."""
        used = {o.name for o in self.proto.graph.output}
        keep: list[NodeProto] = []
        for node, new in reversed(self._sequence()):
            wanted = any(o in used for o in node.output if o)
            # an original node goes only where an edit took its last reader: one that never had any stays
            if not wanted and (new or any(o in self.touched for o in node.output)):
                self.touched.update(n for n in node.input if n)
                continue
            keep.append(node)
            used.update(node.input)
            used.update(name for g in subgraphs(node) for name in free_names(g))
        nodes = merge(keep[::-1], self.copies)
        used = {o.name for o in self.proto.graph.output}
        for node in nodes:
            used.update(node.input)
            used.update(name for g in subgraphs(node) for name in free_names(g))
        declared = {i.name for i in self.proto.graph.input}
        staying = []
        for name, tensor in self.initializers.items():
            if name in used or name in declared or (name in self.model.initializers and name not in self.touched):
                staying.append(tensor)
            else:
                self.lazy.pop(name, None)
        if copied:
            self.proto.graph.initializer.extend(staying)
        if self.layout is None:
            self.proto.graph.node.extend(nodes)
        else:
            control.restore(nodes, self.proto.graph, self.layout, frozenset(self.shrunk))
            kept = [o for o in self.proto.opset_import if o.domain != DOMAIN]
            del self.proto.opset_import[:]
            self.proto.opset_import.extend(kept)
        self._drop_value_info(used | {tensor.name for tensor in staying})
        return staying

    def _sequence(self) -> list[tuple[NodeProto, bool]]:
        """All nodes in order, each with whether it is new."""
        found: list[tuple[NodeProto, bool]] = []
        for i in range(len(self.nodes) + 1):
            found += [(extra, True) for extra in self.before.get(i, [])]
            found += [(node, False) for node in self.nodes[i : i + 1]]
            found += [(extra, True) for extra in self.after.get(i, [])]
        return found

    def _drop_value_info(self, used: set[str]) -> None:
        made = {o for n in self.proto.graph.node for o in n.output}
        once = {o for n in self.model.nodes for o in n.output} | set(self.model.initializers)
        gone = ({v.name for v in self.proto.graph.value_info} & once) - made - used
        if gone:
            kept: list[ValueInfoProto] = [v for v in self.proto.graph.value_info if v.name not in gone]
            del self.proto.graph.value_info[:]
            self.proto.graph.value_info.extend(kept)
