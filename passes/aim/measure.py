"""What a result comes to, in the terms of targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphprune.analysis import Analysis, cost
from graphprune.model import files
from graphprune.passes.choose import meters
from graphprune.passes.choose.allocation import Budget
from graphprune.passes.choose.meters import Meter
from graphprune.passes.choose.widths import Widths
from graphprune.passes.rounds import macs
from graphprune.passes.state import State

_HASHES = 280
"""Bytes that version, hashes and names take in a model's metadata, about."""


def _bytes(state: State) -> float:
    """Of the file that will be written; it says how it was made."""
    return files.size(state.model) + len(state.told) + _HASHES


COSTS: Mapping[str, tuple[Callable[[State], float], Callable[[State], float]]] = {
    "macs": (
        lambda state: cost.macs(state.analysis(state.original)),
        macs,
    ),
    "params": (
        lambda state: cost.parameters(state.analysis(state.original).model),
        lambda state: cost.parameters(state.model),
    ),
    "bytes": (lambda state: cost.file_bytes(state.analysis(state.original).model), _bytes),
}
"""By kind what the original costs, and what the model costs as it is now."""


def budget(kind: str, limit: float, state: State, analysis: Analysis) -> Budget:
    """What a model may cost, as the choice of classes takes it.

    Args:
        kind: one of :data:`COSTS`.
        limit: at most so much.
        state: before the choice.
        analysis: of the model that classes are chosen of.
    """
    if kind == "bytes":
        now = _bytes(state)

        def meter(widths: Widths) -> Meter:
            return meters.nbytes(widths, now)

        return Budget(kind, limit, meter)
    return Budget(kind, limit, {"macs": meters.macs, "params": meters.parameters}[kind])
