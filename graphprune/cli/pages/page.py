"""The page: sections with style, script and data as one HTML file, which a browser may not take anything else for."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files as resources
from pathlib import Path
from xml.etree.ElementTree import Element

from graphprune import __version__
from graphprune.cli.pages.documents import Document
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.sections import (
    choices,
    costs,
    differences,
    fits,
    inspection,
    layers,
    proofs,
    recipe,
    studies,
    timing,
)
from graphprune.cli.pages.subjects import Subject, subjects
from graphprune.cli.pages.tree import html, into, make
from graphprune.errors import InputError
from graphprune.model import files

MOST = 1_000_000
"""Bytes of a page."""
_LIMITS = (400, 200, 100, 50, 20)
"""Rows of a table; the first that a page fits with is taken."""
_MAKERS = (costs, differences, layers, proofs, timing, studies, fits, choices, inspection, recipe)
"""In the order of the page."""
_LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")


def write(path: Path, documents: Sequence[Document]) -> None:
    """Write the page of some documents.

    Raises:
        InputError: there is nothing to show, it would be too large, or it cannot be written.
    """
    text = build(documents)
    files.atomically(path, lambda file: file.write(text.encode()))


def build(documents: Sequence[Document]) -> str:
    """The text of the page of some documents.

    Raises:
        InputError: there is nothing to show, or it would be larger than :data:`MOST` whatever is left out of it.
    """
    if not documents:
        raise InputError("there is nothing to report: no model of the run came to a result")
    found = subjects(documents)
    for limit in _LIMITS:
        text = _page(found, limit)
        size = len(text.encode())
        if size <= MOST:
            return text
    raise InputError(f"the report would have {size:,} bytes, more than {MOST:,}; give fewer files")


def _page(found: Sequence[Subject], limit: int) -> str:
    several = len(found) > 1
    main, links = make("main", id="content", tabindex="-1"), list[Element]()
    seen: Counter[str] = Counter()
    for subject in found:
        root = main
        if several:
            root = make("div", make("h2", *costs.summary(subject)), class_="subject")
            main.append(root)
        for section in (one for maker in _MAKERS for one in maker.sections(subject, limit)):
            root.append(_section(section, subject.model if several else None, seen, links))
    title = f"{len(found)} models" if several else found[0].model
    head = make("header", make("p", "graphprune", class_="brand"), make("h1", *_title(found)))
    head.append(make("nav", make("ul", *links), aria_label="Sections"))
    scripts = [_read(name) for name in (*_LIBRARIES, "page.js")]
    body = make("body", make("a", "Skip to the content", href="#content", class_="skip"), head, main, _foot())
    into(body, (_script(text) for text in scripts))
    root = make("html", _head(f"{title}: graphprune report", scripts), body, lang="en")
    return f"<!doctype html>\n{html(root)}\n"


def _title(found: Sequence[Subject]) -> list[Element | str | None]:
    return [f"{len(found)} models"] if len(found) > 1 else costs.summary(found[0])


def _section(section: Section, model: str | None, seen: Counter[str], links: list[Element]) -> Element:
    """A section with its heading, and a link to it.

    Args:
        section: what is shown.
        model: what it is about, where the page is about several.
        seen: how often there was one of its kind; another one is counted, so that each is called otherwise.
        links: of the page; of several models those of the first lead to theirs.
    """
    seen[section.id] += 1
    number = seen[section.id]
    id = section.id if number == 1 else f"{section.id}-{number}"
    title = section.title if model is not None or number == 1 else f"{section.title} ({number})"
    if model is None or number == 1:
        links.append(make("li", make("a", title, href=f"#{id}")))
    called = title if model is None else f"{title} of {model} ({number})"
    return make("section", make("h2" if model is None else "h3", title), *section.parts, id=id, aria_label=called)


def _head(title: str, scripts: Sequence[str]) -> Element:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    look = make("style")
    look.text = _read("page.css")
    policed = make("meta", content=policy)
    policed.set("http-equiv", "Content-Security-Policy")
    return make(
        "head",
        make("meta", charset="utf-8"),
        policed,
        make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make("meta", name="generator", content=f"graphprune {__version__}"),
        make("title", title),
        look,
    )


def _foot() -> Element:
    return make(
        "footer",
        make(
            "p",
            f"Made by graphprune {__version__}. This file needs no network and sends nothing; what it shows stands in "
            "it as JSON. Pictures by D3 and Observable Plot, whose licences (ISC) stand in the package.",
        ),
    )


def _script(text: str) -> Element:
    found = make("script")
    found.text = text
    return found


def _read(name: str) -> str:
    """A file of this package."""
    return (resources("graphprune.cli.pages") / name).read_text(encoding="utf-8")
