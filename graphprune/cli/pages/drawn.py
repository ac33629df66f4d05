"""Pictures that need no scripts: layers as columns, pairs as bars, and a course as a line.

Their colours and letters stand in ``page.css``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from graphprune.passes.study import page, scatter
from graphprune.passes.study.page import text

_WIDE, _LEFT, _RIGHT, _HEAD = 720.0, 52.0, 12.0, 26.0
_ROW = 22.0
_LONGEST = 34

Pair = tuple[str, float | None, float | None]
"""A name with what was and what is; None where one of both is not there."""


def columns(rows: Sequence[tuple[str, float, float, float, str]], above: str, below: str) -> Element:
    """Columns with what was and what is above a line, and below it a share that went.

    Args:
        rows: a title, what was, what is, the share, and the class of the colour.
        above, below: what is drawn above and below the line.
    """
    high, deep = 170.0, 60.0
    root = page.canvas(_WIDE, _HEAD + high + deep + 40, above, "")
    most = math.sqrt(max((before for _, before, *_ in rows), default=1.0) or 1.0)
    base, room = _HEAD + high, _WIDE - _LEFT - _RIGHT
    step = room / max(len(rows), 1)
    text(root, 4, 15, above, "lead")
    for value in scatter.steps(0.0, most**2, 4)[1:]:
        y = base - high * math.sqrt(value) / most
        if y >= _HEAD - 4:
            _grid(root, y, f"{value:.4g}")
    for place, (title, before, after, share, colour) in enumerate(rows):
        own = SubElement(root, "g")
        SubElement(own, "title").text = title
        x, wide = _LEFT + place * step, max(step * 0.82, 0.8)
        for kind, value in (("was", before), (colour, after)):
            size = high * math.sqrt(max(value, 0.0)) / most
            _rect(own, kind, x, base - size, wide, size)
        _rect(own, "went", x, base + 6, wide, deep * min(max(share, 0.0), 1.0))
    SubElement(root, "path", {"class": "rule", "d": f"M{_LEFT:g} {base:g}H{_WIDE - _RIGHT:g}"})
    text(root, _LEFT - 8, base + deep + 6, "100 %", "end")
    text(root, 4, base + deep + 30, below, "lead")
    return root


def bars(rows: Sequence[Pair], title: str, unit: str, factor: float = 1.0) -> Element:
    """Two bars a row: what was, and what is.

    Args:
        rows: the pairs.
        title: what is drawn.
        unit: of the numbers.
        factor: by what values are multiplied to have that unit.
    """
    name, room = 250.0, _WIDE - 250.0 - 130.0
    root = page.canvas(_WIDE, _HEAD + _ROW * len(rows) + 8, title, "")
    text(root, 4, 15, title, "lead")
    most = max((v for _, *both in rows for v in both if v is not None), default=1.0) or 1.0
    for place, (label, before, after) in enumerate(rows):
        top = _HEAD + place * _ROW
        own = SubElement(root, "g")
        SubElement(own, "title").text = label
        shown = label if len(label) <= _LONGEST else f"…{label[1 - _LONGEST :]}"
        text(own, name - 8, top + 15, shown, "end")
        for kind, value, y in (("was", before, top + 3), ("now", after, top + 11)):
            if value is not None:
                _rect(own, kind, name, y, room * value / most, 7)
        told = " → ".join("–" if v is None else f"{factor * v:.3g}" for v in (before, after))
        text(own, name + room + 8, top + 15, f"{told} {unit}".strip(), "value")
    return root


def course(points: Sequence[tuple[float, float]], title: str, best: float | None) -> Element:
    """A line over steps.

    Args:
        points: step and value.
        title: what is drawn.
        best: the step that counts.
    """
    high = 220.0
    root = page.canvas(_WIDE, _HEAD + high + 44, title, "")
    text(root, 4, 15, title, "lead")
    values, last = [y for _, y in points], max((x for x, _ in points), default=1.0) or 1.0
    down = scatter.steps(min(values, default=0.0), max(values, default=1.0))
    room = _WIDE - _LEFT - _RIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + room * x / last, _HEAD + 8 + high * (down[-1] - y) / (down[-1] - down[0])

    for value in down:
        _grid(root, at(0, value)[1], f"{value:.4g}")
    places = [at(x, y) for x, y in points]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    SubElement(root, "path", {"class": "course", "d": f"M{line}"})
    for (x, y), (step, _) in zip(places, points, strict=True):
        kind, size = ("now", "5") if step == best else ("mark", "3")
        SubElement(root, "circle", {"class": kind, "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": size})
    for value in scatter.steps(0.0, last):
        if value <= last:
            text(root, _LEFT + room * value / last, _HEAD + high + 28, f"{value:g}", "head")
    return root


def _grid(root: Element, y: float, label: str) -> None:
    SubElement(root, "path", {"class": "axis", "d": f"M{_LEFT:g} {y:.1f}H{_WIDE - _RIGHT:g}"})
    text(root, _LEFT - 8, y + 4, label, "end")


def _rect(root: Element, kind: str, x: float, y: float, width: float, height: float) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(width, 0):.1f}", "height": f"{max(height, 0):.1f}"}
    SubElement(root, "rect", {"class": kind, **place})
