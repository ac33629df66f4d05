"""The verdict on a model: does it check, run, agree with the original, and build.

Levels are judged one after the other and reported each for itself; one that cannot be judged because an earlier one
failed is skipped, and says so.

1. ``checker``: ONNX's own checker, with full shape inference.
2. ``runtime``: ONNX Runtime loads it at every level of optimisation and runs it at several sizes; outputs are finite.
3. ``comparison``: its outputs beside the original's, by Polygraphy's comparison and by direction (cosine), signal to
   noise (PSNR) and the winning class.
4. ``tensorrt``: TensorRT parses and builds it (see ``graphprune.trt``); where it does not, the original is tried too,
   to tell whether pruning is to blame.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from graphprune import shapes, trt
from graphprune.errors import GraphpruneError, InputError
from graphprune.files import save
from graphprune.model import AnyModel, Model, load
from graphprune.relation import Shape, Values
from graphprune.run import exposing, generate, run, session

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
"""ONNX Runtime's levels of optimisation."""

Feeds = dict[str, Values]
Sizes = dict[str, list[int]]


@dataclass(frozen=True)
class Limits:
    """Thresholds that make a comparison a gate.

    Attributes:
        max_abs: largest absolute difference of any output.
        min_cosine: smallest cosine of any output with the original's.
    """

    max_abs: float | None = None
    min_cosine: float | None = None


@dataclass
class Level:
    """One level of the verdict.

    Attributes:
        name: of the level.
        status: ``passed``, ``failed`` or ``skipped``.
        message: why it failed or was skipped, in one line.
        details: what was measured.
        seconds: time taken.
    """

    name: str
    status: str = "passed"
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Verdict:
    """What validation found.

    Attributes:
        model: the model's name.
        levels: in order.
    """

    model: str
    levels: list[Level] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no level failed."""
        return all(level.status != "failed" for level in self.levels)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"model": self.model, "passed": self.passed, "levels": [vars(level) for level in self.levels]}


class _Failed(Exception):
    """A level's answer that the model does not pass; the message is the reason."""


def validate(
    model: AnyModel,
    against: AnyModel | None = None,
    *,
    tensorrt: bool = False,
    capabilities: Sequence[tuple[int, int]] = trt.CAPABILITIES,
    limits: Limits | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
    timeout: float = 600,
) -> Verdict:
    """Judge a model.

    Args:
        model: the model, most often a pruned one.
        against: the original that its outputs are compared with.
        tensorrt: whether TensorRT must build it too.
        capabilities: what TensorRT for RTX compiles for where there is no GPU.
        limits: thresholds on the comparison; none by default, since pruning changes outputs.
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        seed: of the generated inputs.
        timeout: seconds for one build.

    Raises:
        InputError: a file that is no model at all.
        BackendError: TensorRT is asked for and not installed.
    """
    if tensorrt:
        trt.backend()
    job = _Validation(load(model), None if against is None else load(against), dict(input_shapes or {}), seed)
    job.level("checker", job.check)
    job.level("runtime", job.run)
    if against is not None:
        job.level("comparison", lambda level: job.compare(level, limits or Limits()), needs="runtime")
    if tensorrt:
        job.level("tensorrt", lambda level: job.build(level, capabilities, timeout), needs="checker")
    return job.verdict


