"""What a sweep found: what each run came to, and which of them nothing else beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphprune import __version__
from graphprune.passes.study.curves import rounded

FORMAT = "graphprune-sweep/1"


@dataclass(frozen=True)
class Came:
    """What one run came to.

    Attributes:
        macs, parameters: of the result.
        bytes: of its file, with external data.
        score: by the metric; None where it makes what is not finite.
        sha256: of its file.
        missed: what does not hold, where the nearest was taken; empty where all does.
        notes: what the user should know of the run.
    """

    macs: int
    parameters: int
    bytes: int
    score: float | None
    sha256: str
    missed: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speed:
    """How fast a result is beside the original, in paired runs (see ``graphprune.verdict.timing``).

    Attributes:
        seconds: median of one run.
        speedup: the original's time divided by its own, median over rounds.
        low, high: confidence interval of that.
    """

    seconds: float
    speedup: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        recipe: its name.
        asked: what it was to come to, as ``macs=0.5`` or ``ratio=0.3``.
        came: what it came to; None where that cannot be had, or another shard has still to compute it.
        reason: why it cannot be had; None where it can, or is not known yet.
        file: the name of the model, where models are kept.
        speed: where it was timed.
    """

    recipe: str
    asked: str
    came: Came | None = None
    reason: str | None = None
    file: str | None = None
    speed: Speed | None = None


@dataclass(frozen=True)
class Timed:
    """How results were timed.

    Attributes:
        provider: of ONNX Runtime.
        threads: within one operator; 0 is the runtime's own choice.
        rounds: of paired runs.
        shapes: of inputs.
        seconds: median of one run of the original.
    """

    provider: str
    threads: int
    rounds: int
    shapes: dict[str, list[int]]
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """What came of all runs.

    Attributes:
        model: its name.
        sha256: of its file.
        macs, parameters, bytes: of the original.
        metric: by which models are judged.
        original: the score of the original; None where another shard has still to tell.
        seed: of what was drawn by chance.
        points: by recipe, then in the order in which they were asked for.
        timed: how results were timed; None where they were not.
        missing: how many tasks other shards have still to compute.
        notes: what the user should know beside it.
    """

    model: str
    sha256: str
    macs: int
    parameters: int
    bytes: int
    metric: str
    original: float | None
    seed: int
    points: tuple[Point, ...]
    timed: Timed | None = None
    missing: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def recipes(self) -> list[str]:
        """Names of recipes, in order."""
        return list(dict.fromkeys(point.recipe for point in self.points))

    def drop(self, point: Point) -> float | None:
        """By how much a score is below the original's; None where one of both is not known."""
        if point.came is None or point.came.score is None or self.original is None:
            return None
        return rounded(self.original - point.came.score)

    def front(self, by: str) -> tuple[list[bool], bool]:
        """Which points nothing beats by score and what they cost; and whether nothing beats the original.

        Args:
            by: ``macs`` or ``latency``.
        """
        costs = [self.cost(point, by) for point in self.points]
        scores = [None if point.came is None else point.came.score for point in self.points]
        *found, whole = unbeaten([*costs, 1.0], [*scores, self.original])
        return found, whole

    def cost(self, point: Point, by: str) -> float | None:
        """The share of the original's MACs or time; None where that is not known."""
        if by == "macs":
            return None if point.came is None else point.came.macs / max(self.macs, 1)
        return None if point.speed is None else 1 / point.speed.speedup

    def to_json(self) -> dict[str, Any]:
        """The result as JSON holds it (``sweep.schema.json``); what was timed stands under ``latency`` alone."""
        fronts = zip(self.front("macs")[0], self.front("latency")[0], strict=True)
        return {
            "format": FORMAT,
            "graphprune": __version__,
            "model": {
                "file": self.model,
                "sha256": self.sha256,
                "macs": self.macs,
                "parameters": self.parameters,
                "bytes": self.bytes,
            },
            "metric": self.metric,
            "original": self.original,
            "seed": self.seed,
            "missing": self.missing,
            "notes": list(self.notes),
            "latency": None if self.timed is None else vars(self.timed),
            "points": [self._told(point, *own) for point, own in zip(self.points, fronts, strict=True)],
        }

    def _told(self, point: Point, front: bool, fast: bool) -> dict[str, Any]:
        came = point.came
        costs = (
            dict.fromkeys(("macs", "parameters", "bytes", "score", "sha256"))
            if came is None
            else {k: getattr(came, k) for k in ("macs", "parameters", "bytes", "score", "sha256")}
        )
        return {
            "recipe": point.recipe,
            "asked": point.asked,
            **costs,
            "drop": self.drop(point),
            "front": front,
            "file": point.file,
            "reason": point.reason or (came.missed if came is not None and came.missed else None),
            "notes": [] if came is None else list(came.notes),
            "latency": None if point.speed is None else {**vars(point.speed), "front": fast},
        }


def from_json(data: Mapping[str, Any]) -> Sweep:
    """What a file says (``sweep.schema.json``, by which it is checked before)."""
    model, timed = data["model"], data["latency"]
    return Sweep(
        model["file"], model["sha256"], model["macs"], model["parameters"], model["bytes"], data["metric"],
        data["original"], data["seed"], tuple(map(_read, data["points"])), None if timed is None else Timed(**timed),
        data["missing"], tuple(data["notes"]),
    )  # fmt: skip


def _read(data: Mapping[str, Any]) -> Point:
    """A run; where it came to something, a reason says what was missed."""
    reason, came, speed = data["reason"], None, data["latency"]
    if data["macs"] is not None:
        own = {key: data[key] for key in ("macs", "parameters", "bytes", "score", "sha256")}
        came, reason = Came(**own, missed=reason or "", notes=tuple(data["notes"])), None
    if speed is not None:
        speed = Speed(**{key: value for key, value in speed.items() if key != "front"})
    return Point(data["recipe"], data["asked"], came, reason, data["file"], speed)


def unbeaten(costs: Sequence[float | None], scores: Sequence[float | None]) -> list[bool]:
    """The Pareto front: which of some no other beats, by costing no more and scoring no less, one of both strictly.

    Args:
        costs: the less, the better; None where there is none.
        scores: the more, the better; None where there is none, and nothing without both is on the front.
    """
    known = [k for k, both in enumerate(zip(costs, scores, strict=True)) if None not in both]
    found, best, level = [False] * len(costs), -math.inf, math.inf
    # from the cheapest on, the best of those that cost the same first: each has to score more than all before it
    for k in sorted(known, key=lambda k: (costs[k], -scores[k])):  # type: ignore[operator]
        cost, score = costs[k], scores[k]
        assert cost is not None and score is not None
        if score > best or (score == best and cost == level):
            found[k], best, level = True, score, cost
    return found
