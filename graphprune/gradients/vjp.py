"""Vector-Jacobian products of an ONNX model, as an ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from graphprune.gradients.errors import GradientError, Stop
from graphprune.gradients.expansion import prepared
from graphprune.gradients.known import Known
from graphprune.gradients.table import GRADIENT
from graphprune.gradients.terms import Tape, Term
from graphprune.gradients.walk import Blame, gradient_kind, needed, reads, reverse, steep, zeros
from graphprune.model.bodies import reread

PREFIX = "d:"
"""In front of a tensor's name: its gradient."""


@dataclass(frozen=True)
class Gradients:
    """A model that computes gradients.

    Attributes:
        model: it has the inputs of the original, an input ``d:<output>`` for each output, and outputs ``d:<tensor>``.
        stopped: tensors whose gradient it does not have, each with the node that stops it, and why.
    """

    model: ModelProto
    stopped: tuple[Stop, ...]


def vjp(
    model: ModelProto,
    outputs: Sequence[str] | None = None,
    wrt: Sequence[str] | None = None,
    *,
    keep: Sequence[str] = (),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> ModelProto:
    """The model that computes vector-Jacobian products of a model; see :func:`differentiate`.

    Raises:
        GradientError: a name is not one of the model's, or a tensor of ``wrt`` has no gradient.
    """
    found = differentiate(model, outputs, wrt, keep=keep, input_shapes=input_shapes)
    if wrt is not None and found.stopped:
        raise GradientError(str(found.stopped[0]))
    return found.model


def differentiate(
    model: ModelProto,
    outputs: Sequence[str] | None = None,
    wrt: Sequence[str] | None = None,
    *,
    keep: Sequence[str] = (),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Gradients:
    """A model's vector-Jacobian products, by reverse mode.

    The result has the model's inputs, one input ``d:<output>`` of the shape of each output, and one output
    ``d:<tensor>`` of the shape of each tensor of ``wrt``: the sum over outputs of what is fed, times the derivative of
    the output by the tensor. Gradients of half precision are computed and given in single. Where a tensor does not
    reach an output, its gradient is zero. Operators whose derivative is zero almost everywhere (Floor, Sign) are taken
    to have a zero derivative, at kinks (Relu at 0) it is zero or one of the sides.

    Args:
        model: any model; it is not changed. Its external data stays where it is.
        outputs: tensors that are differentiated, by default all outputs of float type.
        wrt: tensors of float type that gradients are asked for: constants (initializers, values of Constant nodes),
            inputs, and what nodes of the main graph make; by default all float constants that can have one.
        keep: tensors to have as outputs too, in front.
        input_shapes: sizes of inputs; without them the model's own hold, symbolic ones at run time.

    Raises:
        GradientError: a name is not one of the model's, is not of float type, or stands for two tensors of the result.
    """
    proto, known = prepared(model, input_shapes)
    graph = proto.graph
    chosen = _outputs(model, known, outputs)
    asked = _wrt(graph, known, wrt)
    keep = list(dict.fromkeys(keep))
    _check(known, keep, floats=False)
    tape = Tape.beside(graph)
    tape.steep = steep(graph.node, known)
    renamed = _freed(graph, known, tape, chosen, asked, keep)
    seeds = {renamed.get(name, name): _seed(tape, name, known) for name in chosen}
    found = reverse(graph.node, known, tape, seeds, asked)
    results: dict[str, Term] = {}
    for name in (n for n in asked if n not in found.stopped):
        term = found.gradients.get(name)
        results[name] = term if term is not None else zeros(tape, name, known)
    return Gradients(
        _assembled(model, proto, known, tape, chosen, results, keep),
        tuple(_stop(name, blame) for name, blame in found.stopped.items()),
    )


def _stop(name: str, blame: Blame) -> Stop:
    node = blame.node
    return Stop(name, node.name or next((o for o in node.output if o), ""), node.op_type, blame.reason)


def _outputs(model: ModelProto, known: Known, outputs: Sequence[str] | None) -> list[str]:
    if outputs is None:
        return [o.name for o in model.graph.output if known.kinds.get(o.name) in GRADIENT]
    _check(known, outputs)
    return list(dict.fromkeys(outputs))


def _wrt(graph: GraphProto, known: Known, wrt: Sequence[str] | None) -> list[str]:
    if wrt is None:
        return [name for name in known.own if known.constants[name].data_type in GRADIENT]
    _check(known, wrt)
    given = {*known.constants, *(i.name for i in graph.input), *(o for node in graph.node for o in node.output)}
    for name in wrt:
        if name not in given:
            raise GradientError(f"{name!r} lies in a body of a node, and no gradient is taken by it")
    return list(dict.fromkeys(wrt))


def _check(known: Known, names: Iterable[str], floats: bool = True) -> None:
    for name in names:
        if name not in known.kinds:
            raise GradientError(f"the model has no tensor {name!r}")
        if floats and known.kinds[name] not in GRADIENT:
            kind = TensorProto.DataType.Name(known.kinds[name]).lower()
            raise GradientError(f"{name!r} is of type {kind}; gradients are of floats")


def _freed(
    graph: GraphProto, known: Known, tape: Tape, chosen: Sequence[str], asked: Sequence[str], keep: Sequence[str]
) -> dict[str, str]:
    """Give tensors of the model that are called as gradients will be another name; these names.

    Raises:
        GradientError: such a tensor is an input, a constant or kept; or two gradients would have one name.
    """
    for name in asked:
        if name in chosen:
            raise GradientError(f"{name!r} is an output, and its gradient is asked for: leave one of both out")
    new = {PREFIX + name: name for name in (*chosen, *asked)}
    for name in (*(v.name for v in graph.input), *(t.name for t in graph.initializer), *keep):
        if name in new:
            raise GradientError(
                f"{name!r} is a tensor of the model, and the gradient of {new[name]!r} has this name too"
            )
    renamed: dict[str, str] = {}
    for node in graph.node:
        reread(node, renamed)
        for k, name in enumerate(node.output):
            if name in new:
                node.output[k] = renamed[name] = tape.fresh(f"{name}_before")
                known.kinds[renamed[name]] = known.kinds[name]
                if name in known.dims:
                    known.dims[renamed[name]] = known.dims[name]
    return renamed


def _seed(tape: Tape, name: str, known: Known) -> Term:
    return Term(tape, PREFIX + name, gradient_kind(known.kinds[name]), known.dims.get(name))


def _assembled(
    model: ModelProto,
    proto: ModelProto,
    known: Known,
    tape: Tape,
    chosen: Sequence[str],
    results: Mapping[str, Term],
    keep: Sequence[str],
) -> ModelProto:
    graph = proto.graph
    ends = [
        helper.make_node("Identity", [term.name], [PREFIX + name], f"{PREFIX}{name}_node")
        for name, term in results.items()
    ]
    nodes = needed([*graph.node, *tape.nodes, *ends], {*keep, *(PREFIX + name for name in results)})
    read = {name for node in nodes for name in reads(node)} | set(keep)
    built = ModelProto(ir_version=max(proto.ir_version, 8), producer_name=model.producer_name)
    built.opset_import.extend(proto.opset_import)
    out = built.graph
    out.name = f"vjp of {graph.name}" if graph.name else "vjp"
    out.node.extend(nodes)
    out.initializer.extend(t for t in graph.initializer if t.name in read)
    out.initializer.extend(t for t in tape.constants.values() if t.name in read)
    out.input.extend(graph.input)
    out.input.extend(_declared(PREFIX + name, known, name) for name in chosen)
    out.output.extend(_declared(name, known, name, own=True) for name in keep)
    out.output.extend(_declared(PREFIX + name, known, name) for name in results)
    return built


def _declared(name: str, known: Known, of: str, own: bool = False) -> ValueInfoProto:
    kind = known.kinds[of] if own else gradient_kind(known.kinds[of])
    return helper.make_tensor_value_info(name, kind, known.dims.get(of))