class _Validation:
    def __init__(self, model: Model, original: Model | None, given: dict[str, Shape], seed: int) -> None:
        self.model, self.original, self.given, self.seed = model, original, given, seed
        self.verdict = Verdict(model.name)
        self.inputs: list[Feeds] = []

    def level(self, name: str, judge: Any, needs: str = "") -> None:
        """Judge one level, unless the one that it needs failed."""
        level = Level(name)
        self.verdict.levels.append(level)
        if any(other.name == needs and other.status != "passed" for other in self.verdict.levels):
            level.status, level.message = "skipped", f"the level {needs!r} did not pass"
            return
        start = time.perf_counter()
        try:
            judge(level)
        except _Failed as no:
            level.status, level.message = "failed", " ".join(str(no).split())
        level.seconds = round(time.perf_counter() - start, 3)

    def check(self, level: Level) -> None:
        """The checker, on the file where there is one, so that external data is looked at too."""
        try:
            onnx.checker.check_model(self.model.path or self.model.proto, full_check=True)
        except Exception as error:  # checker and shape inference raise errors of several kinds
            raise _Failed(_checker_message(str(error))) from error
        level.details["opsets"] = self.model.opsets

    def run(self, level: Level) -> None:
        """Every level of optimisation, at the sizes that the model accepts."""
        try:
            every = islice(shapes.alternatives(self.model, self.given), 8)
            tries = list({repr(one): one for one in every}.values())[:4]
        except InputError as error:
            raise _Failed(str(error)) from error
        sizes: list[Sizes] = []
        for name in LEVELS:
            try:
                with session(self.model, getattr(ort.GraphOptimizationLevel, f"ORT_{name}")) as active:
                    if name == LEVELS[0]:
                        sizes = self._explore(active, tries)
                    else:
                        for feeds in self.inputs:
                            self._finite(run(active, feeds), feeds)
            except GraphpruneError as error:
                raise _Failed(f"at {name}: {error}") from error
        level.details |= {"optimisation": list(LEVELS), "sizes": sizes}

    def _explore(
        self, active: ort.InferenceSession, tries: Sequence[Mapping[str, Shape]]
    ) -> list[dict[str, list[int]]]:
        """Keep the inputs at whose sizes the model runs; what it refuses is a matter of its own limits."""
        sizes: list[Sizes] = []
        refused: InputError | None = None
        for k, one in enumerate(tries):
            feeds = generate(self.model, one, self.seed + k)
            try:
                outputs = run(active, feeds)
            except InputError as error:
                refused = refused or error
                continue
            self._finite(outputs, feeds)
            self.inputs.append(feeds)
            sizes.append({n: list(s) for n, s in one.items()})
        if not self.inputs:
            raise _Failed(f"{refused}; give sizes that it accepts by --input-shape")
        return sizes

    def _finite(self, outputs: Sequence[Values], feeds: Feeds) -> None:
        for name, value in zip(self.model.output_names, outputs, strict=True):
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise _Failed(f"output {name!r} is not a number; {self._first_nan(feeds)}")

    def _first_nan(self, feeds: Feeds) -> str:
        for name, tensor in self.model.initializers.items():
            value = self.model.tensor_array(tensor)
            if value.dtype.kind == "f" and np.isnan(value).any():
                return f"so is part of the weight {name!r}"
        names = [o for n in self.model.nodes for o in n.output if o]
        with session(exposing(self.model, names)) as active:
            for name, value in zip(names, run(active, feeds, names), strict=True):
                if value.dtype.kind == "f" and np.isnan(value).any():
                    node = self.model.nodes[self.model.producer[name]]
                    return f"the first tensor that is not is {name!r}, made by node {node.name!r} ({node.op_type})"
        return "no tensor inside shows why"

    def compare(self, level: Level, limits: Limits) -> None:
        """Outputs beside the original's, on the same inputs."""
        assert self.original is not None
        own, other = (
            {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in m.inputs}
            for m in (self.model, self.original)
        )
        sizes = [pair for name in own if name in other for pair in zip(own[name], other[name], strict=False)]
        if set(own) != set(other) or any(a and b and a != b for a, b in sizes):
            raise _Failed("its inputs are not those of the original, so that their outputs cannot be compared")
        found: dict[str, dict[str, float]] = {}
        try:
            with session(self.model) as left, session(self.original) as right:
                for feeds in self.inputs:
                    pair = run(left, feeds), run(right, feeds)
                    for name, a, b in zip(self.model.output_names, *pair, strict=True):
                        _worst(found.setdefault(name, {}), metrics(np.asarray(b), np.asarray(a), name))
        except GraphpruneError as error:
            raise _Failed(str(error)) from error
        level.details["outputs"] = found
        for name, values in found.items():
            if limits.max_abs is not None and values["max_abs"] > limits.max_abs:
                raise _Failed(f"output {name!r} differs by {values['max_abs']:.3g}, more than {limits.max_abs:g}")
            if limits.min_cosine is not None and values["cosine"] < limits.min_cosine:
                raise _Failed(f"output {name!r} has cosine {values['cosine']:.4f}, less than {limits.min_cosine:g}")

    def build(self, level: Level, capabilities: Sequence[tuple[int, int]], timeout: float) -> None:
        """TensorRT; where it refuses the model, the original tells who is to blame."""
        try:
            first = shapes.find(self.model, self.given).first.inputs
        except InputError as error:
            raise _Failed(str(error)) from error
        profile = {n: (s, s, s) for n, s in first.items()}
        free = shapes.free_dims(self.model)
        for name, (low, usual, high) in profile.items():
            moving = [isinstance(d, str) for d in free.get(name) or [1] * len(usual)]
            high = tuple(2 * s if m else s for s, m in zip(usual, moving, strict=True))
            profile[name] = (low, usual, high)
        found = self._built(self.model, profile, capabilities, timeout)
        level.details["pruned"] = found.to_json()
        original = None
        if self.original is not None:
            original = self._built(self.original, profile, capabilities, timeout)
            level.details["original"] = original.to_json()
        if not found.built:
            at = f" at node {found.node!r}" if found.node else ""
            blame = ""
            if original is not None:
                blame = (
                    "; the original builds, so pruning is to blame" if original.built else "; the original fails too"
                )
            raise _Failed(f"{found.backend} does not build it{at}: {found.message}{blame}")

    def _built(
        self, model: Model, profile: trt.Profile, capabilities: Sequence[tuple[int, int]], timeout: float
    ) -> trt.Build:
        if model.path is not None:
            return trt.build(model.path, profile, capabilities, timeout=timeout)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save(model, path)
            return trt.build(path, profile, capabilities, timeout=timeout)


