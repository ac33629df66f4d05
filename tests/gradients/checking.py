"""Gradients against central differences in float64, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphprune.gradients import differentiate

Array = npt.NDArray[Any]
STEP = 1e-5
FEW = 48
"""Elements up to which each is moved alone; above, some random directions are taken."""


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    kind: int,
    *,
    outputs: int = 1,
    dynamic: bool = False,
    loose: Mapping[int, Sequence[int]] | None = None,
    opset: int = 23,
    domain: str = "",
    **attributes: Any,
) -> ModelProto:
    """A model of one node; floats are inputs of type ``kind``, other inputs are constants, unless ``dynamic``.

    Dimensions are numbers, or names where it is dynamic: all of them, or those of ``loose`` by input.
    """
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    declared, constants = [], []
    for name, value in zip(names, inputs, strict=True):
        if value is None:
            continue
        if value.dtype.kind == "f" or dynamic:
            elem = kind if value.dtype.kind == "f" else helper.np_dtype_to_tensor_dtype(value.dtype)
            open_axes = loose.get(int(name[1:]), ()) if loose is not None else range(value.ndim)
            dims = [f"{name}_{k}" if dynamic and k in open_axes else n for k, n in enumerate(value.shape)]
            declared.append(helper.make_tensor_value_info(name, elem, dims))
        else:
            constants.append(
                helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape, value.reshape(-1))
            )
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, made, "node", domain=domain, **attributes)
    results = [ValueInfoProto(name=y) for y in made]
    graph = helper.make_graph([node], "one", declared, results, constants)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def evaluate(model: ModelProto, feeds: dict[str, Array], exact: bool) -> list[Array]:
    """Outputs, by ONNX's reference in float64 or by ONNX Runtime."""
    if exact:
        return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, feeds)]
    return list(_session(model.SerializeToString()).run(None, feeds))


@lru_cache(4)
def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, ["CPUExecutionProvider"])


def check(
    op: str,
    *inputs: Array | None,
    outputs: int = 1,
    wrt: Sequence[int] | None = None,
    exact: bool = True,
    tolerance: float = 1e-3,
    seed: int = 0,
    static_only: bool = False,
    **options: Any,
) -> None:
    """Hold the gradients of an operator against differences, with sizes known and unknown.

    Args:
        op: the operator.
        *inputs: its inputs, None where one is left out.
        outputs: how many outputs it has; those of float type are differentiated.
        wrt: inputs whose gradients are compared, by default all of float type.
        exact: whether ONNX's reference evaluates the operator; else ONNX Runtime does, in float32 (with a larger step).
        tolerance: of the differences, relative to the largest element of the gradient.
        seed: of directions and cotangents.
        static_only: sizes that are not known before the run are not tried.
        **options: ``opset``, ``domain``, ``loose``, and attributes of the node.
    """
    rng = np.random.default_rng(seed)
    floats = [i for i, v in enumerate(inputs) if v is not None and v.dtype.kind == "f"]
    chosen = floats if wrt is None else list(wrt)
    kind, step = (TensorProto.DOUBLE, STEP) if exact else (TensorProto.FLOAT, 1e-2)
    model = one_node(op, inputs, kind, outputs=outputs, **options)
    dtype = np.float64 if exact else np.float32
    base = {f"x{i}": np.asarray(inputs[i], dtype) for i in floats}
    values = evaluate(model, base, exact)
    weights = [rng.standard_normal(v.shape) if v.dtype.kind == "f" else None for v in values]

    def loss(feeds: dict[str, Array]) -> float:
        found = evaluate(model, feeds, exact)
        return sum(
            float((w * v.astype(np.float64)).sum()) for w, v in zip(weights, found, strict=True) if w is not None
        )

    for dynamic in (False,) if static_only else (False, True):
        grads = gradients(op, inputs, weights, chosen, outputs=outputs, dynamic=dynamic, **options)
        for i in chosen:
            grad = grads[f"d:x{i}"]
            assert grad.shape == base[f"x{i}"].shape and grad.dtype == np.float32
            for direction in _directions(base[f"x{i}"], rng):
                ends = []
                for sign in (1, -1):
                    moved = np.asarray(base[f"x{i}"] + sign * step * direction, dtype)
                    ends.append(loss({**base, f"x{i}": moved}))
                expected = (ends[0] - ends[1]) / (2 * step)
                found = float((grad.astype(np.float64) * direction).sum())
                scale = 1 + float(np.abs(grad).max(initial=0)) * float(np.abs(direction).sum()) ** 0.5
                assert abs(found - expected) <= tolerance * scale, (op, i, dynamic, found, expected, options)


