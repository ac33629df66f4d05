"""Control flow laid open: the bodies of If, Loop and Scan become part of one flat list of nodes, and go back into it.

In the flat form a body's nodes stand before the node that holds them. That node, its domain now :data:`DOMAIN`, reads
the outputs of its bodies behind its own inputs; an ``Enter`` node in front of a loop's body makes the inputs of the
body. So everything that works on nodes works on bodies too. Names that two bodies share are told apart by the body
that they are in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from graphprune.model import names
from graphprune.relation import Shape
from graphprune.rules.control import DOMAIN

_KINDS = ("If", "Loop", "Scan")


@dataclass
class Body:
    """A graph held by an attribute of a node.

    Attributes:
        attribute: its name.
        shell: the graph without nodes and initializers, its names those of the flat form.
        inside: number of the body that the node itself is in, 0 for the main graph.
        inputs: how many inputs it has.
    """

    attribute: str
    shell: GraphProto
    inside: int


@dataclass
class Layout:
    """How to put a flat list of nodes back.

    Attributes:
        bodies: all bodies; number 0 stands for the main graph.
        holders: by the first output of a node that holds bodies: the node itself, and the numbers of its bodies.
        home: by first output of a node, the body that it is in, where that is not the main graph.
        initializers: the body that an initializer is in, where that is not the main graph.
    """

    bodies: list[Body] = field(default_factory=lambda: [Body("", GraphProto(), 0)])
    holders: dict[str, tuple[NodeProto, list[int]]] = field(default_factory=dict)
    home: dict[str, int] = field(default_factory=dict)
    initializers: dict[str, int] = field(default_factory=dict)

    def depth(self, number: int) -> int:
        """How many bodies a body is in, itself included."""
        return 1 + self.depth(self.bodies[number].inside) if number else 0

    def of(self, node: NodeProto) -> int:
        """The body that a node is in."""
        return self.home.get(next((o for o in node.output if o), ""), 0)


def holds_bodies(graph: GraphProto) -> bool:
    """Whether there is control flow to lay open."""
    return any(map(_opens, graph.node))


def _opens(node: NodeProto) -> bool:
    """Whether a node is control flow that the flat form can say: a Scan of opset 8, over batches, is not."""
    if node.op_type not in _KINDS or node.domain not in ("", "ai.onnx"):
        return False
    return node.op_type != "Scan" or all(len(a.g.input) == len(node.input) for a in node.attribute if a.HasField("g"))


def flatten(proto: ModelProto, target: ModelProto) -> Layout:
    """Write the flat form of a model's nodes and initializers into ``target``, which has everything else already."""
    flat = _Flattening(proto, target)
    flat.lay(proto.graph, 0, {})
    return flat.layout


class _Flattening:
    def __init__(self, proto: ModelProto, target: ModelProto) -> None:
        self.graph = target.graph
        self.layout = Layout()
        self.taken = {t.name for t in proto.graph.initializer} | {i.name for i in proto.graph.input}
        self.taken |= {o for n in proto.graph.node for o in n.output}

    def lay(self, graph: GraphProto, number: int, names: Mapping[str, str]) -> None:
        """Append the nodes of a graph.

        Args:
            graph: the graph.
            number: of the body that it is.
            names: what names of this and the outer bodies are in the flat form, where they changed.
        """
        for node in graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            for side in (copy.input, copy.output):
                for k, name in enumerate(side):
                    side[k] = names.get(name, name)
            if _opens(node):
                self._hold(copy, number, names)
            else:
                self._append(copy, number)

    def _append(self, node: NodeProto, number: int) -> None:
        self.graph.node.append(node)
        if number:
            self.layout.home.update((o, number) for o in node.output if o)

    def _hold(self, node: NodeProto, number: int, names: Mapping[str, str]) -> None:
        label = next(o for o in node.output if o)
        own = len(node.input)
        holder = NodeProto()
        holder.CopyFrom(node)
        numbers = []
        inside: list[str] = []
        held = [a for a in node.attribute if a.type == AttributeProto.GRAPH]
        for attribute in sorted(held, key=lambda a: a.name == "else_branch"):  # what the then branch makes is first
            body = attribute.g
            renamed = {**names, **self._fresh(body, f"{label}/{attribute.name}")}
            numbers.append(len(self.layout.bodies))
            self.layout.bodies.append(Body(attribute.name, _shell(body, renamed), number))
            entered = [renamed.get(i.name, i.name) for i in body.input]
            if entered:
                self._enter(node, entered, numbers[-1], own)
            for tensor in body.initializer:
                moved = self.graph.initializer.add()
                moved.CopyFrom(tensor)
                moved.name = renamed.get(tensor.name, tensor.name)
                self.layout.initializers[moved.name] = numbers[-1]
            self.lay(body, numbers[-1], renamed)
            inside += [renamed.get(o.name, o.name) for o in body.output] + entered
        for attribute in holder.attribute:
            if attribute.type == AttributeProto.GRAPH:
                attribute.g.Clear()
        self.layout.holders[label] = (holder, numbers)
        kept = [a for a in node.attribute if a.type != AttributeProto.GRAPH]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("inputs", own)])
        node.domain = DOMAIN
        node.input.extend(inside)
        self._append(node, number)

    def _enter(self, node: NodeProto, entered: list[str], number: int, own: int) -> None:
        first = 2 if node.op_type == "Loop" else 0
        outer = list(node.input[first:own])
        enter = helper.make_node("Enter", outer, entered, f"{node.name}/enter", domain=DOMAIN)
        kept = [a for a in node.attribute if a.type != AttributeProto.GRAPH]
        enter.attribute.extend([*kept, helper.make_attribute("kind", node.op_type)])
        self._append(enter, number)

    def _fresh(self, body: GraphProto, prefix: str) -> dict[str, str]:
        made = [i.name for i in body.input] + [t.name for t in body.initializer]
        made += [o for n in body.node for o in n.output if o]
        both = [name for name in dict.fromkeys(made) if name in self.taken]
        self.taken.update(made)
        return {name: names.fresh(f"{prefix}/{name}", self.taken) for name in both}


