"""Studies: how much each group can lose, and what several targets come to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.options import number
from graphprune.cli.pages.figures import Section, figure
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import few, set_change
from graphprune.passes.study import curves, drawing, points, scatter
from graphprune.passes.study.curves import SORTS, Curve, Sensitivity
from graphprune.passes.study.points import Point, Sweep


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Sensitivity, then sweeps."""
    for data in subject.all("sensitivity"):
        yield _sensitivity(curves.from_json(data), limit)
    for data in subject.all("sweep"):
        yield _sweep(points.from_json(data), limit)


def _sensitivity(found: Sensitivity, limit: int) -> Section:
    ranked = found.sorted(SORTS[0])
    shown = ranked[: max(limit // 2, 1)]
    parts = [make("p", line) for line in drawing.captions(found, SORTS[0])]
    data = {
        "levels": list(found.levels),
        "rows": [
            [_name(one), one.kind, one.size, [_cell(found, one, level) for level in found.levels]] for one in shown
        ],
    }
    picture = drawing.drawing(found.only(shown), SORTS[1])
    label = f"How far {found.metric} drops as each of {len(shown)} sets of groups loses classes"
    left_out = f" The {len(shown)} of {len(ranked)} that cost most are drawn." if len(shown) < len(ranked) else ""
    caption = f"A row is a set of groups, a column a share of its classes that go; the number is the drop.{left_out}"
    parts.append(figure("heat", label, data, picture, caption))
    head = ["set of groups", "kind", "classes", *(f"{100 * level:g} %" for level in found.levels), "drop per 1 % saved"]
    rows = [_row(found, one) for one in ranked[:limit]]
    numbers = table("Drop by group and share", head, rows, words=(1,), more=len(ranked) - len(rows))
    return Section("sensitivity", "Sensitivity", (*parts, folded("All sets in numbers", numbers)))


def _name(one: Curve) -> str:
    return one.groups[0] + (f" (+{len(one.groups) - 1})" if len(one.groups) > 1 else "")


def _cell(found: Sensitivity, one: Curve, level: float) -> list[Any] | None:
    """Heat, the drop, and classes that went; None where a level was not looked at."""
    point = next((point for point in one.points if point.level == level), None)
    return None if point is None else [found.heat(point), point.drop, point.removed, point.macs_saved]


def _row(found: Sensitivity, one: Curve) -> list[Cell]:
    drops = {point.level: _drop(point) for point in one.points}
    price = found.price(one)
    told = "" if price is None else "∞" if math.isinf(price) else few(price / 100)
    return [code(_name(one)), one.kind, f"{one.size:,}", *(drops.get(level, "") for level in found.levels), told]


def _drop(point: curves.Point) -> str:
    return "broken" if point.removed and point.score is None else "" if point.drop is None else f"{point.drop:.3g}"


def _sweep(found: Sweep, limit: int) -> Section:
    parts = [make("p", line) for line in scatter.captions(found)]
    fronts = {by: found.front(by) for by in ("macs", "latency")}
    panels = ["macs", *["latency"] * (found.timed is not None)]
    data = {
        "metric": found.metric,
        "original": found.original,
        "recipes": found.recipes,
        "panels": [
            {
                "by": by,
                "axis": scatter.AXES[by],
                "rows": [
                    [point.recipe, point.asked, cost, point.came.score, fronts[by][0][place]]
                    for place, point in enumerate(found.points)
                    for cost in [found.cost(point, by)]
                    if point.came is not None and point.came.score is not None and cost is not None
                ],
                "whole": fronts[by][1],
            }
            for by in panels
        ],
    }
    label = f"Score by {found.metric} of {len(found.points)} runs over what is left of the model"
    caption = "Filled marks are on the front; hollow ones are beaten by another. The cross is the original."
    parts.append(figure("front", label, data, scatter.drawing(found), caption))
    parts.append(_runs(found, limit))
    return Section("sweep", "Sweep", tuple(parts))


def _runs(found: Sweep, limit: int) -> Element:
    """Every run as a row."""
    timed = found.timed is not None
    head = ["run", *["recipe"] * (len(found.recipes) > 1), "on the front", "MACs", "change", "parameters", "file"]
    head += ["score", "drop", *["times as fast"] * timed]
    words = range(1, 3 if len(found.recipes) > 1 else 2)
    on, fast = found.front("macs")[0], found.front("latency")[0]
    rows = []
    for place, point in enumerate(found.points[:limit]):
        fronts = " and ".join([*["MACs"] * on[place], *["time"] * fast[place]])
        start: list[Cell] = [code(point.asked), *[point.recipe] * (len(found.recipes) > 1), fronts]
        rows.append([*start, *_came(found, point), *[_speed(point)] * timed])
    return table("Runs of the sweep", head, rows, tuple(words), more=len(found.points) - len(rows))


def _came(found: Sweep, point: Point) -> list[str]:
    came, drop = point.came, found.drop(point)
    if came is None:
        return ["not yet" if point.reason is None else "not to be had", *[""] * 5]
    score = "broken" if came.score is None else f"{came.score:.4f}"
    costs = [number(came.macs), set_change(found.macs, came.macs), number(came.parameters), f"{number(came.bytes)}B"]
    return [*costs, score, "" if drop is None else f"{drop:.4f}"]


def _speed(point: Point) -> str:
    return "" if point.speed is None else f"{point.speed.speedup:.2f} ({point.speed.low:.2f} to {point.speed.high:.2f})"
