"""What inner tensors do to a model's outputs, read off gradients of random cotangents.

Outputs y are multiplied by random signs r, each beside the deviation of its output, and ``L = sum r_k y_k / s_k`` is
differentiated. A change d of an inner tensor t changes the outputs by ``J d``, and

    E_r [(dL/dt . d)^2] = sum_k (J d)_k^2 / s_k^2

is their squared error, each output beside its variance: signs are independent, so that nothing between two outputs (or
two samples) is left. It is the Gauss-Newton matrix seen from t, which for squares is Fisher's (Martens, New insights
and perspectives on the natural gradient method, 2020; that random signs do: Hutchinson, 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.gradients.errors import GradientError, Stop
from graphprune.gradients.expansion import prepared
from graphprune.gradients.known import Known
from graphprune.gradients.table import GRADIENT
from graphprune.gradients.terms import Tape, Term
from graphprune.gradients.vjp import PREFIX, differentiate
from graphprune.gradients.walk import needed, reads
from graphprune.model import Model
from graphprune.model.messages import copy_all_but
from graphprune.relation import Shape, Values
from graphprune.run import samples
from graphprune.run.runtime import Feeds, RefusedError, run, session

_COTANGENT = "cotangent:"
"""In front of an output's name: its direction."""
_LARGE = 1 << 20
"""Bytes of a weight from which on it is not copied."""
_TELLING = 16
"""Samples that say how far outputs spread."""
_DIRECTED = _COTANGENT
"""The sum of all outputs by their directions; no output has an empty name."""


@dataclass(frozen=True)
class Scene:
    """The model around a gradient.

    Attributes:
        tape: where nodes are written.
        kind: of the gradient.
        known: of the model's tensors.
        makers: by tensor the node that makes it.
        samples: how many the inputs hold.
    """

    tape: Tape
    kind: int
    known: Known
    makers: Mapping[str, NodeProto]
    samples: int

    def tensor(self, name: str) -> Term:
        """A tensor of the model, in the type of the gradient.

        Raises:
            GradientError: nothing is known of its dimensions.
        """
        if name and self.known.dims.get(name) is None:
            raise GradientError(f"the number of axes of {name!r} is not known")
        kind = self.known.kinds.get(name, self.kind)
        term = Term(self.tape, name, kind, self.known.dims.get(name))
        return term.cast(self.kind) if kind in GRADIENT else term

    def like(self, node: NodeProto) -> NodeProto:
        """A node of the model as it is written in the version of ONNX's operators that this one has."""
        now = next((self.makers[o] for o in node.output if o in self.makers), node)
        return now if (now.domain, now.op_type) == (node.domain, node.op_type) else node  # else it was laid open

    def constant(self, value: Values) -> Term:
        """A constant of the type of the gradient, for this place alone."""
        name = self.tape.fresh("given")
        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(self.kind))
        self.tape.constants[name] = numpy_helper.from_array(array, name)
        return Term(self.tape, name, self.kind, array.shape)


Reading = Callable[[Term, Scene], Term]
"""What is wanted of a gradient, from it and what is around it."""


@dataclass
class Backward:
    """Gradients of a model's outputs by some of its tensors.

    Attributes:
        runs: for each run and each draw what was read, by tensor that was asked for; to be gone through once.
        stopped: tensors whose gradient is not to be had, and why.
    """

    runs: Iterator[dict[str, Values]] = field(default_factory=lambda: iter(()))
    stopped: dict[str, str] = field(default_factory=dict)


