"""The forecast of sparse kernels counts a quantised product only where it is 8 bits in and out."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import onnx
import pytest

import graphprune
from graphprune.schema import schema
from graphprune.verdict import trt
from tests.analysis.test_int8 import quantised
from tests.helpers import command


@pytest.mark.parametrize("outputs", [True, False])
def test_verdict_and_inspection_say_what_to_quantise(
    tmp_path: Path, outputs: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = quantised(tmp_path, outputs)
    pooled = next(n for n in model.graph.node if n.op_type == "GlobalAveragePool").input[0]
    monkeypatch.setattr(trt, "backend", lambda: "tensorrt-rtx")
    monkeypatch.setattr(trt, "gpu", lambda: False)
    monkeypatch.setattr(trt, "build", lambda *_: trt.Build("tensorrt-rtx", True, layers=1, seconds=1.0))
    status, told, said = command(capsys, "validate", tmp_path / "q.onnx", "--trt", "--json", tmp_path / "v.json")
    assert status == 0, said
    verdict = json.loads((tmp_path / "v.json").read_text())
    jsonschema.validate(verdict, schema("verdict"))
    layers = next(level for level in verdict["levels"] if level["name"] == "tensorrt")["details"]["eligible"]
    status, inspected, _ = command(capsys, "inspect", tmp_path / "q.onnx", "--sparsity")
    assert status == 0 and len(layers) == 4
    if outputs:
        assert all(e["eligible"] and e["int8"] == {"in_and_out": True, "reason": "", "remedy": ""} for e in layers)
        wanted = "8 bits: 4 of 4 quantised products are 8 bits in and out, as sparse kernels want them"
        assert wanted in " ".join(inspected.split()) and "; quantise" not in inspected
        return
    assert [e["eligible"] for e in layers] == [e["int8"]["in_and_out"] for e in layers] == [True, False, True, False]
    assert layers[1]["int8"]["remedy"] == f"quantise {pooled!r}" and layers[1]["reasons"][-1].endswith(f"{pooled!r}")
    for text in (told, inspected):
        assert (
            f"8 bits: 2 of 4 quantised products are 8 bits in and out, as sparse kernels want them; quantise {pooled!r}"
            in " ".join(text.split())
        )


def test_sparsify_notes_it(tmp_path: Path) -> None:
    quantised(tmp_path, False)
    result = graphprune.sparsify(tmp_path / "q.onnx", include=["*Conv*"], prove=False)
    assert [n for n in result.notes if n.startswith("2 quantised products are not 8 bits in and out")]
    onnx.save(quantised(tmp_path, True), tmp_path / "q.onnx")
    assert not any("8 bits in and out" in n for n in graphprune.sparsify(tmp_path / "q.onnx", include=["*Conv*"]).notes)
