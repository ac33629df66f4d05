"""What other packages bring: a criterion, a pattern, a pass and an operator, each a package of one file.

Each is installed as any package is, by a ``dist-info`` with its entry points, and used by the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.small import Net
from tests.helpers import constants
from tests.helpers_sparse import follows, weights

CRITERION = '''
import numpy as np

def widest(given, group):
    """The last classes matter most."""
    return np.arange(1.0, group.size + 1)
'''
PATTERN = """
import re
from dataclasses import dataclass
from graphprune.analysis.patterns import OfEvery, Pattern

@dataclass(frozen=True)
class OneOf(Pattern):
    form = "one-of-M"
    block: int = 0

    @classmethod
    def read(cls, text, amount):
        return cls(int(found[1])) if (found := re.fullmatch(r"one-of-(\\d+)", text)) else None

    __str__ = lambda self: f"one-of-{self.block}"
    stay = lambda self, blocks: OfEvery(1, self.block).kept(blocks, 1)
"""
PASS = """
from dataclasses import dataclass
from graphprune.model.editor import Editor
from graphprune.passes.contract import Pass

@dataclass(frozen=True)
class Clip(Pass):
    name = "clip"
    most: float

    def requires(self, state):
        return () if self.most > 0 else ("most must be above 0",)

    def call(self, state):
        editor = Editor(state.model)
        for weight in state.model.initializers:
            editor.replace(weight, state.model.array(weight).clip(-self.most, self.most))
        return state.having(model=editor.finish())
"""
RULE = """
from graphprune.rules.table import line
product = line("... i, o i -> ... o", "0*1", "... i o")
"""


def lines(source: str) -> int:
    return sum(bool(text.strip()) for text in source.splitlines())


def install(folder: Path, group: str, name: str, source: str, function: str) -> None:
    """A package of one file, as an installer leaves it."""
    (folder / "theirs.py").write_text(source)
    info = folder / "theirs-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = theirs:{function}\n")


UNRULED = "com.microsoft", "TransposeMatMul"
"""An operator that ONNX Runtime runs; its own rule is taken out, so that nothing knows it but what is installed."""


def graphprune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with what is installed in a folder."""
    start = (
        "from graphprune import cli, rules; from graphprune.analysis import verify; verify.always = True; "
        f"del rules._registered[{UNRULED}]; cli.main()"
    )
    command = [sys.executable, "-c", start, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def perceptron(tmp_path: Path) -> Path:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, 64))
    x = net.op("TransposeMatMul", x, net.weight(64, 64, stem="projection"), domain="com.microsoft", transB=1)
    onnx.save(net.model(net.linear(net.op("Relu", x), 64, 16), domains=["com.microsoft"], rank=3), tmp_path / "m.onnx")
    return tmp_path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    net = Net()
    x = net.op("Relu", net.linear(net.input("x", ["batch", 8, 64]), 64, 64))
    x = net.op("Relu", net.linear(x, 64, 64))
    onnx.save(net.model(net.linear(x, 64, 16), rank=3), tmp_path / "m.onnx")
    return tmp_path


