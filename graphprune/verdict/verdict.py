"""The verdict on a model: does it check, run, agree with the original, build, and is it faster.

Levels are judged one after the other and reported each for itself; one that cannot be judged because an earlier one
failed is skipped, and says so.

1. ``checker``: ONNX's own checker, with full shape inference.
2. ``runtime``: ONNX Runtime loads it at every level of optimisation and runs it at several sizes; outputs are finite.
3. ``comparison``: its outputs beside the original's (see ``graphprune.verdict.comparison``).
4. ``detections``, where the file says that it is a detector, or it is asked for: boxes and classes beside the
   original's (see ``graphprune.verdict.detections``).
5. ``float16``, where asked for: what rounding to float16 costs the original, beside what pruning costs, and both.
6. ``tensorrt``, where asked for: TensorRT parses and builds it (see ``graphprune.verdict.trt``), and so it does the
   original, to tell whether pruning is to blame where it does not, and whether the same layers are compiled together
   where it does. Also which weights sparse kernels could read.
7. ``engine``, with ``tensorrt`` and a GPU: the engine's outputs are those of ONNX Runtime, and its time.
8. ``speed``, where a speed-up is asked for: times in ONNX Runtime beside the original's (see ``timing``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import onnxruntime as ort

from graphprune.analysis import shapes, web
from graphprune.errors import GraphpruneError, InputError
from graphprune.model import AnyModel, Model, paths
from graphprune.model.arguments import InputShapes, Seed, checked
from graphprune.model.canonical import canonicalize
from graphprune.progress import Steps, unseen
from graphprune.relation import Shape, Values
from graphprune.run import first, samples, sizing, threads
from graphprune.run.reading import asked as sources
from graphprune.run.runtime import Feeds, generate, run, session
from graphprune.verdict import finite, half, kernels, timing, trt
from graphprune.verdict.checker import on_disk, wrong
from graphprune.verdict.checks import Checks, Level, Verdict
from graphprune.verdict.comparison import Incomparable, compare, far
from graphprune.verdict.detections import level as detected
from graphprune.verdict.forecast import forecast

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
"""ONNX Runtime's levels of optimisation."""
ENGINE_COSINE = 0.99
"""Smallest cosine of an engine's outputs with ONNX Runtime's: TensorRT computes in TF32 unless told otherwise."""
_MOST_SAMPLES = 32

Sizes = dict[str, list[int]]


class _Failed(Exception):
    """A level's answer that the model does not pass; the message is the reason."""


@checked
@threads.steady()
def validate(
    model: AnyModel,
    against: AnyModel | None = None,
    checks: Checks | None = None,
    *,
    input_shapes: InputShapes | None = None,
    seed: Seed = 0,
    progress: Steps = unseen,
) -> Verdict:
    """Judge a model.

    Args:
        model: the model, most often a pruned one.
        against: the original that its outputs, builds and times are compared with.
        checks: what is asked of it; pruning changes outputs, so by default no difference is too large.
        input_shapes: sizes for inputs whose free dims cannot be guessed.
        seed: of the generated inputs.
        progress: is told after each level how many of how many are judged.

    Raises:
        InputError: a file that is no model at all, inputs or sizes that do not fit it, or checks that need an original.
        BackendError: TensorRT is asked for and not installed.
    """
    asked = checks or Checks()
    if against is None and asked.compares:
        raise InputError(f"{', '.join(asked.compares)}: compare with an original; give one to compare against")
    if asked.tensorrt:
        trt.backend()
    paths.reads("the inputs that are read", sources.place(asked.inputs))
    with ExitStack() as stack:
        job = _Validation(
            on_disk(model, stack), None if against is None else on_disk(against, stack), asked,
            dict(input_shapes or {}), seed,
        )  # fmt: skip
        sizing.check_given(job.model, sizing.free_dims(job.model), job.given)
        levels = list(job.wanted())
        for number, (name, judge, needs) in enumerate(levels, 1):
            job.level(name, judge, needs)
            progress(number, len(levels))
    return job.verdict