def backward(
    model: Model, feeds: Sequence[Feeds], asked: Mapping[str, Reading], seed: int = 0, draws: int = 1
) -> Backward:
    """Differentiate the outputs of a model by some of its tensors, in random directions.

    Args:
        model: as it runs.
        feeds: inputs.
        asked: by tensor what is read off its gradient.
        seed: of the directions.
        draws: how many directions for each run.

    Raises:
        InputError: ONNX Runtime cannot run the model on these inputs.
    """
    shapes = alike(feeds)
    light = _light(model)
    try:
        proto, known = prepared(light.proto, shapes)
    except GradientError as error:
        return Backward(stopped=dict.fromkeys(asked, str(error)))
    ends = [o.name for o in proto.graph.output if known.kinds.get(o.name) in GRADIENT]
    there = {name: reading for name, reading in asked.items() if known.kinds.get(name) in GRADIENT}
    result = Backward(stopped={name: f"{name!r} is not known to be a float" for name in asked if name not in there})
    if not ends or not there:
        result.stopped.update(dict.fromkeys(there, "no output is a float"))
        return result
    try:
        built, stopped = _differentiated(proto, known, ends, there, samples.count(feeds[0]) if shapes else 1)
        result.stopped.update((stop.tensor, _told(stop)) for stop in stopped)
        names = [name for name in there if name not in result.stopped]
        if built is not None:
            often, rng = [one for one in feeds for _ in range(draws)], np.random.default_rng(seed)
            result.runs = _runs(*_loaded(model, light, built), ends, names, often, rng)
    except (GradientError, RefusedError) as error:
        result.stopped.update(dict.fromkeys(there, str(error)))
    return result


def alike(feeds: Sequence[Feeds]) -> dict[str, Shape] | None:
    """Shapes of inputs where they are the same in all runs."""
    found = [{name: value.shape for name, value in one.items()} for one in feeds]
    return found[0] if all(one == found[0] for one in found) else None


def _told(stop: Stop) -> str:
    return f"{stop.op} node {stop.node!r} stops its gradient: {stop.reason}"


def _differentiated(
    proto: ModelProto, known: Known, ends: Sequence[str], asked: Mapping[str, Reading], count: int
) -> tuple[ModelProto | None, Sequence[Stop]]:
    """The model that reads what is asked for off gradients; None where all stop."""
    tape = Tape.beside(proto.graph)
    parts = []
    for name in ends:
        dims = known.dims.get(name)
        proto.graph.input.append(helper.make_tensor_value_info(_COTANGENT + name, TensorProto.FLOAT, dims))
        kind = known.kinds[name]
        directed = Term(tape, name, kind, dims).cast(TensorProto.FLOAT) * Term(tape, _COTANGENT + name, 1, dims)
        parts.append(tape.op("ReduceSum", directed, keepdims=0, dims=()))
    total = tape.total(parts)
    proto.graph.node.extend(tape.nodes)
    proto.graph.node.append(helper.make_node("Identity", [total.name], [_DIRECTED]))
    proto.graph.initializer.extend(tape.constants.values())
    proto.graph.output.append(helper.make_tensor_value_info(_DIRECTED, TensorProto.FLOAT, ()))
    found = differentiate(proto, [_DIRECTED], list(asked))
    kept = [o.name.removeprefix(PREFIX) for o in found.model.graph.output]
    if not kept:
        return None, found.stopped
    return _reading(found.model, proto, known, {name: asked[name] for name in kept}, count), found.stopped


def _reading(
    model: ModelProto, whole: ModelProto, known: Known, asked: Mapping[str, Reading], count: int
) -> ModelProto:
    """The model with what is read off gradients in place of these, in their order."""
    graph = model.graph
    tape = Tape(Tape.beside(graph).taken | Tape.beside(whole.graph).taken)
    makers = {o: node for node in whole.graph.node for o in node.output}
    declared = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    outputs = []
    for name, reading in asked.items():
        scene = Scene(tape, declared[PREFIX + name], known, makers, count)
        made = reading(Term(tape, PREFIX + name, scene.kind, known.dims.get(name)), scene)
        outputs.append(helper.make_tensor_value_info(made.name, made.kind, made.dims))
    there = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    there |= {o for node in graph.node for o in node.output}
    more = needed(whole.graph.node, {name for node in tape.nodes for name in node.input})
    more = [node for node in more if there.isdisjoint(node.output)]
    read = {name for node in (*more, *tape.nodes) for name in reads(node)}
    graph.node.extend([*more, *tape.nodes])
    graph.initializer.extend(tape.constants.values())
    graph.initializer.extend(t for t in whole.graph.initializer if t.name in read - there)
    del graph.output[:]
    graph.output.extend(outputs)
    return model