def gradients(
    op: str, inputs: Sequence[Array | None], weights: Sequence[Array | None], chosen: Sequence[int], **options: Any
) -> dict[str, Array]:
    """Gradients by ONNX Runtime, in float32."""
    model = one_node(op, inputs, TensorProto.FLOAT, **options)
    seeds = [f"y{k}" for k, w in enumerate(weights) if w is not None]
    found = differentiate(model, seeds, [f"x{i}" for i in chosen]).model
    feeds = {f"d:y{k}": np.asarray(w, np.float32) for k, w in enumerate(weights) if w is not None}
    declared = {i.name for i in model.graph.input}
    for i, value in enumerate(inputs):
        if value is not None and f"x{i}" in declared:
            feeds[f"x{i}"] = np.asarray(value, np.float32) if value.dtype.kind == "f" else value
    names = [o.name for o in found.graph.output]
    return dict(zip(names, evaluate(found, feeds, exact=False), strict=True))


def _directions(value: Array, rng: np.random.Generator) -> list[Array]:
    if value.size <= FEW:
        return [row.reshape(value.shape) for row in np.eye(value.size)]
    return [rng.standard_normal(value.shape) for _ in range(6)]


def check_model(
    model: ModelProto,
    feeds: dict[str, Array],
    wrt: Sequence[str] | None = None,
    *,
    tolerance: float = 1e-6,
    step: float = STEP,
    seed: int = 0,
    **options: Any,
) -> dict[str, Array]:
    """Hold gradients of a whole model in float64 against differences, both by ONNX Runtime; the gradients.

    Args:
        model: its floats are of type double.
        feeds: its inputs.
        wrt: inputs and constants, those of bodies too; by default all that have gradients.
        tolerance: relative to the largest element of a gradient.
        step: by which elements are moved.
        seed: of cotangents.
        **options: of ``differentiate``.
    """
    rng = np.random.default_rng(seed)
    found = differentiate(model, None, wrt, **options)
    assert not (wrt is None and found.stopped), found.stopped
    onnx.checker.check_model(found.model, full_check=True)
    names = [i.name.removeprefix("d:") for i in found.model.graph.input if i.name.startswith("d:")]
    places = [[o.name for o in model.graph.output].index(n) for n in names]
    weights = [rng.standard_normal(evaluate(model, feeds, False)[k].shape) for k in places]
    given = {**feeds, **{f"d:{n}": w for n, w in zip(names, weights, strict=True)}}
    given = {k: v for k, v in given.items() if k in {i.name for i in found.model.graph.input}}
    results = [o.name.removeprefix("d:") for o in found.model.graph.output]
    grads = dict(zip(results, evaluate(found.model, given, False), strict=True))

    def loss(name: str, value: Array) -> float:
        moved = model if name in feeds else with_constant(model, name, value)
        out = evaluate(moved, {**feeds, name: value} if name in feeds else feeds, False)
        return sum(float((w * out[k]).sum()) for w, k in zip(weights, places, strict=True))

    for name, grad in grads.items():
        base = feeds[name] if name in feeds else constant_of(model, name)
        assert grad.shape == base.shape, (name, grad.shape, base.shape)
        for direction in _directions(base, rng):
            ends = [loss(name, base + sign * step * direction) for sign in (1, -1)]
            expected, told = (ends[0] - ends[1]) / (2 * step), float((grad * direction).sum())
            scale = 1 + float(np.abs(grad).max(initial=0))
            assert abs(told - expected) <= tolerance * scale, (name, told, expected)
    return grads


def constant_of(model: ModelProto, name: str) -> Array:
    """The value of a constant, wherever it is."""
    return next(numpy_helper.to_array(t) for n, t in _constants(model.graph) if n == name)


def with_constant(model: ModelProto, name: str, value: Array) -> ModelProto:
    """A model with another value of a constant."""
    moved = ModelProto()
    moved.CopyFrom(model)
    for found, tensor in _constants(moved.graph):
        if found == name:
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return moved


def _constants(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _constants(attribute.g)
