"""What a study of sensitivity found: how the score falls as each set of groups alone loses classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphprune import __version__

FORMAT = "graphprune-sensitivity/1"
SORTS = ("drop", "model")
"""Orders of rows: what costs most beside what it saves first, or as in the model."""
STEPS = 8
"""Steps of heat above none."""


@dataclass(frozen=True)
class Point:
    """One set without some of its classes.

    Attributes:
        level: the share that was asked for.
        removed: how many classes went.
        share: of all of the set.
        score: of the model without them; None where it makes what is not finite.
        drop: by how much that is below the original's score; None where one of both is not known.
        macs_saved, parameters_saved: beside the original; copies of shared weights may make it negative.
    """

    level: float
    removed: int
    share: float
    score: float | None
    drop: float | None
    macs_saved: int
    parameters_saved: int


@dataclass(frozen=True)
class Curve:
    """One set of groups that lose the same classes.

    Attributes:
        groups: their ids, in the order of the model.
        kind: of the first of them.
        size: number of classes.
        free: how many of them can go.
        order: the classes that go first, the least important first, as many as went at the highest level.
        points: by level, ascending; those that are computed.
    """

    groups: tuple[str, ...]
    kind: str
    size: int
    free: int
    order: tuple[int, ...]
    points: tuple[Point, ...]

    def price(self, macs: int, parameters: int) -> float | None:
        """The drop for each share of the model that is saved, over all levels; None where nothing is known.

        Args:
            macs, parameters: of the whole model. Shares are of MACs, of parameters where no MACs are saved.
        """
        known = [p for p in self.points if p.removed]
        if not known:
            return None
        if any(p.score is None for p in known):
            return math.inf
        if any(p.drop is None for p in known):
            return None
        saved = sum(p.macs_saved for p in known) / max(macs, 1) or sum(p.parameters_saved for p in known) / max(
            parameters, 1
        )
        drop = sum(p.drop for p in known if p.drop is not None)
        return drop / saved if saved > 0 else math.inf if drop > 0 else 0.0


@dataclass(frozen=True)
class Sensitivity:
    """How much each set of groups alone can lose.

    Attributes:
        model: its name.
        sha256: of its file.
        metric: by which it is judged.
        original: the score of the original; None where another shard has still to tell.
        criterion: by what classes were ranked.
        seed: of what was drawn by chance.
        levels: shares of the classes of a set.
        macs, parameters: of the original.
        curves: in the order of the model.
        untouched: prunable groups that were left out, and why.
        missing: how many tasks other shards have still to compute.
        notes: what the user should know beside it.
    """

    model: str
    sha256: str
    metric: str
    original: float | None
    criterion: str
    seed: int
    levels: tuple[float, ...]
    macs: int
    parameters: int
    curves: tuple[Curve, ...]
    untouched: tuple[tuple[str, str], ...] = ()
    missing: int = 0
    notes: tuple[str, ...] = field(default=())

    def sorted(self, by: str = SORTS[0]) -> list[Curve]:
        """The curves in one of :data:`SORTS`."""
        if by == "model":
            return list(self.curves)
        prices = {curve.groups: self.price(curve) for curve in self.curves}
        return sorted(self.curves, key=lambda c: -math.inf if (p := prices[c.groups]) is None else p, reverse=True)

    def only(self, curves: Sequence[Curve]) -> Sensitivity:
        """The same with some of its curves, in their order."""
        return replace(self, curves=tuple(curves))

    def price(self, curve: Curve) -> float | None:
        """The drop of a curve for each share of the model that is saved."""
        return curve.price(self.macs, self.parameters)

    @property
    def most(self) -> float:
        """The largest drop that is finite."""
        return max((p.drop for c in self.curves for p in c.points if p.drop is not None), default=0.0)

    def heat(self, point: Point) -> int:
        """How large a drop is beside the largest, from 0 to :data:`STEPS`; by its root, so that small ones differ."""
        if point.removed and point.score is None:
            return STEPS
        if point.drop is None or point.drop <= 0 or self.most <= 0:
            return 0
        return max(1, math.ceil(STEPS * math.sqrt(point.drop / self.most)))

    def to_json(self) -> dict[str, Any]:
        """The result as JSON holds it (``sensitivity.schema.json``)."""
        return {
            "format": FORMAT,
            "graphprune": __version__,
            "model": {"file": self.model, "sha256": self.sha256, "macs": self.macs, "parameters": self.parameters},
            "metric": self.metric,
            "original": self.original,
            "criterion": self.criterion,
            "seed": self.seed,
            "levels": list(self.levels),
            "missing": self.missing,
            "notes": list(self.notes),
            "sets": [self._told(curve) for curve in self.curves],
            "untouched": [{"group": group, "reason": reason} for group, reason in self.untouched],
        }

    def _told(self, curve: Curve) -> dict[str, Any]:
        price = self.price(curve)
        return {
            "groups": list(curve.groups),
            "kind": curve.kind,
            "size": curve.size,
            "free": curve.free,
            "price": None if price is None or math.isinf(price) else rounded(price),
            "order": list(curve.order),
            "levels": [vars(point) for point in curve.points],
        }


def from_json(data: Mapping[str, Any]) -> Sensitivity:
    """What a file says (``sensitivity.schema.json``, by which it is checked before)."""
    model = data["model"]
    curves = tuple(
        Curve(
            tuple(one["groups"]),
            one["kind"],
            one["size"],
            one["free"],
            tuple(one["order"]),
            tuple(Point(**level) for level in one["levels"]),
        )
        for one in data["sets"]
    )
    return Sensitivity(
        model["file"], model["sha256"], data["metric"], data["original"], data["criterion"], data["seed"],
        tuple(data["levels"]), model["macs"], model["parameters"], curves,
        tuple((one["group"], one["reason"]) for one in data["untouched"]), data["missing"], tuple(data["notes"]),
    )  # fmt: skip


def rounded(value: float) -> float | None:
    """A number as files hold it: nine digits; None where it is not finite."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def blocks(found: Sensitivity, points: Sequence[Point]) -> str:
    """Heat as characters, one a point; the higher the more is lost."""
    return "".join(_BLOCKS[found.heat(point)] for point in points)


_BLOCKS = "·▁▂▃▄▅▆▇█"
