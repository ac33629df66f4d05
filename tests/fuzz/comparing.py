"""Is a written model right? Beside the original that is masked by hand from the written plan, on inputs of its own.

Where a mask by hand does not say all (bodies, zero points, statistics that see what is gone, changes of basis), the
plan is applied once more to the same file, with the proof on other inputs, and must come to the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

import graphprune
from graphprune.errors import GraphpruneError
from graphprune.run.runtime import generate
from tests.helpers import bare, mask_by_hand

SEED = 4711
TOLERANCE = 1e-3
"""Relative to the largest value of an output; the proof of the program asks for 1e-4 in float32."""
_BEYOND = ("bases", "folded", "compensated", "sparsity", "distilled", "rounds", "factored", "vocabulary", "blocks")
"""Entries of a plan that say more than which elements go."""
_HIDDEN = {
    "If", "Loop", "Scan", "SequenceMap", "DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
    "ConvInteger", "QLinearConv", "QLinearMatMul", "TopK", "ArgMax", "ArgMin", "NonZero", "Unique", "Multinomial",
    "QLinearAdd", "QGemm", "QLinearGlobalAveragePool",
}  # fmt: skip

Said = Callable[[tuple[str, ...], Path], tuple[int, str]]


class Unable(Exception):
    """There is nothing to compare with; says why."""


def trouble(folder: Path, original: Path, result: Path, said_by: Said) -> str | None:
    """What is wrong with a written model, or None."""
    plan_place = result.with_name("out.plan.json")
    if not plan_place.is_file():
        raise Unable("no plan")
    plan = json.loads(plan_place.read_text())
    try:
        active = _session(result.read_bytes(), str(result))
    except Exception as error:
        try:
            _session(b"", str(original))
        except Exception:
            raise Unable("ONNX Runtime loads neither") from error  # bfloat16, which the program runs as float32
        return f"ONNX Runtime does not load the result: {error}"
    if plan.get("compensated") or plan.get("distilled"):
        return None  # values differ from the original's on purpose
    proto = onnx.load(original, load_external_data=False)
    kinds = {n.op_type for n in proto.graph.node}
    if any(plan.get(key) for key in _BEYOND) or kinds & _HIDDEN or any(g["statistical"] for g in plan["groups"]):
        return _again(folder, plan_place, original, result, said_by)
    try:
        masked = mask_by_hand(proto, plan).SerializeToString()
        beside = _session(masked, None)
        feeds = generate(graphprune.model.load(original), _shapes(plan), SEED)
        wanted = beside.run(None, feeds)
    except (GraphpruneError, StopIteration, KeyError, ValueError, TypeError, AttributeError):
        return _again(folder, plan_place, original, result, said_by)
    except Exception as error:  # ONNX Runtime's own, which share no base class
        if "onnxruntime" not in type(error).__module__:
            raise
        return _again(folder, plan_place, original, result, said_by)
    try:
        found = active.run(None, feeds)
    except Exception as error:
        return f"the result does not run: {error}"
    worst = _worst(wanted, found)
    if worst is None or worst <= TOLERANCE or worst <= 30 * _chaos(masked, feeds, wanted):
        return None
    return f"off by {worst:.2g} relative from the original masked by hand"


def _shapes(plan: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in plan["model"]["witness"].items()}


def _again(folder: Path, plan: Path, original: Path, result: Path, said_by: Said) -> str | None:
    """Apply the written plan, with the proof on other inputs."""
    command = ("apply", plan.name, original.name, "-o", "again.onnx", "-q", "--seed", str(SEED), "--memory", "1G")
    status, said = said_by(command, folder)
    if status != 0:
        return f"the written plan does not hold on other inputs: {said.strip()[-400:]}"
    again = folder / "again.onnx"
    if bare(result) == bare(again):
        return None
    loaded = graphprune.model.load(original)  # rounds scale what stays more than once, and number names otherwise
    feeds = generate(loaded, _shapes(json.loads(plan.read_text())), SEED)
    one, two = (_session(b"", str(place)).run(None, feeds) for place in (result, again))
    near = (_worst(one, two) or 0.0) <= TOLERANCE
    return None if near else "the written plan comes to another model than the one that was written"


def _session(data: bytes, place: str | None, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level, options.intra_op_num_threads = 4, level, 1
    return ort.InferenceSession(place or data, options, providers=["CPUExecutionProvider"])


def _worst(wanted: list[Any], found: list[Any]) -> float | None:
    """The largest difference relative to an output's largest value; None where there is nothing that is finite."""
    errors = []
    for a, b in zip(wanted, found, strict=True):
        if not isinstance(a, np.ndarray) or a.dtype.kind in "OUS":
            errors.append(0.0 if np.array_equal(np.asarray(a, object), np.asarray(b, object)) else np.inf)
            continue
        if a.shape != b.shape:
            return float("inf")
        a, b = (np.nan_to_num(v.astype(np.float64), nan=1e300, posinf=2e300, neginf=-2e300) for v in (a, b))
        held = np.abs(a) < 1e300
        if not np.array_equal(a[~held], b[~held]):
            return float("inf")
        scale = max(float(np.abs(a[held]).max(initial=0)), 1e-30)
        errors.append(float(np.abs(a[held] - b[held]).max(initial=0)) / scale)
    return max(errors, default=None)


def _chaos(masked: bytes, feeds: Mapping[str, Any], wanted: list[Any]) -> float:
    """How far the masked original is from itself: without optimisation, and on inputs that differ by a rounding."""
    near = {n: v * np.asarray(1 + 1e-6, v.dtype) if v.dtype.kind == "f" else v for n, v in feeds.items()}
    try:
        plain = _session(masked, None, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        runs = [plain.run(None, dict(feeds)), plain.run(None, dict(feeds)), plain.run(None, near)]
    except Exception:
        return 0.0
    return max(_worst(wanted, run) or 0.0 for run in runs)