def metrics(expected: Values, found: Values, name: str = "output") -> dict[str, float]:
    """How far one output is from another.

    Args:
        expected: the original's, any shape.
        found: the other's.
        name: of the output.

    Returns:
        ``max_abs``, ``mean_abs``, ``max_rel``, ``mean_rel`` by Polygraphy; ``cosine``; ``psnr`` in decibels against the
        range of ``expected``; ``top1``: the share of rows (last axis) whose largest element is the same.
    """
    from polygraphy.comparator import IterationResult, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        compare = SimpleCompareFunc(atol=float("inf"), rtol=float("inf"), check_shapes=True)
        result = compare(IterationResult({name: found}), IterationResult({name: expected}))[name]
    if not hasattr(result, "max_absdiff"):
        raise _Failed(f"output {name!r} has shape {found.shape} in place of {expected.shape}")
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    noise, span = float(np.mean((a - b) ** 2)) if a.size else 0.0, float(np.ptp(a)) if a.size else 0.0
    data = {
        "max_abs": float(result.max_absdiff),
        "mean_abs": float(result.mean_absdiff),
        "max_rel": float(result.max_reldiff),
        "mean_rel": float(result.mean_reldiff),
        "cosine": float(a @ b) / size if size else float(np.array_equal(a, b)),
        "psnr": float("inf") if noise == 0 else 10 * float(np.log10(span**2 / noise)) if span else float("-inf"),
    }
    if expected.ndim > 1 and expected.shape[-1] > 1:
        data["top1"] = float((expected.argmax(-1) == found.argmax(-1)).mean())
    return data


def _worst(total: dict[str, float], one: Mapping[str, float]) -> None:
    """Keep the worse of two values of each metric."""
    for key, value in one.items():
        better_high = key in ("cosine", "psnr", "top1")
        total[key] = value if key not in total else min(total[key], value) if better_high else max(total[key], value)


def _checker_message(text: str) -> str:
    """The reason and the node, out of what the checker says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    node = re.search(r"(?:Name|node name): ?([^\s,)]+)", text)
    return (lines[0] if lines else "no reason given") + (f" (node {node[1]!r})" if node else "")
