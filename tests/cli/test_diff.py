"""``graphprune diff``: words, JSON, a page, and the exit status."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import onnx
import pytest

import graphprune
from graphprune.schema import schema
from tests.helpers import command
from tests.verdict.test_diff import chain, renamed

HOSTILE = "</script><script>alert(1)</script>\x1b[31m&amp;\"'"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(chain(6, 32, 32, 5), "a.onnx")
    graphprune.prune("a.onnx", "b.onnx", ratio=0.25)
    return tmp_path


def test_words_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = command(capsys, "diff", "a.onnx", "b.onnx")
    assert status == 0
    assert re.search(r"MatMul +32x32 -> 24x24 +cut +layer1/MatMul$", out, re.M)
    assert "9 nodes are in both" in out and "graphprune.plan.sha256" in out
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = command(capsys, "diff", "a.onnx", "b.onnx", "--json")
    jsonschema.validate(json.loads(out), schema("diff"))


def test_the_exit_code_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(renamed(onnx.load("a.onnx")), "c.onnx")
    assert command(capsys, "diff", "a.onnx", "b.onnx", "--exit-code", "-q")[0] == 1
    status, out, _ = command(capsys, "diff", "a.onnx", "c.onnx", "--exit-code", "--no-run")
    assert status == 0 and "nothing differs but names or metadata" in out and "MACs" not in out
    assert command(capsys, "diff", "a.onnx", "none.onnx")[0] == 2


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_names_are_text_in_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("b.onnx")
    model.graph.node[0].name = HOSTILE
    model.graph.node.add(op_type="Sin", input=["x"], output=["unread"], name=HOSTILE)
    onnx.save(model, "b.onnx")
    status, out, _ = command(capsys, "diff", "a.onnx", "b.onnx", "--html", "d.html")
    assert status == 0 and "\x1b" not in out and HOSTILE.replace("\x1b", "?") in out
    text = Path("d.html").read_text()
    page = _Tags()
    page.feed(text)
    assert "script" not in page.tags and {"main", "h1", "h2", "table", "th"} <= page.tags
    assert HOSTILE in page.text and "http" not in text
    assert {"Totals", "Widths", "Nodes added", "Constants", "Metadata"} <= set(page.text)
