"""A model in training: its weights are inputs, its loss is differentiated, both run in ONNX Runtime.

Weights and gradients are passed without copies on processors; a step is one run for each micro-batch, and one update.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphprune.gradients.adam import Adam
from graphprune.gradients.errors import Stop
from graphprune.gradients.known import constant
from graphprune.gradients.table import GRADIENT
from graphprune.gradients.vjp import PREFIX, Gradients, differentiate
from graphprune.model import Model
from graphprune.relation import Values
from graphprune.run.runtime import Feeds, fastest, session

LOSS = "loss"
"""What the scalar that is made small is called."""


def float_constants(model: ModelProto) -> dict[str, TensorProto]:
    """Initializers and values of Constant nodes of float type, by name."""
    found = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        tensor = constant(node)
        if tensor is not None:
            found[node.output[0]] = tensor
    return {name: tensor for name, tensor in found.items() if tensor.data_type in GRADIENT}


def with_weights_as_inputs(model: ModelProto, chosen: Mapping[str, TensorProto]) -> ModelProto:
    """The model with some constants as inputs behind its own, in their order, also those that it does not read.

    Args:
        model: it is not changed.
        chosen: the constants by name.
    """
    proto = ModelProto()
    proto.ir_version = model.ir_version
    proto.opset_import.extend(model.opset_import)
    proto.functions.extend(model.functions)
    graph = proto.graph
    graph.name = model.graph.name
    graph.node.extend(n for n in model.graph.node if not (n.op_type == "Constant" and n.output[0] in chosen))
    graph.initializer.extend(t for t in model.graph.initializer if t.name not in chosen)
    graph.input.extend(i for i in model.graph.input if i.name not in chosen)
    graph.input.extend(helper.make_tensor_value_info(n, t.data_type, list(t.dims)) for n, t in chosen.items())
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    return proto


@dataclass
class Trainer:
    """A loss with its gradient, and the weights that make it small.

    Attributes:
        adam: the weights.
        forward: a session that computes the loss.
        backward: a session that computes the loss and the gradient.
        kinds: type of each weight in the model; they are trained in single precision.
        stopped: weights that were asked for and have no gradient, with the reason.
    """

    adam: Adam
    forward: ort.InferenceSession
    backward: ort.InferenceSession
    kinds: Mapping[str, np.dtype[Any]]
    stopped: tuple[Stop, ...] = ()

    def weights(self) -> dict[str, Values]:
        """The weights as the model holds them."""
        return {name: np.asarray(value, self.kinds[name]) for name, value in self.adam.weights.items()}

    def loss(self, batches: Iterable[Feeds]) -> float:
        """The mean of the loss over batches."""
        held = self.weights()
        found = [float(self.forward.run([LOSS], {**feeds, **held})[0]) for feeds in batches]
        return float(np.mean(found))

    def step(self, batches: Sequence[Feeds], rate: float) -> float:
        """One step over micro-batches of like size; returns the loss before it."""
        loss = self.learn(batches)
        self.adam.step(rate)
        return loss

    def learn(self, batches: Sequence[Feeds]) -> float:
        """The gradient of a step, which is not taken yet; returns the loss."""
        held, total = self.weights(), 0.0
        one = np.ones((), np.float32)
        for feeds in batches:
            loss, *gradients = self.backward.run(None, {**feeds, **held, PREFIX + LOSS: one})
            total += float(loss) / len(batches)
            self.adam.add(dict(zip(self.adam.weights, gradients, strict=True)), 1 / len(batches))
        return total


Judge = Callable[[Feeds, Mapping[str, Values]], tuple[float, Mapping[str, Values]]]
"""A loss outside of the model, by the inputs of a run and the outputs that it gave; with its gradient by outputs."""


@dataclass
class Judged(Trainer):
    """The same for a loss that is computed outside of the model.

    Attributes:
        outputs: of the model that are judged, in the order in which ``forward`` gives them.
        judge: computes the loss and its gradient.
    """

    outputs: Sequence[str] = ()
    judge: Judge = lambda feeds, outputs: (0.0, {})

    def loss(self, batches: Iterable[Feeds]) -> float:
        """The mean of the loss over batches."""
        held = self.weights()
        return float(np.mean([self._judged(feeds, held)[0] for feeds in batches]))

    def learn(self, batches: Sequence[Feeds]) -> float:
        """The gradient of a step, which is not taken yet; returns the loss."""
        held, total = self.weights(), 0.0
        for feeds in batches:
            loss, seeds = self._judged(feeds, held)
            given = {**self._own(feeds), **held, **{PREFIX + name: seed for name, seed in seeds.items()}}
            total += loss / len(batches)
            self.adam.add(dict(zip(self.adam.weights, self.backward.run(None, given), strict=True)), 1 / len(batches))
        return total

    def _own(self, feeds: Feeds) -> Feeds:
        inputs = {i.name for i in self.forward.get_inputs()}
        return {name: value for name, value in feeds.items() if name in inputs}

    def _judged(self, feeds: Feeds, held: Feeds) -> tuple[float, Mapping[str, Values]]:
        found = self.forward.run(list(self.outputs), {**self._own(feeds), **held})
        return self.judge(feeds, dict(zip(self.outputs, found, strict=True)))


def trainer(
    model: ModelProto,
    names: Sequence[str],
    *,
    free: Collection[str] = (),
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    provider: str | None = None,
    threads: int | None = None,
) -> Trainer:
    """Make a model's weights ready for training.

    Args:
        model: it has a scalar output ``loss``; it is not changed.
        names: float constants that are to be trained.
        free: those of them whose zeros may change; of others what is zero stays zero.
        input_shapes: sizes of a batch; without them the model's own hold.
        provider: of ONNX Runtime; by default CUDA where there is one.
        threads: within an operator; 0 leaves it to ONNX Runtime. By default as ``graphprune.run.threads`` says.

    Raises:
        GradientError: a name is none of the model's float constants.
    """
    found = differentiate(model, [LOSS], names, keep=[LOSS], input_shapes=input_shapes)
    return Trainer(*_ready(model, found, free, provider or fastest(), threads), found.stopped)


def judged(
    model: ModelProto,
    names: Sequence[str],
    outputs: Sequence[str],
    judge: Judge,
    *,
    free: Collection[str] = (),
    threads: int | None = None,
) -> Judged:
    """Make a model's weights ready for training towards a loss that is computed outside of it.

    Args:
        model: it is not changed.
        names: float constants that are to be trained.
        outputs: that the loss looks at.
        judge: computes the loss.
        free: weights whose zeros may change.
        threads: within an operator; 0 leaves it to ONNX Runtime. By default as ``graphprune.run.threads`` says.

    Raises:
        GradientError: a name is none of the model's float constants.
    """
    found = differentiate(model, outputs, names)
    ready = _ready(model, found, free, fastest(), threads)
    return Judged(*ready, found.stopped, list(outputs), judge)


def _ready(
    model: ModelProto, found: Gradients, free: Collection[str], provider: str, threads: int | None
) -> tuple[Adam, ort.InferenceSession, ort.InferenceSession, dict[str, np.dtype[Any]]]:
    """The weights that have a gradient, both sessions, and types as the model has them."""
    made = [o.name for o in found.model.graph.output if o.name.startswith(PREFIX)]
    there = float_constants(model)
    held = {name: there[name] for name in (one.removeprefix(PREFIX) for one in made)}
    values = {name: numpy_helper.to_array(tensor) for name, tensor in held.items()}
    adam = Adam(values, tied=tied(values))
    if adam.stays is not None:
        bound = {adam.owner[name] for name in values if name not in free}  # of those that are one, one that stays holds
        for owner in {adam.owner[name] for name in values} - bound:
            adam.stays[adam.span[owner]] = True
    level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL

    def loaded(proto: ModelProto) -> ort.InferenceSession:
        """Unplanned, which halves the memory of a backward and takes as long."""
        ready = Model(with_weights_as_inputs(proto, held))
        with session(ready, level, threads=threads, provider=provider, planned=False) as active:
            return active

    return adam, loaded(model), loaded(found.model), {n: v.dtype for n, v in values.items()}


def tied(values: Mapping[str, Values]) -> list[list[str]]:
    """Names of weights that are equal, and so were one before they were exported.

    Weights of one value throughout (scales of ones, biases of zeros) are equal by chance.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, value in values.items():
        if value.size and not (value == value.flat[0]).all():
            groups.setdefault((value.shape, value.dtype.str, value.tobytes()), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
