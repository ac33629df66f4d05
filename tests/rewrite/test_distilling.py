"""The loop of distillation in the README of this room, as it stands there."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphprune
from models.digits import images
from tests.helpers import command


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps: threads that wait for each other take longer than the work."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


README = Path(graphprune.__file__).parent / "rewrite" / "README.md"


def classifier() -> Any:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def trained() -> Any:
    """A classifier of digits, by labels."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module, (x, y) = classifier(), map(torch.from_numpy, images("train"))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    for _ in range(120):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
        optimizer.step()
    return module.eval()


def score(module: Any) -> float:
    """The share of held-out images that are right."""
    torch = pytest.importorskip("torch")
    x, y = images("held out")
    with torch.no_grad():
        return float((module(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


@pytest.mark.torch
def test_distillation_wins_back_what_pruning_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    module, inputs = trained(), torch.from_numpy(images("train")[0])
    before = score(module)
    torch.onnx.export(module, (inputs[:2],), tmp_path / "m.onnx", dynamo=False)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    assert command(capsys, "prune", tmp_path / "m.onnx", "-o", tmp_path / "s.onnx", "--ratio", "0.5")[0] == 0
    given = tmp_path / "s.plan.json", tmp_path / "m.pt", "-o", tmp_path / "small_modules.py"
    assert command(capsys, "torch-modules", *given)[0] == 0
    monkeypatch.syspath_prepend(tmp_path)
    (text,) = re.findall(r"test_distilling.py -->\n```python\n(.*?)```", README.read_text(), re.S)
    assert len(text.splitlines()) <= 30
    held: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), held)
    cut = copy.deepcopy(module)
    held["small_modules"].narrow(cut)
    torch.manual_seed(0)
    after = score(held["distil"](module, inputs, steps=150))
    assert (module[0].out_channels, module[3].out_channels, module[11].in_features) == (8, 16, 64)
    assert after > score(cut) + 0.2 and after > before - 0.05
