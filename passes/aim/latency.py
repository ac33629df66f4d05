"""Latency as a target: foreseen by a table of what each layer takes at each width, and measured in paired runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphprune.analysis import Analysis
from graphprune.model import Use
from graphprune.passes.choose.meters import Meter, Term
from graphprune.passes.choose.widths import Widths
from graphprune.passes.rounds import cutting
from graphprune.passes.state import State
from graphprune.progress import Retitled
from graphprune.relation import Values
from graphprune.run import sizing
from graphprune.verdict import latency, timing
from graphprune.verdict.latency import Table
from graphprune.verdict.latency.table import Layer

ROUNDS, LONG = (40, 400), 3.0
"""Of a paired benchmark: at least and at most so many; as many as the original needs so many seconds for."""


@dataclass(frozen=True)
class Clock:
    """How latency is told.

    Attributes:
        table: what each layer takes at each width.
        given: whether the table came from elsewhere, so that nothing can be measured here.
        seconds: what one run of the original takes.
        provider, threads: of ONNX Runtime.
    """

    table: Table
    given: bool
    seconds: float
    provider: str
    threads: int

    def left(self, state: State) -> float:
        """The share of the original's time that the model takes as it is now."""
        if self.given:
            cut = cutting(state)
            now = sizes(cut.analysis, cut.done.removal.size)
            return self.table.seconds(now) / self.table.seconds(sizes(state.analysis(state.original)))
        job = state.job
        found = timing.bench(
            state.original,
            state.model,
            input_shapes=job.input_shapes,
            threads=self.threads,
            provider=self.provider,
            rounds=int(np.clip(LONG / self.seconds, *ROUNDS)),
            seed=job.seed,
            footprints=False,
        )
        return 1 / found.ratios[0].speedup

    def meter(self, widths: Widths) -> Meter:
        """Seconds of the model at any widths; layers that are no more cost nothing."""
        terms = [term for layer in self.table.layers if (term := self._term(layer, widths.analysis)) is not None]
        return Meter(widths, terms, self.table.rest)

    def _term(self, layer: Layer, analysis: Analysis) -> Term | None:
        vertices = [_vertex(analysis, *axis) for axis in layer.axes]
        if layer.node not in analysis.model.producer or any(v is None for v in vertices):
            return None
        scale = self.table.scale

        def value(sizes: Sequence[Values | int]) -> Values:
            return scale * layer.at([np.asarray(size) for size in sizes])

        return Term(tuple(v for v in vertices if v is not None), value)


def clock(state: State, table: str | None, provider: str, threads: int) -> Clock:
    """How the latency of a job's model is told.

    Args:
        state: of the job.
        table: a file that ``graphprune profile`` wrote; None has the layers timed here.
        provider, threads: of ONNX Runtime, where they are timed here.

    Raises:
        InputError: the table is not of this model.
        BackendError: this ONNX Runtime does not have the provider.
    """
    analysis = state.analysis(state.original)
    if table is not None:
        read = latency.load(table)
        latency.check(read, analysis, table)
        return Clock(read, True, read.total, provider, threads)
    feeds = next(iter(sizing.accepted(analysis.model, state.job.input_shapes, state.job.seed)))
    shapes = {name: tuple(value.shape) for name, value in feeds.items()}
    how = latency.How(provider, threads, allow_io=state.job.allow_io)
    seen = Retitled(state.progress, {"cut": "cut out layers", "time": "time layers"})
    found = latency.profile(state.original, shapes, how, progress=seen)
    return Clock(found, False, found.total, provider, threads)


def _vertex(analysis: Analysis, tensor: str, axis: int) -> int | None:
    start = analysis.web.axis_of.get(tensor)
    if start is None:
        uses = (u for u in analysis.web.axis_of if isinstance(u, Use) and analysis.root(u) == tensor)
        start = next((analysis.web.axis_of[u] for u in uses), None)
    return None if start is None else start + axis


def sizes(analysis: Analysis, size: Callable[[int], int] | None = None) -> Callable[[str, int], int]:
    """Widths of axes: those that are left of a model that was cut, or its own."""

    def of(tensor: str, axis: int) -> int:
        vertex = _vertex(analysis, tensor, axis)
        if vertex is None:
            shape = analysis.witness.shape(tensor)
            return 0 if shape is None else shape[axis]
        return analysis.web.sizes[vertex] if size is None else size(vertex)

    return of
