"""Names of strangers: what would command a terminal, or turn the text behind it, is nowhere."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import onnx
import pytest

from graphprune.cli.harmless import harmless, on_one_line
from graphprune.cli.pages import tree
from graphprune.cli.pictures import drawing
from models.small import residual
from tests.helpers import command

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Bidi_Control, as the Unicode Character Database has it."""
UNSAFE = f"{TURNING}\x00\x1b\x7f\x9b\r\u2028\ud800\ufffe"


def test_what_is_taken_for_harmless() -> None:
    assert set(harmless(UNSAFE)) == set(on_one_line(f"{UNSAFE}\n\t")) == {"\ufffd"}
    assert harmless("a\tb\n") == "a\tb\n" and on_one_line("层/שלום.é 🙂") == "层/שלום.é 🙂"
    controls = {chr(k) for k in range(0x3000) if unicodedata.category(chr(k)) == "Cc"} - {"\t", "\n"}
    assert set(harmless("".join(controls))) == {"\ufffd"}


def test_one_set_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = tree.html(tree.make("p", UNSAFE, title=UNSAFE))
    picture = drawing.Picture([UNSAFE], {0: drawing.Box("Conv", UNSAFE)})
    assert "\ufffd" in shown and not set(shown) & set(UNSAFE)
    assert not set(drawing.source(picture)) & set(UNSAFE)
    model = residual()
    for node in model.graph.node:
        node.name = f"{node.name}\u202e\u200f\x1b"
    onnx.save(model, "m.onnx")
    onnx.save(residual(), "n.onnx")
    for words in (
        ("inspect", "m.onnx", "--all"),
        ("diff", "n.onnx", "m.onnx", "-v"),
        ("explain", "m.onnx", "none\u202e"),
    ):
        _, out, err = command(capsys, *words)
        assert out + err and not set(out + err) & set(UNSAFE)
