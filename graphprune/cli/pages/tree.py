"""Elements of a page. Text goes in as text: what a model or a file calls itself can never become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

Inside = Element | str | None
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What no page may hold, and what would turn the direction of the text behind it."""


def fit(text: str) -> str:
    """A text without what no page may hold."""
    return _UNFIT.sub("\ufffd", text)


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
            found.set(name.rstrip("_").replace("_", "-"), fit(value))
    return into(found, inside)


def into(root: Element, inside: Iterable[Inside]) -> Element:
    """Put elements and texts into another, behind what is there."""
    for one in inside:
        if isinstance(one, Element):
            root.append(one)
        elif one is not None and len(root):
            root[-1].tail = (root[-1].tail or "") + fit(one)
        elif one is not None:
            root.text = (root.text or "") + fit(one)
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
