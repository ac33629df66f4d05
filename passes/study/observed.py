"""What is observed of a model once and read by every task: rankings, and the statistics that refits are made of.

It lies in the folder of the study as arrays, one entry for each sum over a dim, so that a task reads only what its
groups need, and a study that goes on observes nothing again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphprune.analysis import Group
from graphprune.analysis.contractions import Contraction
from graphprune.analysis.spans import Span
from graphprune.passes.choose.magnitude import Scores
from graphprune.passes.kept import Kept
from graphprune.relation import Values

Made = tuple[list[Contraction], Scores]
"""Contractions, and by group id the scores of its classes."""


class Observed:
    """Entries of a folder, made where they are missing.

    Args:
        kept: where they lie.
        make: observes.
    """

    def __init__(self, kept: Kept, make: Callable[[], Made]) -> None:
        self.kept, self.make = kept, make
        self._index = kept.read("index")

    def scores(self) -> Scores:
        """By group id the scores of its classes."""
        index = self._made()
        return {str(id): index[f"{k}/scores"] for k, id in enumerate(index["groups"])}

    def contractions(self, groups: Sequence[Group]) -> list[Contraction]:
        """All contractions over some groups."""
        vertices = {v for group in groups for v in group.labels}
        count = int(self._made()["count"])
        touched = [n for n in range(count) if vertices & set(self._made()[f"{n}/vertices"].tolist())]
        found = []
        for number in touched:
            entry = self.kept.read(number)
            if entry is None:  # it is damaged
                self._make()
                entry = self.kept.read(number)
            assert entry is not None
            found.append(_contraction(entry))
        return found

    def _made(self) -> dict[str, Values]:
        return self._make() if self._index is None else self._index

    def _make(self) -> dict[str, Values]:
        contractions, scores = self.make()
        index: dict[str, Values] = {"groups": np.asarray(list(scores)), "count": np.asarray(len(contractions))}
        index |= {f"{k}/scores": value for k, value in enumerate(scores.values())}
        for number, one in enumerate(contractions):
            index[f"{number}/vertices"] = np.asarray([v for v, _, _ in one.summed.places], np.int64)
            self.kept.write(_arrays(one), number)
        self.kept.write(index, "index")  # last: where it is, all is
        self._index = index
        return index


def _arrays(one: Contraction) -> dict[str, Values]:
    return {
        "node": np.asarray(one.node),
        "sizes": np.asarray(one.summed.sizes, np.int64),
        "places": np.asarray(one.summed.places, np.int64).reshape(-1, 3),
        "mean": one.mean,
        "gram": one.gram,
        "matrix": one.matrix,
        "adjustable": np.asarray(one.adjustable),
        "axis": np.asarray(-1 if one.axis is None else one.axis),
    }


def _contraction(entry: dict[str, Values]) -> Contraction:
    axis = int(entry["axis"])
    places = [(int(vertex), int(first), int(last)) for vertex, first, last in entry["places"]]
    return Contraction(
        int(entry["node"]),
        Span(tuple(map(int, entry["sizes"])), tuple(places)),
        entry["mean"],
        entry["gram"],
        entry["matrix"],
        bool(entry["adjustable"]),
        None if axis < 0 else axis,
    )