def _shell(graph: GraphProto, names: Mapping[str, str]) -> GraphProto:
    shell = GraphProto()
    shell.CopyFrom(graph)
    del shell.node[:]
    del shell.initializer[:]
    for values in (shell.input, shell.output, shell.value_info):
        for value in values:
            value.name = names.get(value.name, value.name)
    return shell


def restore(nodes: Iterable[NodeProto], graph: GraphProto, layout: Layout, shrunk: frozenset[str]) -> None:
    """Put flat nodes into a main graph whose initializers are there already.

    Args:
        nodes: the flat nodes, in order.
        graph: the main graph; initializers that belong into bodies move there.
        layout: where things were.
        shrunk: tensors that lost elements, whose declared shapes are forgotten.
    """
    graphs = [graph] + [GraphProto() for _ in layout.bodies[1:]]
    for body, made in zip(layout.bodies[1:], graphs[1:], strict=True):
        made.CopyFrom(body.shell)
        for values in (made.input, made.output, made.value_info):
            for value in values:
                _forget(value, shrunk)
    for node in nodes:
        if node.domain == DOMAIN and node.op_type == "Enter":
            continue
        home = graphs[layout.of(node)]
        if node.domain == DOMAIN:
            _close(node, layout, graphs)
        home.node.append(node)
    kept = [t for t in graph.initializer if t.name not in layout.initializers]
    for tensor in graph.initializer:
        if tensor.name in layout.initializers:
            graphs[layout.initializers[tensor.name]].initializer.append(tensor)
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
    _place_bodies(graph, layout, graphs)


def _close(node: NodeProto, layout: Layout, graphs: list[GraphProto]) -> None:
    """Make a flat control node the node that it was, with the outputs of its bodies as they are named now."""
    holder, numbers = layout.holders[next(o for o in node.output if o)]
    own = next(a.i for a in node.attribute if a.name == "inputs")
    rest = list(node.input[own:])
    for number in numbers:
        graph = graphs[number]
        made = {o for n in graph.node for o in n.output} | {i.name for i in graph.input}
        for value in graph.output:
            name = rest.pop(0)
            if name not in made and layout.initializers.get(name) != number and name != value.name:
                outer, name = name, names.fresh(f"{value.name}/returned", set().union(*map(names.of, graphs)))
                graph.node.append(helper.make_node("Identity", [outer], [name]))  # bodies return only what they make
            value.name = name
        del rest[: len(graph.input)]
    del node.input[own:]
    del node.attribute[:]
    node.attribute.extend(holder.attribute)
    node.domain = holder.domain


def _place_bodies(graph: GraphProto, layout: Layout, graphs: list[GraphProto]) -> None:
    """Fill the graph attributes, innermost bodies first, so that each is whole when it is copied."""
    for number in reversed(range(len(layout.bodies))):
        for node in graphs[number].node if number else graph.node:
            held = layout.holders.get(next((o for o in node.output if o), ""))
            if held is None or node.op_type not in _KINDS:
                continue
            for inner in held[1]:
                attribute = next(a for a in node.attribute if a.name == layout.bodies[inner].attribute)
                attribute.g.CopyFrom(graphs[inner])


