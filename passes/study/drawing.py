"""Curves and a heat strip as one SVG.

A row is a set of groups: its name, a cell for each level that is the darker the more is lost (the number stands in it,
so that it can be read without colour), and the drop over the share that is removed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from graphprune.passes.study import page
from graphprune.passes.study.curves import Curve, Point, Sensitivity
from graphprune.passes.study.page import text

_ROW, _CELL, _NAME, _CHART, _EDGE, _HEAD = 26, 58, 330, 170, 16, 64
_LONGEST = 48
"""Characters of a name that are shown; all of it is in its title."""
_HEAT = (
    ("#ffffff", "#fff2e0", "#fee0b6", "#fdc786", "#fba55c", "#f07f3c", "#d85a26", "#b23a1a", "#7f2412"),
    ("#1b1b1b", "#2b2119", "#45301d", "#653f1e", "#8a501f", "#b06324", "#d17a33", "#ea9a56", "#ffc48a"),
)
"""From nothing lost to most of all, on light and on dark."""
_PALETTES = tuple(zip(page.PALETTES, _HEAT, strict=True))
_TURN = 5
"""The step of heat from which on numbers are drawn the other way round."""


def draw(found: Sensitivity, output: str | os.PathLike[str] | None, sort: str) -> None:
    """Write a drawing; nothing where there is no place for it.

    Args:
        found: what is drawn.
        output: a place that ends in ``.svg``.
        sort: of the rows (see ``curves``).
    """
    page.write(output, lambda: svg(found, sort))


def svg(found: Sensitivity, sort: str) -> str:
    """The drawing alone."""
    return page.svg(drawing(found, sort))


def captions(found: Sensitivity, sort: str) -> list[str]:
    """What the numbers are, in words."""
    whole = "not known yet" if found.original is None else f"{found.original:.4g}"
    order = "as in the model" if sort == "model" else "what costs most for the MACs that it saves first"
    parts = [
        f"Score by {found.metric} (original {whole}) as each set of groups alone loses classes, ranked by "
        f"{found.criterion}, and its readers are refitted. Numbers are how far the score drops; rows stand {order}."
    ]
    if found.missing:
        parts.append(f"{found.missing} models are still to be judged by other shards.")
    return [*parts, *found.notes]


def drawing(found: Sensitivity, sort: str) -> Element:
    """The same as an element, to stand in a page."""
    curves, cells = found.sorted(sort), _CELL * len(found.levels)
    width = 2 * _EDGE + _NAME + cells + _EDGE + _CHART
    height = _HEAD + _ROW * len(curves) + _EDGE
    root = page.canvas(width, height, f"Sensitivity of {found.model} by {found.metric}", _style())
    text(root, _EDGE, 24, f"{found.model}: drop of {found.metric}", "title")
    for k, level in enumerate(found.levels):
        text(root, _EDGE + _NAME + (k + 0.5) * _CELL, _HEAD - 10, f"{100 * level:g} %", "head")
    text(root, width - _EDGE - _CHART / 2, _HEAD - 10, f"0 to 100 % gone, drop to {found.most:.3g}", "head")
    for number, curve in enumerate(curves):
        _row(root, found, curve, _HEAD + number * _ROW)
    return root


def _row(root: Element, found: Sensitivity, curve: Curve, top: float) -> None:
    row = SubElement(root, "g")
    SubElement(row, "title").text = ", ".join(curve.groups)
    more = f" (+{len(curve.groups) - 1})" if len(curve.groups) > 1 else ""
    name = curve.groups[0]
    shown = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
    text(row, _EDGE, top + 17, f"{shown}{more}", "name")
    by_level = {point.level: point for point in curve.points}
    for k, level in enumerate(found.levels):
        if level in by_level:
            _cell(row, found, by_level[level], _EDGE + _NAME + k * _CELL, top)
    _line(row, found, curve.points, 2 * _EDGE + _NAME + _CELL * len(found.levels), top)


def _cell(row: Element, found: Sensitivity, point: Point, left: float, top: float) -> None:
    heat = found.heat(point)
    place = {"x": f"{left + 1:g}", "y": f"{top + 1:g}", "width": f"{_CELL - 2:g}", "height": f"{_ROW - 2:g}"}
    SubElement(row, "rect", {"class": f"h{heat}", **place})
    told = f"{point.removed} classes" if point.drop is None else f"{point.drop:.3g}"
    shown = "broken" if point.removed and point.score is None else "" if point.drop is None else told
    text(row, left + _CELL / 2, top + 17, shown, "high" if heat >= _TURN else "low")


def _line(row: Element, found: Sensitivity, points: Sequence[Point], left: float, top: float) -> None:
    """The drop, downwards, over the share that is removed."""
    base, room = top + 3, _ROW - 6
    SubElement(row, "path", {"class": "axis", "d": f"M{left:g} {base:g}H{left + _CHART:g}"})
    most = found.most if found.most > 0 else 1.0
    known = [(p.share, min(max(p.drop, 0.0) / most, 1.0)) for p in points if p.drop is not None]
    places = [(left + _CHART * share, base + room * drop) for share, drop in [(0.0, 0.0), *known]]
    SubElement(row, "path", {"class": "curve", "d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)})
    for x, y in places[1:]:
        SubElement(row, "circle", {"class": "dot", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "1.8"})


def _style() -> str:
    """Letters, and colours that are dark where the reader's system is; plain rules, since few programs know more."""
    return page.style(".head, .low, .high { text-anchor: middle }", *(_colours(*two) for two in _PALETTES))


def _colours(own: page.Palette, heat: Sequence[str]) -> str:
    steps = " ".join(f".h{k} {{ fill: {colour} }}" for k, colour in enumerate(heat))
    return (
        f".high {{ fill: {own.page} }} .axis {{ stroke: {own.line} }} "
        f".curve {{ stroke: {heat[6]} }} .dot {{ fill: {heat[6]} }} {steps}"
    )
