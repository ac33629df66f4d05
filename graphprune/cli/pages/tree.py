"""Elements of a page. Text goes in as text: what a model or a file calls itself can never become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from graphprune.cli.harmless import harmless

Inside = Element | str | None


def make(tag: str, *inside: Inside, **attributes: str | None) -> Element:
    """An element.

    Args:
        tag: its name.
        inside: elements and texts, in order; None is left out.
        attributes: their names with ``_`` for ``-``, and one ``_`` behind those that are words of Python; None is left
            out.
    """
    found = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            found.set(name.rstrip("_").replace("_", "-"), harmless(value))
    return into(found, inside)


def into(root: Element, inside: Iterable[Inside]) -> Element:
    """Put elements and texts into another, behind what is there."""
    for one in inside:
        if isinstance(one, Element):
            root.append(one)
        elif one is not None and len(root):
            root[-1].tail = (root[-1].tail or "") + harmless(one)
        elif one is not None:
            root.text = (root.text or "") + harmless(one)
    return root


def code(name: str) -> Element:
    """A name of a file, node or group; it may break behind what parts words, so that it fits a narrow screen."""
    parts = re.split(r"(?<=[/._:@-])", name)
    inside: list[Inside] = []
    for part in parts:
        inside += [part, make("wbr")]
    return make("code", *inside[:-1])


Cell = Element | str


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], words: Sequence[int] = (), more: int = 0
) -> Element:
    """A table in a region of its own, which scrolls where it is too wide.

    Args:
        caption: what it shows.
        head: of the columns; the first names the rows.
        rows: as many cells each.
        words: columns of text, beside the first; all others are numbers.
        more: how many rows were left out, which is said.
    """
    body = make("tbody")
    for row in rows:
        line = make("tr", make("th", row[0], scope="row"))
        for place, cell in enumerate(row[1:], 1):
            line.append(make("td", cell, class_=None if place in words else "number"))
        body.append(line)
    top = [
        make("th", name, scope="col", class_=None if not place or place in words else "number")
        for place, name in enumerate(head)
    ]
    told = f"{caption} ({more} more rows are left out here; the JSON has all)" if more else caption
    own = make("table", make("caption", told), make("thead", make("tr", *top)), body)
    return make("div", own, class_="scroll", role="group", aria_label=caption, tabindex="0")


def folded(title: str, *inside: Inside, opened: bool = False) -> Element:
    """What is shown when it is asked for, and in print."""
    return make("details", make("summary", title), *inside, open="" if opened else None)


def html(root: Element) -> str:
    """The text of an element."""
    return tostring(root, encoding="unicode", method="html")
