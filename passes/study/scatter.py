"""The points of a sweep as one SVG: score over what a model costs, with the front as a line.

A recipe has a shape and a colour of its own. What is on the front is filled and named; all else is hollow, and says
what it is where the pointer rests.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from graphprune.passes.study import page
from graphprune.passes.study.page import text
from graphprune.passes.study.points import Sweep

AXES = {"macs": "MACs, % of the original", "latency": "time, % of the original"}
_WIDE, _HIGH, _LEFT, _RIGHT, _HEAD, _FOOT = 620, 300, 64, 24, 64, 56
_SIZE = 5.0
"""Half of a mark's width."""
_LETTER, _LINE = 6.6, 14
"""About how wide a letter is, and how high a line."""
_MARKS = (
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.35), (1.35, 0), (0, 1.35), (-1.35, 0)),
    ((0, -1.25), (1.25, 1), (-1.25, 1)),
    ((-1.25, -1), (1.25, -1), (0, 1.25)),
)
"""Corners of the marks of recipes behind the first, whose mark is round."""
_COLOURS = (
    ("#b23a1a", "#1f6f8b", "#5b7f2b", "#7a4fa3", "#a06a00"),
    ("#ffa578", "#7cc7e2", "#b5d97f", "#cdaef0", "#f0c060"),
)
"""Of recipes, on light and on dark."""


def draw(found: Sweep, output: str | os.PathLike[str] | None) -> None:
    """Write a drawing; nothing where there is no place for it."""
    page.write(output, lambda: svg(found))


def svg(found: Sweep) -> str:
    """The drawing alone."""
    return page.svg(drawing(found))


def captions(found: Sweep) -> list[str]:
    """What is drawn, in words."""
    whole = "not known yet" if found.original is None else f"{found.original:.4g}"
    lines = [
        f"Score by {found.metric} (original {whole}) over what is left. The line is the front: no other result, nor "
        "the original, has a better score for as little."
    ]
    if found.missing:
        lines.append(f"{found.missing} models are still to be judged by other shards.")
    lines += [f"{point.recipe}, {point.asked}: {point.reason}" for point in found.points if point.reason is not None]
    return [*lines, *found.notes]


def drawing(found: Sweep) -> Element:
    """The same as an element, to stand in a page."""
    panels = ["macs", *["latency"] * (found.timed is not None)]
    height = _HEAD + len(panels) * (_HIGH + _FOOT)
    root = page.canvas(_WIDE, height, f"Sweep of {found.model} by {found.metric}", _style())
    text(root, 16, 24, f"{found.model}: {found.metric}", "title")
    left = float(_LEFT)
    for number, recipe in enumerate(found.recipes):
        _mark(root, number, left, 42, True)
        text(root, left + 10, 46, recipe, "name")
        left += 34 + _LETTER * len(recipe)
    for number, by in enumerate(panels):
        _panel(root, found, by, _HEAD + number * (_HIGH + _FOOT))
    return root


