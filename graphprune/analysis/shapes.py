"""Witness shapes: concrete sizes for every tensor, so that every relation is plain integers.

One pass over the nodes calls ONNX's own inference node by node and follows the values of shape arithmetic; what it
cannot tell is recorded from one run in ONNX Runtime. Two witnesses are taken wherever the model allows: a size or a
value that is the same at both is static, any other depends on the size of an input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from graphprune.analysis import room, trips
from graphprune.analysis.protos import declared, decoded
from graphprune.errors import InputError
from graphprune.model import Model, control, limits, node_name, subgraphs_in
from graphprune.relation import Shape, Values
from graphprune.rules import values as shape_values
from graphprune.rules.control import DOMAIN
from graphprune.run.first import owe, record_shapes
from graphprune.run.runtime import RefusedError
from graphprune.run.sizing import InputShapes, candidates, check_given, free_dims


class WitnessError(Exception):
    """The model does not accept these input shapes; the message says at which node."""


class NoRoomError(WitnessError):
    """At these input shapes the model asks for more than is allowed; the message says at which node."""


@dataclass
class Facts:
    """What is known of every tensor at one witness.

    Attributes:
        inputs: the input shapes that define the witness.
        shapes: shape of every tensor that has one.
        types: ``TensorProto`` data type of every tensor.
        values: value of every small tensor that follows from sizes and small constants alone.
        holes: for each node whose outputs could not be told, why.
    """

    inputs: InputShapes
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    holes: dict[int, str] = field(default_factory=dict)


@dataclass
class Witness:
    """A model at two witness shapes (the second may equal the first where the model has no freedom)."""

    first: Facts
    second: Facts

    @property
    def inputs(self) -> InputShapes:
        """Input shapes of the first witness."""
        return self.first.inputs

    def shape(self, name: str) -> Shape | None:
        """Shape of a tensor at the first witness."""
        return self.first.shapes.get(name)

    def value(self, name: str) -> Values | None:
        """Value of a tensor of shape arithmetic at the first witness."""
        return self.first.values.get(name)

    def static(self, name: str) -> Values | None:
        """For each entry of a followed value, whether it is the same at every size of the inputs."""
        one, two = self.first.values.get(name), self.second.values.get(name)
        if one is None:
            return None
        if two is None or one.shape != two.shape:
            return np.zeros(one.shape, bool)
        return np.asarray(one == two)


def find_witness(model: Model, given: Mapping[str, Shape] | None = None) -> Witness:
    """Find two witnesses at which every node accepts its inputs.

    Args:
        model: the model.
        given: shapes for some inputs.

    Raises:
        InputError: no candidate runs; says which ``--input-shape`` to give.
    """
    given = dict(given or {})
    dims = free_dims(model)
    check_given(model, dims, given)
    first_error: WitnessError | None = None
    for one, two in candidates(dims, given):
        try:
            first = infer(model, one)
        except WitnessError as error:
            first_error = first_error or error
            continue
        if model.source.untried:  # nothing had to be recorded
            owe(model, first.inputs)
        return Witness(first, _vary(model, first, two, dims))
    wanted = " ".join(
        f"--input-shape {n}=" + "x".join(str(d) if isinstance(d, int) else "N" for d in ds)
        for n, ds in dims.items()
        if any(isinstance(d, str) for d in ds)
    )
    if isinstance(first_error, NoRoomError) and not wanted:
        raise InputError(f"{model.name}: {first_error}")
    hint = f"give sizes that it accepts, as {wanted} with a number for each N" if wanted else "its sizes are all fixed"
    raise InputError(f"{model.name}: runs at none of the sizes tried ({first_error}); {hint}")


def _vary(model: Model, first: Facts, two: InputShapes, dims: dict[str, list[int | str]]) -> Facts:
    """A second witness: all free sizes changed if that runs, else as many as run, found by halving."""
    names = list(dict.fromkeys(d for ds in dims.values() for d in ds if isinstance(d, str)))
    best, pending = first, [names]
    for _ in range(_TRIES):
        if not pending:
            break
        changed = pending.pop()
        some, whole = {*changed}, changed is names
        merged = {
            n: tuple(
                t if t != s and (whole or d in some) else b
                for d, t, s, b in zip(dims[n] or shape, two[n], shape, best.inputs[n], strict=True)
            )
            for n, shape in first.inputs.items()
        }
        if merged == best.inputs:
            continue
        try:
            best = infer(model, merged)
        except WitnessError:
            half = len(changed) // 2
            pending += [changed[half:], changed[:half]] if half else []
    return best


_TRIES = 32
"""How often a second witness is looked for."""


# --- one pass -------------------------------------------------------------------------------------------------------


def infer(model: Model, inputs: InputShapes) -> Facts:
    """Shapes, types and values of every tensor at the given input shapes.

    Where ONNX Runtime does not load the model (operators of its own that are not installed), holes stay: what they
    touch is then pinned.

    Raises:
        WitnessError: a node refuses its inputs.
    """
    facts = follow(model, inputs)
    unknown = [out for i in facts.holes for out in model.nodes[i].output if out and out not in facts.shapes]
    if not unknown:
        return facts
    try:
        recorded = record_shapes(model, inputs, _downstream(model, facts))
    except RefusedError as error:
        facts.holes = {i: f"{why}, and {error}" for i, why in facts.holes.items()}
        return facts
    except InputError as error:
        raise WitnessError(str(error)) from error
    return _Pass(model, inputs, recorded).run()


def follow(model: Model, inputs: InputShapes) -> Facts:
    """What :func:`infer` finds without a run in ONNX Runtime.

    Raises:
        WitnessError: a node refuses its inputs, or (:class:`NoRoomError`) asks for too much.
    """
    return _Pass(model, inputs).run()


def _downstream(model: Model, facts: Facts) -> list[str]:
    return [out for node in model.nodes for out in node.output if out and out not in facts.shapes]


class _Pass:
    def __init__(self, model: Model, inputs: InputShapes, recorded: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.facts = Facts(inputs)
        self.recorded = recorded or {}
        self.followed = 0
        self.memo: dict[tuple[object, ...], dict[int, tuple[int, Shape | None]]] = {}
        self.opset_imports = list(model.proto.opset_import)
        self.limit = limits.limit()

    def run(self) -> Facts:
        facts, model = self.facts, self.model
        for value in model.inputs:
            if value.name not in facts.inputs:
                continue
            facts.shapes[value.name] = facts.inputs[value.name]
            facts.types[value.name] = value.type.tensor_type.elem_type
            self.fits(value.name)
        for name in model.sources:
            self.source(name)
        for i, node in enumerate(model.nodes):
            if node.output and node.output[0] in facts.shapes and node.output[0] in model.sources:
                continue
            self.node(i)
            for out in node.output:
                self.fits(out, i)
        told = trips.too_many(model, facts.shapes, facts.values) or room.lacking(model, facts.shapes, facts.types)
        if told is not None:
            raise NoRoomError(told)
        return facts

    def fits(self, name: str, node: int | None = None) -> None:
        """See before it is run that an input, or what a node makes, has room."""
        shape, kind = self.facts.shapes.get(name), self.facts.types.get(name)
        if shape is None or kind is None or limits.size(shape, kind) <= self.limit:
            return
        where = f"input {name!r} is" if node is None else f"node {node_name(self.model, node)!r}"
        where += "" if node is None else f" ({self.model.nodes[node].op_type}) makes"
        raise NoRoomError(f"{where} {limits.too_large(shape, kind)}")

    def source(self, name: str) -> None:
        source, facts = self.model.sources[name], self.facts
        facts.shapes[name], facts.types[name] = source.shape, source.dtype
        if np.prod(source.shape, dtype=float) <= _small(source.dtype):
            self.follow(name, self.model.array(name))

    def follow(self, name: str, value: Values) -> None:
        """Keep a value: short ones in any case, longer ones as long as they are not too many."""
        self.followed += value.size
        if value.size <= _SHORT or self.followed <= _FOLLOWED:
            self.facts.values[name] = value

    def node(self, index: int) -> None:
        facts, node = self.facts, self.model.nodes[index]
        value = None
        if (
            node.op_type in shape_values.EVALUATORS
            and node.domain in ("", "ai.onnx")
            and len([o for o in node.output if o]) == 1
        ):
            value = shape_values.evaluate(
                node.op_type,
                [facts.values.get(n) if n else None for n in node.input],
                decoded(node),
                [facts.shapes.get(n, shape_values.UNKNOWN) if n else None for n in node.input],
            )
        if value is not None:
            self.follow(node.output[0], value)
            facts.shapes[node.output[0]] = value.shape
            facts.types[node.output[0]] = helper.np_dtype_to_tensor_dtype(value.dtype)
            return
        if node.domain == DOMAIN:
            self._control(index, node)
        else:
            self._infer(index, node)
        for out in filter(None, node.output):
            if facts.shapes.get(out) is None and out in self.recorded:
                known = self.recorded[out]
                facts.shapes[out], facts.types[out] = known.shape, helper.np_dtype_to_tensor_dtype(known.dtype)
                facts.holes.pop(index, None)

    def _control(self, index: int, node: NodeProto) -> None:
        facts = self.facts
        often = trips.of_loop(self.model, node, facts.values) if node.op_type == "Loop" else None
        sure = None if often is None or often > limits.TRIPS else int(often)
        for name, (kind, shape) in control.infer(node, facts.shapes, facts.types, facts.values, sure).items():
            facts.types[name] = kind
            if shape is not None:
                facts.shapes[name] = shape
            elif name:
                facts.holes[index] = "what its bodies make has no one shape, or they run an unknown number of times"

    def _infer(self, index: int, node: NodeProto) -> None:
        facts = self.facts
        missing = [n for n in node.input if n and facts.shapes.get(n) is None]
        key = () if missing else self._key(index, node)
        if key not in self.memo:
            domain = "" if node.domain == "ai.onnx" else node.domain
            try:
                schema = onnx.defs.get_schema(node.op_type, self.model.opsets.get(domain, 1), domain)
            except onnx.defs.SchemaError:
                facts.holes[index] = f"operator {node.domain}:{node.op_type} is unknown to shape inference"
                return
            if missing:
                facts.holes[index] = f"the shape of its input {missing[0]!r} is not known"
                return
            self.memo[key] = self._ask(index, node, schema)
        for position, (kind, shape) in self.memo[key].items():
            if position < len(node.output) and node.output[position]:
                facts.types[node.output[position]] = kind
                if shape is None:
                    facts.holes[index] = f"shape inference of {node.op_type} leaves it open"
                else:
                    facts.shapes[node.output[position]] = shape
        if any(out and out not in facts.shapes for out in node.output):
            facts.holes.setdefault(index, f"shape inference of {node.op_type} leaves it open")

    def _key(self, index: int, node: NodeProto) -> tuple[object, ...]:
        """All that shape inference sees of a node."""
        facts = self.facts
        own = {name: place for place, name in enumerate(dict.fromkeys(node.input))}
        return (
            self.model.signatures[index],
            tuple([own[name] for name in node.input]),
            tuple([facts.types.get(name) for name in own]),
            tuple([facts.shapes.get(name) for name in own]),
            tuple([None if (value := self._known(name)) is None else value.tobytes() for name in own]),
            node.output[0] if subgraphs_in(node) else None,
        )

    def _known(self, name: str) -> Values | None:
        """A value for shape inference: one that is followed, or a short constant of fractions (scales of a Resize)."""
        found, source = self.facts.values.get(name), self.model.sources.get(name)
        if found is None and source is not None and source.dtype == TensorProto.FLOAT and len(source.shape) == 1:
            return self.model.array(name) if source.shape[0] <= _SCALES else None
        return found

    def _ask(self, index: int, node: NodeProto, schema: onnx.defs.OpSchema) -> dict[int, tuple[int, Shape | None]]:
        facts = self.facts
        names = [n for n in node.input if n] + self.model.captured.get(index, [])
        types = {
            n: helper.make_tensor_type_proto(facts.types[n], facts.shapes[n])
            for n in names
            if facts.shapes.get(n) is not None
        }
        known = {n: value for n in names if (value := self._known(n)) is not None}
        data = {n: numpy_helper.from_array(np.asarray(value, order="C"), n) for n, value in known.items()}
        try:
            found = shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self.opset_imports, ir_version=self.model.proto.ir_version
            )
        except shape_inference.InferenceError as error:
            if self.model.layout is not None and self.model.layout.of(node):  # a branch that need not be taken
                facts.holes[index] = f"it refuses its inputs: {_short(error)}"
                return {}
            raise WitnessError(
                f"node {node_name(self.model, index)!r} ({node.op_type}) refuses its inputs "
                f"{[facts.shapes[n] for n in names if n in facts.shapes]}: {_short(error)}"
            ) from error
        except Exception as error:  # the C++ side raises bare RuntimeErrors; the run then decides
            facts.holes[index] = f"shape inference of {node.op_type} fails: {_short(error)}"
            return {}
        result: dict[int, tuple[int, Shape | None]] = {}
        for position, out in enumerate(node.output):
            if out in found:
                result[position] = declared(found[out])
        if any(s is not None and min(s, default=1) < 0 for _, s in result.values()):
            label = f"node {node_name(self.model, index)!r} ({node.op_type})"
            raise WitnessError(f"{label} gets an input that is too small")
        return result


class Constants:
    """Shapes of constants that nodes compute, each found when it is asked for, without the rest of the model."""

    def __init__(self, model: Model) -> None:
        self._pass = _Pass(model, {})
        self._seen: set[int] = set()

    def witness(self, index: int) -> Witness:
        """What is known around a node that reads constants alone; at both witnesses it is the same."""
        model, facts, pending = self._pass.model, self._pass.facts, [index]
        while pending:
            unknown = [n for n in model.nodes[pending[-1]].input if n and n not in facts.shapes]
            for name in (n for n in unknown if n in model.sources):
                self._pass.source(name)
            before = {model.producer[n] for n in unknown if n in model.producer and n not in model.sources}
            if before - self._seen:
                pending += sorted(before - self._seen)
                self._seen |= before
            else:
                self._pass.node(pending.pop())
        return Witness(facts, facts)


_SCALES = 8
"""Fractions that an operand may have which says how large something is."""
_SHORT, _FOLLOWED = 64, 1 << 24
"""Elements of a value that is followed whatever there is beside it, and of all that are."""


def _small(dtype: int) -> int:
    """How many elements of a constant are worth following: integers make shapes, floats only scalars."""
    if dtype in (TensorProto.INT64, TensorProto.INT32):
        return shape_values.LIMIT
    return 1 if dtype != TensorProto.STRING else 0


def _short(error: BaseException) -> str:
    lines: Iterable[str] = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines)[:200]
