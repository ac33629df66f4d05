"""Directional derivatives of whole models, in all float weights at once.

``python -m tests.gradients.directional REGEX`` prints them for the models whose names match.

The model is moved along its gradient (each weight by a step of its own size) and back; what its outputs change by is
held against what the gradient says. Differences are taken in single precision with steps of many sizes, and two
neighbouring steps must agree with the gradient; where no two do, they are taken in double precision by ONNX's
reference, where steps can be so small that they cross nothing and no digit is lost. The gradient is always the one that
ONNX Runtime computes in single precision. What a model rounds is left unrounded in both (see
``graphprune.proof.steady``): a gradient that passes through rounding is that of the numbers before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from graphprune.analysis import analyze
from graphprune.analysis.shapes import find_witness
from graphprune.gradients import Stop, differentiate
from graphprune.gradients.known import constant
from graphprune.gradients.opsets import upgrade
from graphprune.model import Model, load
from graphprune.model.canonical import canonicalize
from graphprune.proof.steady import Steady, find_steady
from graphprune.run.runtime import generate
from models import PACKAGED, export, packaged, zoo

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

HUGE = 1e30
STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
FINE = (1e-7, 1e-8)
SMOOTH = ("ppocr-v4-det", "ppocr-v5-det")
"""Models that see pictures of few large patches: where they look for text in noise, all that they find is rounding."""
PATCH = 16


@dataclass(frozen=True)
class Outcome:
    """What a model's gradient is worth.

    Attributes:
        error: of the derivative, relative.
        share: of the elements of float weights, those whose gradient is there and is not zero.
        stopped: weights without a gradient.
        precise: whether differences were taken in double precision.
    """

    error: float
    share: float
    stopped: tuple[Stop, ...]
    precise: bool = False

    @property
    def good(self) -> bool:
        return self.error < 1e-2


class NothingToCompareError(Exception):
    """No output or no weight has a derivative."""


def session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def read(name: str) -> ModelProto:
    """A model by name; what stands for weights that were left out is drawn."""
    return _drawn(onnx.load(packaged(name))) if name in PACKAGED else export(name)


def _drawn(model: ModelProto) -> ModelProto:
    """A model whose large weights are not one number filled in: matrices keep the size of signals, vectors are one."""
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT64}
    kept: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes or not node.attribute:
            kept.append(node)
            continue
        shape = tuple(int(n) for n in shapes[node.input[0]])
        value = np.ones(shape)
        if len(shape) > 1:
            value = rng.standard_normal(shape) * (1 / np.prod(shape[1:])) ** 0.5
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def inputs(model: ModelProto, smooth: bool = False) -> Feeds:
    """Inputs that the model accepts; some exports hold for a batch of one only."""
    loaded = load(model)
    shapes = find_witness(canonicalize(loaded)).inputs
    feeds: Feeds = generate(loaded, shapes)
    try:
        session(model).run(None, feeds)
    except InvalidArgument:
        feeds = generate(loaded, {name: (1, *shape[1:]) for name, shape in shapes.items()})
    if smooth:
        return {k: _patches(v) for k, v in feeds.items()}
    return feeds


def _patches(image: Array) -> Array:
    wide = image[..., ::PATCH, ::PATCH].repeat(PATCH, -2).repeat(PATCH, -1)
    return np.ascontiguousarray(wide[..., : image.shape[-2], : image.shape[-1]])


def compare(model: ModelProto, smooth: bool = False) -> Outcome:
    """Hold the derivative along the gradient against differences."""
    rng = np.random.default_rng(0)
    feeds = inputs(model, smooth)
    found = differentiate(model, input_shapes={k: v.shape for k, v in feeds.items()})
    seeds = {i.name for i in found.model.graph.input if i.name.startswith("d:")}
    if not seeds or not found.model.graph.output:
        raise NothingToCompareError(str(found.stopped[0]) if found.stopped else "no output is a float")
    names = [name.removeprefix("d:") for name in sorted(seeds)]
    values = dict(zip(names, session(model).run(names, feeds), strict=True))
    cotangents = {n: rng.standard_normal(v.shape) for n, v in values.items()}
    given = {f"d:{n}": w.astype(np.promote_types(values[n].dtype, np.float32)) for n, w in cotangents.items()}
    steady = find_steady(analyze(Model(model)))
    backward = unrounded(model, found.model) if steady.unrounded else found.model
    made = session(steady(Model(backward)).proto).run(None, {**feeds, **given})
    grads = {o.name[2:]: g.astype(np.float64) for o, g in zip(found.model.graph.output, made, strict=True)}
    base = {n: numpy_helper.to_array(t).astype(np.float64) for n, t in tensors(model) if n in grads}
    ways = directions(model, base, grads)
    expected = sum(float((grads[n] * d).sum()) for n, d in ways.items())
    if not expected:
        raise NothingToCompareError("no weight has a gradient")
    floats = sum(int(np.prod(t.dims)) for _, t in tensors(model) if t.data_type in _FLOATS)
    share = sum(int((grads[n] != 0).sum()) for n in ways) / floats

    def total(outputs: Mapping[str, Array]) -> float:
        return sum(float((w * outputs[n].astype(np.float64)).sum()) for n, w in cotangents.items())

    error = agreed(_single(model, steady, feeds, names, total), base, ways, expected, STEPS)
    if error < 1e-2 or steady.unrounded:
        return Outcome(error, share, found.stopped)
    exact = agreed(double(model, feeds, names, total), base, ways, expected, FINE)
    return Outcome(exact, share, found.stopped, precise=True)


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
Loss = Callable[[Mapping[str, Array]], float]
"""Of weights."""
Total = Callable[[Mapping[str, Array]], float]
"""Of outputs."""


def unrounded(model: ModelProto, backward: ModelProto) -> ModelProto:
    """A gradient whose own nodes do not round: half a step beyond a range it passes, where rounding leads back in."""
    own = {o for node in model.graph.node for o in node.output}
    for node in backward.graph.node:
        if node.op_type == "Round" and node.output[0] not in own:
            node.op_type = "Identity"
    return backward


def directions(model: ModelProto, base: Mapping[str, Array], grads: Mapping[str, Array]) -> dict[str, Array]:
    """How each weight moves in a step of one: along its gradient, by its mean size."""
    variances = {node.input[4] for node in model.graph.node if node.op_type == "BatchNormalization"}
    powers = {node.input[1] for node in model.graph.node if node.op_type == "Pow"}
    found = {}
    for name, value in base.items():
        if name in powers or not value.size:  # powers of negative numbers have no derivative by the exponent
            continue
        if not (np.abs(value) < HUGE).all():  # the infinite numbers of masks
            continue
        size = np.abs(value) if name in variances else float(np.abs(value).mean()) or 1e-3  # they stay positive
        found[name] = grads[name] / (float(np.sqrt((grads[name] ** 2).mean())) or 1.0) * size
    return found


def agreed(
    loss: Loss, base: Mapping[str, Array], ways: Mapping[str, Array], expected: float, steps: tuple[float, ...]
) -> float:
    """The error of the two neighbouring steps that agree best with what is expected: of both the larger."""
    errors: list[float] = []
    for step in steps:
        ends = [loss({n: base[n] + sign * step * d for n, d in ways.items()}) for sign in (1, -1)]
        errors.append(abs((ends[0] - ends[1]) / (2 * step) / expected - 1))
        if len(errors) > 1 and max(errors[-2:]) < 1e-3:
            break
    pairs = [max(p) for p in pairwise(errors) if np.isfinite(p).all()]
    return min(pairs, default=float("nan"))


def _single(model: ModelProto, steady: Steady, feeds: Feeds, names: list[str], total: Total) -> Loss:
    """In single precision, by ONNX Runtime."""

    def loss(moved: Mapping[str, Array]) -> float:
        changed = steady(Model(with_values(model, moved))).proto
        return total(dict(zip(names, session(changed).run(names, feeds), strict=True)))

    return loss


def double(model: ModelProto, feeds: Feeds, names: list[str], total: Total) -> Loss:
    """In double precision, by ONNX's reference, which misreads a few operators of old opsets."""
    wide = doubled(upgrade(model))
    given = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in feeds.items()}

    def loss(moved: Mapping[str, Array]) -> float:
        evaluator = ReferenceEvaluator(with_values(wide, moved))
        return total(dict(zip(names, evaluator.run(names, given), strict=True)))

    return loss