def test_a_criterion(plain: Path) -> None:
    assert lines(CRITERION) <= 10
    install(plain, "graphprune.criteria", "widest", CRITERION, "widest")
    done = graphprune(plain, "prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "--uniform", "--criterion", "widest")
    assert done.returncode == 0, done.stderr
    groups = json.loads((plain / "s.plan.json").read_text())["groups"]
    assert len(groups) == 2 and all(g["removed"] == list(range(32)) for g in groups)


def test_a_pattern(plain: Path) -> None:
    assert lines(PATTERN) <= 15
    install(plain, "graphprune.patterns", "one-of", PATTERN, "OneOf")
    for method in ("magnitude", "wanda", "sparsegpt"):
        given = ["--method", method, "--calibration", "generated"] if method != "magnitude" else []
        done = graphprune(plain, "sparsify", "m.onnx", "-o", f"{method}.onnx", "--pattern", "one-of-8", *given)
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads((plain / f"{method}.plan.json").read_text())["sparsity"]
        value, axis = weights(onnx.load(plain / f"{method}.onnx"))[entry["nodes"][0]]
        assert follows(value, axis, 1, 8) and (value != 0).mean() == 1 / 8
        assert entry["pattern"] == "one-of-8" and entry["method"] == method
    for more, why in ((["--permute"], "orders of channels"), (["--packed", "p.safetensors"], "--packed")):
        done = graphprune(plain, "sparsify", "m.onnx", "--pattern", "one-of-8", *more)
        assert done.returncode == 2 and why in done.stderr


def test_a_pattern_that_does_not_import(plain: Path) -> None:
    install(plain, "graphprune.patterns", "broken", "raise RuntimeError('no')", "Broken")
    done = graphprune(plain, "sparsify", "m.onnx")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pattern 'broken' of entry point 'theirs:Broken' does not import: no" in done.stderr


def test_a_pass(plain: Path) -> None:
    assert lines(PASS) <= 20
    install(plain, "graphprune.passes", "clip", PASS, "Clip")
    (plain / "r.toml").write_text('format = "graphprune-recipe/1"\n[[passes]]\nuse = "clip"\nmost = 0.01\n')
    done = graphprune(plain, "run", "r.toml", "m.onnx", "-o", "s.onnx")
    assert done.returncode == 0, done.stderr
    made = onnx.load(plain / "s.onnx")
    floats = [v for v in constants(made).values() if v.dtype == np.float32]
    assert max(np.abs(v).max() for v in floats) == np.float32(0.01)
    assert json.loads({p.key: p.value for p in made.metadata_props}["graphprune.recipe"])["passes"] == [
        {"use": "clip", "most": 0.01}
    ]
    for wrong, why in (
        ("most = -1.0", "'clip': most must be above 0"),
        ("most = 'x'", "r.toml:4"),
        ("", "most is miss"),
    ):
        (plain / "r.toml").write_text(f'format = "graphprune-recipe/1"\n[[passes]]\nuse = "clip"\n{wrong}\n')
        done = graphprune(plain, "run", "r.toml", "m.onnx")
        assert done.returncode == 2 and why in done.stdout + done.stderr


def test_an_operator_in_one_line(perceptron: Path) -> None:
    """It is coupled, observed, fitted and made sparse: ONNX Runtime runs it, and nothing here knows it but its line."""
    done = graphprune(perceptron, "prune", "m.onnx", "--ratio", "0.5")
    assert done.returncode == 2 and "nothing" in done.stderr
    install(perceptron, "graphprune.rules", "com.microsoft:TransposeMatMul", RULE, "product")
    job = ("--calibration", "generated", "--json")
    done = graphprune(perceptron, "prune", "m.onnx", "-o", "s.onnx", "--ratio", "0.5", "--align", "1", *job)
    assert done.returncode == 0, done.stderr
    assert projection(perceptron / "s.onnx").size < 0.6 * 64 * 64
    assert any("TransposeMatMul" in f["node"] for f in json.loads(done.stdout)["compensated"])
    done = graphprune(perceptron, "sparsify", "m.onnx", "-o", "t.onnx", *job)
    assert done.returncode == 0, done.stderr
    assert follows(projection(perceptron / "t.onnx"), 1)


def projection(path: Path) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if "projection" in t.name)


def test_a_criterion_that_raises_is_told_as_its_own(plain: Path) -> None:
    install(plain, "graphprune.criteria", "bad", "def bad(given, group):\n    raise ValueError('no scores')\n", "bad")
    done = graphprune(plain, "prune", "m.onnx", "--ratio", "0.3", "--criterion", "bad")
    assert done.returncode == 2 and "criterion 'bad' of" in done.stderr and "ValueError: no scores" in done.stderr
