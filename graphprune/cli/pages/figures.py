"""Figures: a picture that is there without scripts, the data from which scripts draw a better one, and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from graphprune.cli.pages.tree import Inside, make
from graphprune.model import files


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        id: of its heading, in the page of one model.
        title: its heading.
        parts: what stands under it.
    """

    id: str
    title: str
    parts: tuple[Element, ...]


def figure(kind: str, label: str, data: Mapping[str, Any], drawn: Element, *caption: Inside) -> Element:
    """A figure.

    Args:
        kind: which picture scripts draw (see ``page.js``).
        label: what it shows, for those who do not see it; the numbers stand in a table beside it.
        data: what scripts draw it from.
        drawn: the picture without scripts.
        caption: how to read it.
    """
    drawn.set("aria-label", label)
    held = make("script", type="application/json")
    held.text = as_json(data)
    drawn.attrib.pop("width", None)
    drawn.attrib.pop("height", None)
    place = make("div", drawn, class_="picture", role="group", aria_label=f"Picture: {label}", tabindex="0")
    return make("figure", held, place, make("figcaption", *caption), data_picture=kind, data_label=label)


def as_json(data: Any) -> str:
    """JSON that can stand in a script: nothing in it ends one, or begins a comment."""
    text = json.dumps(files.plain(data), ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