def _light(model: Model) -> Model:
    """The model with its large weights outside: they are read where it is loaded, not copied on the way there."""
    proto, lazy = ModelProto(), dict(model.lazy)
    copy_all_but(model.proto, proto, {"graph"})
    copy_all_but(model.graph, proto.graph, {"initializer"})
    for tensor in model.graph.initializer:
        outside = tensor.data_location == TensorProto.EXTERNAL or tensor.name in model.lazy
        if tensor.data_type == TensorProto.FLOAT and (outside or len(tensor.raw_data) > _LARGE):
            stub = proto.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            stub.data_location = TensorProto.EXTERNAL
            stub.external_data.add(key="location", value="weights")
            lazy[tensor.name] = partial(model.tensor_array, tensor)
        elif outside:
            proto.graph.initializer.append(numpy_helper.from_array(model.tensor_array(tensor), tensor.name))
        else:
            proto.graph.initializer.append(tensor)
    return Model(proto, model.path, lazy=lazy)


def _loaded(model: Model, light: Model, built: ModelProto) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    """Sessions of the model and of its gradients."""
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with session(model, level) as forward, session(Model(built, model.path, lazy=light.lazy), level) as active:
        return forward, active


def _runs(
    forward: ort.InferenceSession,
    active: ort.InferenceSession,
    ends: Sequence[str],
    names: Sequence[str],
    feeds: Iterable[Feeds],
    rng: np.random.Generator,
) -> Iterator[dict[str, Values]]:
    there, outputs = {i.name for i in active.get_inputs()}, [o.name for o in active.get_outputs()]
    directions = _Directions(forward, ends, rng)
    for one in feeds:
        given = {_COTANGENT + name: value for name, value in directions.of(one).items()}
        fed = {**one, **given, PREFIX + _DIRECTED: np.ones((), np.float32)}
        values = run(active, {n: v for n, v in fed.items() if n in there}, outputs)
        yield dict(zip(names, values, strict=True))


class _Directions:
    """Random directions of the outputs, so that a squared error is beside the variance of its output.

    The first runs say what the variances are; runs of the same shapes behind them are not run for that.
    """

    def __init__(self, forward: ort.InferenceSession, ends: Sequence[str], rng: np.random.Generator) -> None:
        self.forward, self.ends, self.rng = forward, ends, rng
        self.last: Feeds | None = None
        self.shapes: dict[str, Shape] = {}
        self.finite: dict[str, Values] = {}
        self.spreads: dict[str, list[float]] = {}
        self.samples = 0

    def of(self, feeds: Feeds) -> dict[str, Values]:
        """A direction for each output of a run."""
        shapes = {name: value.shape for name, value in feeds.items()}
        known = shapes == self.shapes and self.samples >= _TELLING and all(f.all() for f in self.finite.values())
        if not known and feeds is not self.last:
            if shapes != self.shapes:
                self.samples = 0
            self._look(feeds)
            self.last, self.shapes = feeds, shapes
        return {name: self._signs(name, mean=known) for name in self.ends}

    def _look(self, feeds: Feeds) -> None:
        if not self.samples:
            self.spreads = {name: [] for name in self.ends}
        self.samples += samples.count(feeds)
        for name, value in zip(self.ends, run(self.forward, feeds, self.ends), strict=True):
            self.finite[name] = finite = np.isfinite(value)  # of what masks leave infinite nothing is asked
            wide = value[finite].astype(np.float64)
            self.spreads[name].append(float(np.square(wide - wide.mean()).sum()) if wide.size else 0.0)

    def _signs(self, name: str, mean: bool) -> Values:
        spread = len(self.ends) * (float(np.mean(self.spreads[name])) if mean else self.spreads[name][-1])
        signs = (self.rng.integers(0, 2, self.finite[name].shape, np.int8) * 2 - 1) * self.finite[name]
        return np.asarray(signs * (spread**-0.5 if spread > 1e-30 else 0.0), np.float32)