def doubled(model: ModelProto) -> ModelProto:
    """A model in double precision."""
    wide = ModelProto()
    wide.CopyFrom(model)
    for _, tensor in tensors(wide):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in wide.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "ConstantOfShape" and attribute.t.data_type == TensorProto.FLOAT:
                value = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))
    return wide


def with_values(model: ModelProto, values: Mapping[str, Array]) -> ModelProto:
    """A model with other weights, in the types that these have."""
    moved = ModelProto()
    moved.CopyFrom(model)
    for name, tensor in tensors(moved):
        if name in values:
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(values[name].astype(kind), tensor.name))
    return moved


def tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and Constant nodes, by name."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if constant(node) is not None and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def main(pattern: str) -> None:
    names = [n for n in (*zoo(), *PACKAGED) if re.search(pattern, n)]
    good = 0
    for name in names:
        try:
            found = compare(read(name), name in SMOOTH)
            good += found.good
            why = sorted({(s.op, s.reason) for s in found.stopped})
            text = f"{found.error:.1e} {found.share:6.1%} of weights, {len(found.stopped)} stopped {why}"
            print(f"{name:32} {text}{', differences in double precision' * found.precise}", flush=True)
        except Exception as problem:
            print(f"{name:32} {type(problem).__name__}: {str(problem)[:300]}", flush=True)
    print(f"{good} of {len(names)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
