"""What ``inspect`` says: a summary first, then what is asked for; names are whole at any width."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from rich.console import Console

import graphprune
import models
from graphprune.cli import options
from graphprune.cli.tables import Column, listing
from tests.helpers import command as run

LAYER = "/model/encoder/layer.0"


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a BERT in it, and 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "console", lambda: Console(width=80, highlight=False))
    onnx.save(models.export("bert-ts11"), "m.onnx")
    return tmp_path


def test_a_summary_fits_a_screen(narrow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", "m.onnx")
    lines, groups = out.splitlines(), graphprune.analyze("m.onnx").groups
    assert status == 0 and len(lines) <= 24 and f"prunable: {len(groups)} groups" in out
    assert "% in exact groups" in out and "stays: " in out and "it is the output" in out
    biggest = max(groups, key=lambda one: int(one.macs.sum()))
    assert biggest.id in lines  # on a line of its own, whole
    status, out, _ = run(capsys, "inspect", "m.onnx", "--all")
    assert {group.id for group in groups} <= set(out.split()) and "removable blocks" in out and "not prunable" in out


def test_some_of_it_in_some_order(narrow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", "m.onnx", "--filter", LAYER, "--sort", "size", "--json")
    data = json.loads(out)
    sizes = [group["size"] for group in data["groups"]]
    assert status == 0 and sizes == sorted(sizes, reverse=True) and len(sizes) > 2
    assert all(any(LAYER in name or "layer.0" in name for name in (g["id"], *g["tensors"])) for g in data["groups"])
    assert data["blocks"] and all(name.startswith(LAYER) for block in data["blocks"] for name in block["nodes"])
    status, text, _ = run(capsys, "inspect", "m.onnx", "--filter", LAYER)
    assert status == 0 and {group["id"] for group in data["groups"]} <= set(text.split())
    status, _, err = run(capsys, "inspect", "m.onnx", "--filter", "/model/encoder/layr.0")
    assert status == 2 and f"did you mean {LAYER!r}?" in err


def test_a_module_stands_for_what_is_in_it(narrow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "explain", "m.onnx", LAYER.replace("/", ".")[1:], "--json")
    told = json.loads(out)
    assert status == 0 and told["groups"] and told["blocks"] and all(n.startswith(LAYER) for n in told["nodes"])
    words = ("prune", "m.onnx", "--ratio", "0.3", "--no-proof", "--exclude", LAYER, "--force")
    status, _, err = run(capsys, *words)
    assert status == 0, err
    cut = {group["id"] for group in json.loads(Path("m.pruned.plan.json").read_text())["groups"] if group["removed"]}
    assert cut and not cut & {group["id"] for group in told["groups"]}
    status, out, _ = run(capsys, "explain", "m.pruned.plan.json", LAYER)
    assert status == 0 and f"module {LAYER} is cut by" in out and f"it stays whole: excluded by {LAYER!r}" in out
    status, _, err = run(capsys, *words[:4], "--exclude", "/model/encodr", "--force")
    assert status == 2 and "did you mean '/model/encoder" in err


@pytest.mark.parametrize(("width", "lines"), [(80, 3), (40, 6)])
def test_names_are_whole(width: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"/{'module/' * 5}Conv_{k}" for k in range(2)]
    columns = Column("size"), Column("why", text=True)
    listing(Console(width=width), "group", columns, [[name, "12", "it must"] for name in names])
    out = capsys.readouterr().out
    assert all(name in out for name in names) and "…" not in out
    assert len(out.splitlines()) == lines
    listing(Console(width=width), "group", columns, [])
    assert not capsys.readouterr().out
