"""Pages in a browser: pictures are drawn, nothing goes wrong, all can read them, and they fit a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphprune.cli.pages import documents, page
from tests.cli.pages import pieces

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")
WIDE, NARROW = 1280, 360
PICTURES = {"strip", "pairs", "course", "heat", "front"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of everything, with names that are hostile and long."""
    name = f"{pieces.HOSTILE}/backbone/block_11/attention/projection/MatMul_with_a_name_that_has_no_end_to_break_at"
    made = [make(name) for make in pieces.ALL]
    read = [one for own in made for one in documents.read(json.loads(json.dumps(own)), "a.json")]
    found = tmp_path_factory.mktemp("pages") / "page.html"
    found.write_text(page.build(read), encoding="utf-8")
    return found


def opened(browser: Any, place: Path, width: int, scheme: str, **options: Any) -> tuple[Any, list[str]]:
    """A page, and what went wrong or was asked for while it opened."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, **options)
    own, told = context.new_page(), []
    own.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    own.on("pageerror", lambda error: told.append(f"error: {error}"))
    own.on("dialog", lambda dialog: (told.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    own.on("request", lambda asked: told.append(asked.url) if not asked.url.startswith("file:") else None)
    own.goto(place.as_uri())
    return own, told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_read_it(browser: Any, place: Path, scheme: str) -> None:
    own, told = opened(browser, place, WIDE, scheme)
    for width in (WIDE, NARROW):
        own.set_viewport_size({"width": width, "height": 800})
        own.wait_for_function("() => [...document.querySelectorAll('figure')].every(f => f.dataset.width < innerWidth)")
        assert own.evaluate("document.documentElement.scrollWidth") <= width, "nothing scrolls sideways"
        own.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        assert own.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(own).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    each = "all => all.map(f => [f.dataset.picture, f.querySelectorAll('.plot').length])"
    drawn = own.eval_on_selector_all("figure", each)
    assert {kind for kind, _ in drawn} == PICTURES and all(count for _, count in drawn)
    assert told == []
    own.context.close()


def test_pictures_stand_without_scripts(browser: Any, place: Path) -> None:
    own, told = opened(browser, place, WIDE, "light", java_script_enabled=False)
    for kind in PICTURES:
        box = own.locator(f"figure[data-picture={kind}] .picture > svg").first.bounding_box()
        assert box is not None and box["width"] > 400 and box["height"] > 40
    assert told == []
    own.context.close()


def test_keys_reach_everything_and_print_shows_it(browser: Any, place: Path) -> None:
    own, _ = opened(browser, place, WIDE, "dark")
    own.keyboard.press("Tab")
    assert own.evaluate("document.activeElement.textContent") == "Skip to the content"
    own.keyboard.press("Enter")
    assert own.evaluate("document.activeElement.id") == "content"
    reached = own.eval_on_selector_all(".scroll, .picture, summary, pre", "all => all.every(one => one.tabIndex === 0)")
    assert reached
    own.emulate_media(media="print")
    own.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert own.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")
    assert own.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    own.context.close()