class _Validation:
    def __init__(
        self, model: Model, original: Model | None, checks: Checks, given: dict[str, Shape], seed: int
    ) -> None:
        self.model, self.original, self.checks, self.given, self.seed = model, original, checks, given, seed
        self.verdict = Verdict(model.name)
        self.inputs: list[Feeds] = []
        self.builds: dict[str, trt.Build] = {}

    def wanted(self) -> Iterator[tuple[str, Callable[[Level], None], str]]:
        """The levels that are asked for, each with the one that it needs."""
        checks, compared = self.checks, self.original is not None
        for name, judge, needs, asked in (
            ("checker", self.check, "", True),
            ("runtime", self.run, "", True),
            ("comparison", self.compare, "runtime", compared),
            ("detections", self.detect, "runtime", compared and detected.asked(checks, self.original)),
            ("float16", self.half, "runtime", checks.half),
            ("tensorrt", self.build, "checker", checks.tensorrt),
            ("engine", self.engine, "tensorrt", checks.tensorrt and trt.gpu()),
            ("speed", self.speed, "runtime", checks.min_speedup is not None),
        ):
            if asked:
                yield name, judge, needs

    def level(self, name: str, judge: Callable[[Level], None], needs: str = "") -> None:
        """Judge one level, unless the one that it needs failed."""
        level = Level(name)
        self.verdict.levels.append(level)
        if any(other.name == needs and other.status != "passed" for other in self.verdict.levels):
            level.status, level.message = "skipped", f"the level {needs!r} did not pass"
            return
        start = time.perf_counter()
        try:
            judge(level)
        except (_Failed, Incomparable) as no:
            level.status, level.message = "failed", " ".join(str(no).split())
        level.seconds = round(time.perf_counter() - start, 3)

    def check(self, level: Level) -> None:
        """The checker, on the file, so that external data is looked at too; what the original has wrong is its own."""
        found = wrong(self.model)
        level.details["opsets"] = self.model.opsets
        if found and self.original is not None and wrong(self.original) == found:
            level.message = f"the original has the same fault: {found}"
        elif found:
            raise _Failed(found)

    def run(self, level: Level) -> None:
        """Every level of optimisation, on the given inputs or at the sizes that the model accepts."""
        given = self.checks.inputs is not None
        tries = list(self._given(level) if given else self._generated())
        self._tried(tries)
        for name in LEVELS:
            try:
                with session(self.model, getattr(ort.GraphOptimizationLevel, f"ORT_{name}")) as active:
                    if name == LEVELS[0]:
                        self.inputs = list(self._accepted(active, tries))
                    else:
                        for feeds in self.inputs:
                            self._finite(run(active, feeds), feeds)
            except GraphpruneError as error:
                raise _Failed(f"at {name}: {error}") from error
        sizes = [{n: list(v.shape) for n, v in feeds.items()} for feeds in self.inputs]
        level.details |= {
            "optimisation": list(LEVELS),
            "inputs": "given" if given else "generated",
            "sizes": [one for k, one in enumerate(sizes) if one not in sizes[:k]],
        }

    def _tried(self, tries: Sequence[Feeds]) -> None:
        """See in a process of its own that the model does no harm."""
        try:
            for feeds in tries:
                first.tried(self.model, feeds)
        except GraphpruneError as error:
            raise _Failed(str(error)) from error

    def _given(self, level: Level) -> Iterator[Feeds]:
        assert self.checks.inputs is not None
        settled = samples.settled(self.checks.inputs, self.original or self.model, self.given, _MOST_SAMPLES)
        level.message = settled.told
        return islice(samples.load(settled.source, self.model, input_shapes=self.given, finite=False), _MOST_SAMPLES)

    def _generated(self) -> Iterator[Feeds]:
        try:
            every = islice(sizing.alternatives(self.model, self.given), 8)
            tries = list({repr(one): one for one in every}.values())[:4]
        except InputError as error:
            raise _Failed(str(error)) from error
        for k, one in enumerate(tries):
            yield generate(self.model, one, self.seed + k)

    def _accepted(self, active: ort.InferenceSession, tries: Sequence[Feeds]) -> Iterator[Feeds]:
        """Inputs at whose sizes the model runs; what it refuses of generated ones is a matter of its own limits."""
        refused: InputError | None = None
        found = False
        for feeds in tries:
            try:
                outputs = run(active, feeds)
            except InputError as error:
                if self.checks.inputs is not None:
                    raise
                refused = refused or error
                continue
            self._finite(outputs, feeds)
            found = True
            yield feeds
        if not found:
            raise _Failed(f"{refused}; give sizes that it accepts by --input-shape")

    def _finite(self, outputs: Sequence[Values], feeds: Feeds) -> None:
        for name, value in zip(self.model.output_names, outputs, strict=True):
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise _Failed(f"output {name!r} is not a number; {self._first_nan(feeds)}")

    def _first_nan(self, feeds: Feeds) -> str:
        for name, tensor in self.model.initializers.items():
            value = self.model.tensor_array(tensor)
            if value.dtype.kind == "f" and np.isnan(value).any():
                return f"so is part of the weight {name!r}"
        return finite.first(self.model, self.model, feeds, np.isnan) or "no tensor inside shows why"

    def _outputs(self, model: Model) -> list[list[Values]]:
        """Outputs of a model for all inputs."""
        try:
            with session(model) as active:
                return [run(active, feeds) for feeds in self.inputs]
        except GraphpruneError as error:
            raise _Failed(str(error)) from error

    def compare(self, level: Level) -> None:
        """Outputs beside the original's, on the same inputs."""
        assert self.original is not None
        own, other = (
            {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in m.inputs}
            for m in (self.model, self.original)
        )
        sizes = [pair for name in own if name in other for pair in zip(own[name], other[name], strict=False)]
        if set(own) != set(other) or any(a and b and a != b for a, b in sizes):
            raise _Failed("its inputs are not those of the original, so that their outputs cannot be compared")
        counts = len(self.model.output_names), len(self.original.output_names)
        if counts[0] != counts[1]:
            raise _Failed(f"it has {counts[0]} outputs and the original {counts[1]}, so that they cannot be compared")
        expected, found = self._outputs(self.original), self._outputs(self.model)
        try:
            level.details["outputs"] = worst = self._compared(expected, found)
        except Incomparable as differ:
            if not detected.asked(self.checks, self.original):
                raise
            level.message = f"{differ}; boxes are compared below"  # as many rows as there are boxes
            return
        if self.checks.max_abs is None and self.checks.min_cosine is None:
            level.message = far(worst)
        for name, values in worst.items():
            if self.checks.max_abs is not None and not values["max_abs"] <= self.checks.max_abs:
                raise _Failed(f"output {name!r} differs by {values['max_abs']:.3g}, more than {self.checks.max_abs:g}")
            if self.checks.min_cosine is not None and not values["cosine"] >= self.checks.min_cosine:
                raise _Failed(
                    f"output {name!r} has cosine {values['cosine']:.4f}, less than {self.checks.min_cosine:g}"
                )

    def _compared(
        self, expected: Sequence[Sequence[Values]], found: Sequence[Sequence[Values]]
    ) -> dict[str, dict[str, float]]:
        return compare(self.model.output_names, expected, found, [samples.count(feeds) for feeds in self.inputs])

    def detect(self, level: Level) -> None:
        """Boxes and classes beside the original's, on the same inputs."""
        assert self.original is not None
        why = detected.judge(
            level, self.checks, self.original, (self._outputs(self.original), self._outputs(self.model))
        )
        if why:
            raise _Failed(why)

    def half(self, level: Level) -> None:
        """What float16 does to the original, what pruning does to it, and what float16 does to the pruned model."""
        own = self._outputs(self.model)
        halves = {"model": _rounded(self.model, self.given)}
        if self.original is not None:
            whole = self._outputs(self.original)
            halves["original"] = _rounded(self.original, self.given)
            level.details["original in float16 against original"] = self._compared(
                whole, self._outputs(halves["original"])
            )
            level.details["model against original"] = self._compared(whole, own)
        found = self._outputs(halves["model"])
        level.details["model in float16 against model"] = self._compared(own, found)
        for feeds, before, after in zip(self.inputs, own, found, strict=True):
            if any(finite.overflows(a, b) for a, b in zip(before, after, strict=True)):
                where = finite.first(halves["model"], self.model, feeds, lambda v: ~np.isfinite(v))
                raise _Failed(f"it exceeds float16: {where}{self._overflow_blame(halves, feeds)}")

    def _overflow_blame(self, halves: Mapping[str, Model], feeds: Feeds) -> str:
        if self.original is None:
            return ""
        with session(halves["original"]) as left, session(self.original) as right:
            also = any(finite.overflows(a, b) for a, b in zip(run(right, feeds), run(left, feeds), strict=True))
        return "; so does the original" if also else "; the original does not, so pruning is to blame"

    def build(self, level: Level) -> None:
        """TensorRT; where it refuses the model, the original tells who is to blame."""
        pair = {"pruned": self.model} | ({} if self.original is None else {"original": self.original})
        try:
            job = trt.Job(self._profile(), self.checks.capabilities, timeout=self.checks.timeout, feeds=self.inputs)
            level.details["eligible"] = self._eligible()
        except InputError as error:
            raise _Failed(str(error)) from error
        level.details["profile"] = {n: [list(s) for s in three] for n, three in job.profile.items()}
        with ExitStack() as stack:
            for name, model in pair.items():
                try:
                    built = on_disk(half.converted(model), stack) if self.checks.half else model
                except InputError as error:
                    raise _Failed(str(error)) from error
                assert built.path is not None
                self.builds[name] = trt.build(built.path, job)
                level.details[name] = self.builds[name].to_json()
        found, original = self.builds["pruned"], self.builds.get("original")
        if not found.built:
            at = f" at node {found.node!r}" if found.node else ""
            blame = ""
            if original is not None:
                blame = (
                    "; the original builds, so pruning is to blame" if original.built else "; the original fails too"
                )
            if self.model.stored:
                blame = "; its weights are stored as sparse tensors, which TensorRT does not read: store them dense"
            raise _Failed(f"{found.backend} does not build it{at}: {found.message}{blame}")
        if original is not None and original.kernels and found.kernels:
            level.details["fusion"] = asdict(kernels.fusion(original.kernels, found.kernels))

    def _profile(self) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Shapes that engines must take: those asked for, else the range of those that the model ran at."""
        ran = [{n: v.shape for n, v in feeds.items()} for feeds in self.inputs]
        ran = ran or [dict(shapes.find_witness(self.model, self.given).first.inputs)]
        found = {}
        for name, usual in ran[0].items():
            sizes = np.array([one[name] for one in ran if len(one[name]) == len(usual)])
            low, high = (tuple(int(s) for s in f(sizes, axis=0)) for f in (np.min, np.max))
            found[name] = self.checks.profile.get(name, (low, usual, high))
        unknown = [name for name in self.checks.profile if name not in found]
        if unknown:
            raise InputError(f"{self.model.name}: --shapes names {unknown[0]!r}, but its inputs are {', '.join(found)}")
        return found

    def _eligible(self) -> list[dict[str, Any]]:
        """What sparse kernels could read, and why not."""
        flat = canonicalize(self.model)
        witness = shapes.find_witness(flat, self.given)
        found = forecast(flat, witness, web.build(flat, witness), self.checks.half)
        return [
            {"node": e.layer.node, "weight": e.layer.weight, "sparse": e.layer.sparse, **e.to_json()} for e in found
        ]

    def engine(self, level: Level) -> None:
        """The engine's outputs beside ONNX Runtime's, on the GPU; what exceeds float16 shows here for what it is."""
        names = self.model.output_names
        found = [[outputs[n] for n in names] for outputs in self.builds["pruned"].outputs]
        level.details["outputs"] = worst = self._compared(self._outputs(self.model), found)
        for name, values in worst.items():
            if not values["cosine"] >= ENGINE_COSINE:
                raise _Failed(
                    f"the engine's output {name!r} has cosine {values['cosine']:.4f} with ONNX Runtime's, less than "
                    f"{ENGINE_COSINE:g}"
                )

    def speed(self, level: Level) -> None:
        """Times in ONNX Runtime."""
        assert self.original is not None and self.checks.min_speedup is not None
        shapes_ = {n: v.shape for n, v in self.inputs[0].items()}
        try:
            found = timing.bench(self.original, self.model, input_shapes=shapes_, seed=self.seed)
        except InputError as error:
            raise _Failed(str(error)) from error
        level.details |= found.to_json()
        if found.ratios[0].speedup < self.checks.min_speedup:
            raise _Failed(f"it is {found.ratios[0].speedup:.2f} times as fast, less than {self.checks.min_speedup:g}")


def _rounded(model: Model, given: Mapping[str, Shape]) -> Model:
    try:
        return half.rounded(model, shapes.find_witness(canonicalize(model), given).first.types)
    except InputError as error:
        raise _Failed(str(error)) from error