def _panel(root: Element, found: Sweep, by: str, top: float) -> None:
    front, whole = found.front(by)
    places = [(found.cost(point, by), None if point.came is None else point.came.score) for point in found.points]
    known = [(cost, score) for cost, score in places if cost is not None and score is not None]
    original = [] if found.original is None else [(1.0, found.original)]
    across = steps(0.0, max((cost for cost, _ in [*known, *original]), default=1.0))
    scores = [score for _, score in [*known, *original]] or [0.0, 1.0]
    down = steps(min(scores), max(scores))

    def place(cost: float, score: float) -> tuple[float, float]:
        x = _LEFT + (_WIDE - _LEFT - _RIGHT) * (cost - across[0]) / (across[-1] - across[0])
        return x, top + _HIGH * (down[-1] - score) / (down[-1] - down[0])

    _axes(root, by, across, down, top)
    line = [both for both, on in zip(places, front, strict=True) if on] + (original if whole else [])
    ends = [place(cost, score) for cost, score in sorted(line) if cost is not None and score is not None]
    if ends:
        SubElement(root, "path", {"class": "front", "d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ends)})
    labels: list[tuple[float, float, str]] = []
    for point, (cost, score), on in zip(found.points, places, front, strict=True):
        if cost is not None and score is not None:
            x, y = place(cost, score)
            own = SubElement(root, "g")
            SubElement(own, "title").text = f"{point.recipe}, {point.asked}: {100 * cost:.1f} %, score {score:.4g}"
            _mark(own, found.recipes.index(point.recipe), x, y, on)
            if on:
                labels.append((x + 9, y + 14, point.asked))
    for x, y, label in apart(labels):
        text(root, x, y, label, "name")
    for cost, score in original:
        x, y = place(cost, score)
        SubElement(root, "path", {"class": "whole", "d": f"M{x - 5:.1f} {y:.1f}h10M{x:.1f} {y - 5:.1f}v10"})
        text(root, x - 6, y + 18, "original", "end")


def _axes(root: Element, by: str, across: Sequence[float], down: Sequence[float], top: float) -> None:
    right = _WIDE - _RIGHT
    for value in down:
        y = top + _HIGH * (down[-1] - value) / (down[-1] - down[0])
        SubElement(root, "path", {"class": "axis", "d": f"M{_LEFT} {y:.1f}H{right}"})
        text(root, _LEFT - 8, y + 4, f"{value:.4g}", "end")
    for value in across:
        x = _LEFT + (right - _LEFT) * (value - across[0]) / (across[-1] - across[0])
        text(root, x, top + _HIGH + 18, f"{100 * value:.4g}", "head")
    text(root, (_LEFT + right) / 2, top + _HIGH + 38, AXES[by], "head")


def apart(labels: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Labels from left to right, each moved down as long as it would stand on one before it."""
    found: list[tuple[float, float, str]] = []
    for x, y, label in sorted(labels):
        while any(x < left + _LETTER * len(own) + 4 and abs(y - high) < _LINE for left, high, own in found):
            y += 1
        found.append((x, y, label))
    return found


def steps(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that reach from one value to another or a little beyond, about so many: two at least."""
    size = max(abs(low), abs(high), 1e-9)
    room = high - low if high - low > 1e-9 * size else 0.1 * size
    rough = room / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(k * unit for k in (1, 2, 2.5, 5, 10) if k * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _mark(root: Element, number: int, x: float, y: float, filled: bool) -> None:
    kind = {"class": f"r{number % len(_COLOURS[0])} {'on' if filled else 'off'}"}
    if number % (len(_MARKS) + 1) == 0:
        SubElement(root, "circle", {**kind, "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{_SIZE:g}"})
        return
    corners = [(x + _SIZE * a, y + _SIZE * b) for a, b in _MARKS[number % (len(_MARKS) + 1) - 1]]
    SubElement(root, "path", {**kind, "d": "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in corners) + "Z"})


def _style() -> str:
    rules = (
        ".head { text-anchor: middle } .end { text-anchor: end } .axis { stroke-width: 1 } "
        ".front { fill: none; stroke-width: 1.5 } .whole { stroke-width: 2 } .off { stroke-width: 1.5 }"
    )
    light, dark = (_colours(*two) for two in zip(page.PALETTES, _COLOURS, strict=True))
    return page.style(rules, light, dark)


def _colours(own: page.Palette, colours: Sequence[str]) -> str:
    marks = " ".join(f".r{k} {{ fill: {one}; stroke: {one} }}" for k, one in enumerate(colours))
    return (
        f".axis {{ stroke: {own.line} }} .front {{ stroke: {own.faint} }} .whole {{ stroke: {own.letters} }} "
        f".end {{ fill: {own.faint} }} {marks} .off {{ fill: {own.page} }}"
    )