def _forget(value: ValueInfoProto, shrunk: frozenset[str]) -> None:
    if value.name in shrunk and value.type.HasField("tensor_type"):
        value.type.tensor_type.ClearField("shape")


# --- branches -------------------------------------------------------------------------------------------------------


def conditions(graph: GraphProto) -> list[str]:
    """What the Ifs of a graph depend on, each once."""
    return list(dict.fromkeys(n.input[0] for n in graph.node if n.op_type == "If" and n.domain in ("", "ai.onnx")))


def inline_branches(proto: ModelProto, taken: Mapping[str, bool]) -> ModelProto:
    """A model whose Ifs have become the branch that is taken.

    Args:
        proto: a model; names of its bodies are unique.
        taken: by condition, whether it is true; a branch whose condition is not there is taken to be the else branch.
    """
    found = ModelProto()
    found.CopyFrom(proto)
    del found.graph.node[:]
    for node in proto.graph.node:
        if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
            found.graph.node.append(node)
            continue
        wanted = "then_branch" if taken.get(node.input[0]) else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == wanted)
        found.graph.initializer.extend(branch.initializer)
        found.graph.node.extend(branch.node)
        for value, name in zip(branch.output, node.output, strict=True):
            found.graph.node.append(helper.make_node("Identity", [value.name], [name]))
    return found


# --- shapes ---------------------------------------------------------------------------------------------------------


def infer(
    node: NodeProto,
    shapes: Mapping[str, Shape],
    types: Mapping[str, int],
    known: Mapping[str, object],
    trips: int | None = None,
) -> dict[str, tuple[int, Shape | None]]:
    """Type and shape of each output of a control node in the flat form; None where they are not known.

    Args:
        node: the node.
        shapes, types: of tensors.
        known: values that are known.
        trips: how often a Loop runs its body, where that is certain.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Enter":
        return _infer_enter(node, attributes, shapes, types)
    own = attributes["inputs"]
    inner = list(node.input[own:])
    count = len(node.output)
    if node.op_type == "If":
        condition = known.get(node.input[0])
        found = {}
        for k, name in enumerate(node.output):
            branches = [inner[k], inner[count + k]]
            if condition is not None:
                branches = branches[:1] if bool(condition) else branches[1:]
            met = {shapes.get(b) for b in branches}
            found[name] = (types.get(branches[0], 0), met.pop() if len(met) == 1 else None)
        return found
    carried = own - 2 if node.op_type == "Loop" else own - attributes["num_scan_inputs"]
    outputs = inner[1:] if node.op_type == "Loop" else inner
    found = {}
    for k, name in enumerate(node.output):
        body = shapes.get(outputs[k])
        if k < carried:
            before = shapes.get(node.input[k + (2 if node.op_type == "Loop" else 0)])
            found[name] = (types.get(outputs[k], 0), body if body == before else None)
            continue
        length = scanned(node, shapes) if node.op_type == "Scan" else trips
        whole = None
        if length is not None and body is not None:
            axis = _axis(attributes, "scan_output_axes", k - carried, len(body) + 1)
            whole = (*body[:axis], length, *body[axis:])
        found[name] = (types.get(outputs[k], 0), whole)
    return found


def _infer_enter(
    node: NodeProto, attributes: Mapping[str, object], shapes: Mapping[str, Shape], types: Mapping[str, int]
) -> dict[str, tuple[int, Shape | None]]:
    found: dict[str, tuple[int, Shape | None]] = {}
    outputs = list(node.output)
    if attributes["kind"] == b"Loop":
        found[outputs[0]], found[outputs[1]] = (TensorProto.INT64, ()), (TensorProto.BOOL, ())
        outputs = outputs[2:]
    sliced = int(str(attributes.get("num_scan_inputs", 0)))
    for k, (name, outer) in enumerate(zip(outputs, node.input, strict=True)):
        shape = shapes.get(outer)
        which = k - (len(outputs) - sliced)
        if which >= 0 and shape is not None:
            axis = _axis(attributes, "scan_input_axes", which, len(shape))
            shape = (*shape[:axis], *shape[axis + 1 :])
        found[name] = (types.get(outer, 0), shape)
    return found


def _axis(attributes: Mapping[str, object], name: str, which: int, rank: int) -> int:
    axes = attributes.get(name)
    return int(axes[which]) % rank if isinstance(axes, list) and axes else 0


def scanned(node: NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """How often a Scan in the flat form runs its body: as long as what it scans, where that is known."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    shape = shapes.get(node.input[attributes["inputs"] - attributes["num_scan_inputs"]])
    return None if shape is None else shape[_axis(attributes, "scan_input_axes", 0, len(shape))]
