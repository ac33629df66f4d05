"""The pass that changes bases again as a plan says: with the matrices that lie beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphprune.analysis import Analysis
from graphprune.errors import InputError
from graphprune.passes.basis.copies import Copies
from graphprune.passes.basis.rotate import Rotate, key
from graphprune.passes.basis.turn import Turn
from graphprune.passes.replay import replayed
from graphprune.passes.state import State


@dataclass(frozen=True)
class ReplayBases(Rotate):
    """Turn the groups that the plan that is applied has turned."""

    name: ClassVar[str] = "replay-bases"

    def requires(self, state: State) -> Sequence[str]:
        """It goes with a plan."""
        return ()

    def call(self, state: State) -> State:
        """Turn them by the plan's matrices."""
        state.progress.begin(self.name)
        plan = replayed(state)
        wanted = plan.bases.get("rotated", {})
        if not wanted:
            return state
        analysis, spaces, stayed = self._found(state)
        missing = next((id for id in wanted if not any(one.mixing.group.id == id for one in spaces)), None)
        if missing is not None:
            why = stayed.get(missing)
            said = "" if why is None else f": {why}"
            raise InputError(
                f"{plan.where}: does not fit {state.original.name}: at bases/rotated: group {missing!r} cannot be "
                f"turned{said}"
            )
        return self._turned(state, analysis, self._turns(state, analysis, spaces), stayed)

    def _turns(self, state: State, analysis: Analysis, spaces: Sequence[Copies]) -> list[Turn]:
        """The matrices of the plan."""
        plan = replayed(state)
        found = []
        for copies in spaces:
            held, size = plan.matrices.get(key(copies)), copies.mixing.group.size
            wanted = (2, copies.count, size, size)
            if held is None or held.shape != wanted:
                found_shape = "none" if held is None else "x".join(map(str, held.shape))
                raise InputError(
                    f"{plan.where}: does not fit {state.original.name}: at bases: {key(copies)!r} wants matrices of "
                    f"shape {'x'.join(map(str, wanted))}, and there is {found_shape}"
                )
            found.append(Turn(copies, *np.asarray(held, np.float64)))
        return found
