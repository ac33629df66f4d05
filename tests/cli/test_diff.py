"""``graphprune diff``: words, JSON, a page, and the exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import onnx
import pytest

import graphprune
from graphprune.cli import diff, differing
from graphprune.cli.pages.sections import differences
from graphprune.schema import schema
from tests.cli.pages import pieces
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


def test_names_are_text_on_a_terminal_and_in_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("b.onnx")
    model.graph.node[0].name = HOSTILE
    model.graph.node.add(op_type="Sin", input=["x"], output=["unread"], name=HOSTILE)
    onnx.save(model, "b.onnx")
    status, out, _ = command(capsys, "diff", "a.onnx", "b.onnx", "--report", "d.html", "--json", "d.json")
    assert status == 0 and "\x1b" not in out and HOSTILE.replace("\x1b", "\ufffd") in out
    text = Path("d.html").read_text()
    assert 'id="differences"' in text and "Nodes added (1)" in text and "<script>alert" not in text
    assert command(capsys, "report", "d.json", "-o", "e.html")[0] == 0 and Path("e.html").read_text() == text


def test_words_and_pages_have_the_same_rows() -> None:
    data = pieces.diff("n")
    text = "\n".join(diff.lines(data))
    shown = {caption: rows for caption, _, rows in differences._tables(data)}
    for part in differing.parts(data):
        assert f"{part.title[0].lower()}{part.title[1:]} ({len(part.rows)})" in text
        assert ["".join(cells[0].itertext()) for cells in shown[part.title]] == [row.name for row in part.rows]
    assert len(shown) == 11 and "16 -> 8" in text and "was n" in text
    data["operators"]["added"][0]["op"], data["wiring"][0]["folded"] = "Identity", True
    assert not [
        p for p in differing.parts(data) if p.title in ("Nodes added", "Inputs that come from elsewhere") and p.rows
    ]
