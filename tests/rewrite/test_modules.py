"""A Python file made of a plan holds its names and numbers, and no code of theirs."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphprune
from graphprune.errors import InputError
from graphprune.rewrite.modules import snippet
from graphprune.rewrite.plan import load
from graphprune.rewrite.settings import Count
from graphprune.rewrite.statedict import Narrowed
from models.small import chain
from tests.helpers import command, constants

TEXT = st.text() | st.sampled_from(
    ['"""\nraise SystemExit\n"""', "'''\nraise SystemExit\n", "C:\\users", "$TABLES", '\\"']
)
NUMBERS = st.floats() | st.integers() | st.booleans() | st.none()


def held(text: str) -> dict[str, Any]:
    """The tables of a file, without torch; and its docstring."""
    code = compile(text.encode(), "made.py", "exec")
    tables = text[text.index("\n# Removed elements") : text.index("\n\n\nclass Hint")]
    names: dict[str, Any] = {}
    exec(tables, names)
    return {**names, "title": str(code.co_consts[0]).partition("\n\n    import ")[0]}


@given(title=TEXT, names=st.lists(TEXT, min_size=1, unique=True), kind=TEXT, config=st.dictionaries(TEXT, NUMBERS),
       factor=st.floats(), gone=st.sets(st.integers(0, 300), min_size=1))  # fmt: skip
@example(
    "a\\", ["\ud800", "\x00", "\u2028", "\U0001f600'\\'\""], "'", {"eps": math.inf, "low": -math.inf}, math.nan, {1}
)
@settings(deadline=None, max_examples=60)
def test_any_names_and_numbers_are_read_back(
    title: str, names: list[str], kind: str, config: dict[str, Any], factor: float, gone: set[int]
) -> None:
    own = np.asarray(sorted(gone))
    found = Narrowed({}, removed={n: {0: own} for n in names}, shapes={n: ((301,), (301 - len(gone),)) for n in names})
    found.scaled = {names[0]: np.float64(factor)}
    read = held(snippet(found, [Count(kind, 3, 2, tuple(names))], title, "made", config))
    assert read["title"] == title
    assert read["SLICES"] == {n: ((301,), {0: 0}) for n in names} and read["COUNTS"] == [(kind, 3, 2, names)]
    pairs = [part.split("-") for part in read["REMOVED"][0].split()]
    assert [i for pair in pairs for i in range(int(pair[0]), int(pair[-1]) + 1)] == sorted(gone)
    assert repr(read["SCALED"]) == repr({names[0]: float(factor)}) and repr(read["CONFIG"]) == repr(config)  # NaN too


def test_a_plan_names_a_file_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither code nor a path stands where the model's name does; a graph with such a name still has a plan."""
    model = chain()
    onnx.save(model, tmp_path / "m.onnx")
    graphprune.prune(tmp_path / "m.onnx", tmp_path / "s.onnx", ratio=0.5, align=1)
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(constants(model), tmp_path / "w.safetensors")
    plan = json.loads((tmp_path / "s.plan.json").read_text())
    for name in ('x"""\nimport os', "../m.onnx", "C:\\users\\m.onnx", "m.onnx\n", "\x9b31m", "", 5):
        bad = copy.deepcopy(plan)
        bad["model"]["file"] = name
        (tmp_path / "bad.plan.json").write_text(json.dumps(bad))
        given = tmp_path / "bad.plan.json", tmp_path / "w.safetensors", "-o", tmp_path / "cut.py"
        code, _, said = command(capsys, "torch-modules", *given, "--model", tmp_path / "m.onnx")
        assert code == 2 and "at model/file" in said and not (tmp_path / "cut.py").exists()
    model.graph.name = "a/b\n\\c"
    graphprune.prune(model, tmp_path / "t.onnx", ratio=0.5, align=1)
    assert load(tmp_path / "t.plan.json").model["file"] == "a_b__c"
    with pytest.raises(InputError, match="at model/file"):
        load(tmp_path / "bad.plan.json")
