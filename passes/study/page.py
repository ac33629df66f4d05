"""What drawings have in common: one SVG, alone or in a page; no scripts, nothing that is loaded.

Light and dark are the reader's choice, by CSS with plain rules, since few programs that show SVG know more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from graphprune.errors import InputError
from graphprune.model import files

SUFFIX = ".svg"


@dataclass(frozen=True)
class Palette:
    """Colours of page, letters, headings and lines."""

    page: str
    letters: str
    faint: str
    line: str


PALETTES = (Palette("#ffffff", "#1a1a1a", "#6b6b6b", "#d8d8d8"), Palette("#121212", "#ececec", "#a0a0a0", "#3a3a3a"))
"""Light and dark."""


def check(output: str | os.PathLike[str] | None) -> None:
    """Raise InputError where a drawing is asked for that there is not."""
    if output is not None and Path(output).suffix.lower() != SUFFIX:
        raise InputError(
            f"{output}: a drawing is {SUFFIX}; for the numbers there is --json FILE, for a page --report FILE.html"
        )


def write(output: str | os.PathLike[str] | None, drawn: Callable[[], str]) -> None:
    """Write a drawing; nothing where there is no place for it.

    Args:
        output: a place that ends in :data:`SUFFIX`.
        drawn: the drawing.
    """
    if output is not None:
        files.atomically(Path(output), lambda file: file.write(drawn().encode()))


def svg(drawing: Element) -> str:
    """The text of a drawing alone."""
    indent(drawing)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(drawing, encoding="unicode")}\n'


def canvas(width: float, height: float, title: str, rules: str) -> Element:
    """An empty drawing: its page, what it is called, and its CSS."""
    root = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", role="img")
    root.set("width", str(width))
    root.set("height", str(height))
    SubElement(root, "title").text = title
    SubElement(root, "style").text = rules
    SubElement(root, "rect", {"class": "page", "width": str(width), "height": str(height)})
    return root


def text(root: Element, x: float, y: float, content: str, kind: str) -> None:
    """Letters at a place."""
    SubElement(root, "text", {"class": kind, "x": f"{x:g}", "y": f"{y:g}"}).text = content


def style(rules: str, light: str, dark: str) -> str:
    """CSS of a drawing.

    Args:
        rules: that hold in both.
        light, dark: colours of its own.
    """
    own = [_colours(palette, more) for palette, more in zip(PALETTES, (light, dark), strict=True)]
    return (
        "text { font: 12px system-ui, sans-serif } .title { font-size: 15px; font-weight: 600 } "
        f".curve {{ fill: none; stroke-width: 1.5 }} {rules} {own[0]} "
        f"@media (prefers-color-scheme: dark) {{ {own[1]} }}"
    )


def _colours(one: Palette, more: str) -> str:
    return f"text {{ fill: {one.letters} }} .page {{ fill: {one.page} }} .head {{ fill: {one.faint} }} {more}"
