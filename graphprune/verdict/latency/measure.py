"""``graphprune profile``: tasks are written, timed, and collected."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from graphprune.analysis import analyze
from graphprune.errors import BackendError, InputError
from graphprune.model import AnyModel, load
from graphprune.model.arguments import Count, InputShapes, checked
from graphprune.progress import Progress
from graphprune.run.runtime import widened
from graphprune.verdict.latency import tasks, time_layers
from graphprune.verdict.latency.table import Table

DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
"""Short names of execution providers."""
PHASES = {"cut": 1.0, "time": 30.0}
"""What is done, and what it costs beside each other: measured on ResNet-50."""


@dataclass(frozen=True)
class How:
    """How layers are timed.

    Attributes:
        provider: execution provider of ONNX Runtime.
        threads: within one operator; 0 leaves it to the runtime.
        rounds: how often each task is timed; the fastest counts, since what else runs on the device only adds.
        levels: shares of full widths, in (0, 1]; of None the default, by the number of axes of a layer.
        allow_io: whether inputs and outputs of the graph may shrink, too.
    """

    provider: str = time_layers.CPU
    threads: Count = 0
    rounds: int = 3
    levels: Sequence[float] | None = None
    allow_io: bool = False

    def __post_init__(self) -> None:
        """Raises InputError where a value is out of range."""
        if self.rounds < 1:
            raise InputError(f"--rounds {self.rounds} is out of range: it must be at least 1")
        if self.threads < 0:
            raise InputError(f"--threads {self.threads} is out of range: it must be at least 0")
        if self.levels is not None and not all(0 < level <= 1 for level in self.levels):
            raise InputError(f"--levels {self.levels} are out of range: each is a share of the full width, up to 1")


@checked
def prepare(
    model: AnyModel,
    folder: Path,
    input_shapes: InputShapes | None = None,
    how: How = How(),
    progress: Progress | None = None,
) -> None:
    """Write what is to be timed to a folder, with a script that times it where only ONNX Runtime and numpy are.

    Raises:
        InputError: not a model, it accepts none of the sizes tried, or the folder cannot be written.
    """
    loaded = widened(load(model))
    analysis = analyze(loaded, input_shapes, allow_io=how.allow_io)
    settings = {"provider": how.provider, "threads": how.threads, "rounds": how.rounds}
    levels = None if how.levels is None else sorted({1.0, *map(float, how.levels)}, reverse=True)
    told = (progress or Progress()).begin("cut")
    tasks.write(folder, loaded, analysis, settings, levels, told)


@checked
def profile(
    model: AnyModel,
    input_shapes: InputShapes | None = None,
    how: How = How(),
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Table:
    """Time each layer of a model at a grid of widths, here.

    Args:
        model: the model.
        input_shapes: sizes of inputs, batch included; by default those that it accepts.
        how: layers are timed.
        folder: keeps finished parts, and is gone on from; a temporary one by default.
        progress: is told of it.

    Raises:
        InputError: not a model, or it does not run at these sizes.
        BackendError: this ONNX Runtime does not have the provider.
    """
    if how.provider not in ort.get_available_providers():
        there = ", ".join(ort.get_available_providers())
        raise BackendError(f"this ONNX Runtime has no {how.provider}; it has {there}")
    progress = progress or Progress()
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prepare(model, place, input_shapes, how, progress)
        settings = time_layers.settings(how.provider, how.threads)
        try:
            time_layers.run_all(place, settings, told=progress.begin("time"))
        except OSError as error:
            raise InputError(f"{place}: cannot be written ({error.strerror or error})") from error
        return tasks.collect(place)
