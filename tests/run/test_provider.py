from __future__ import annotations

import onnxruntime as ort
import pytest

from graphprune.run import runtime


def test_cuda_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert runtime.fastest() == "CUDAExecutionProvider"
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert runtime.fastest() == "CPUExecutionProvider"


def test_cuda_does_not_round_what_it_multiplies() -> None:
    assert runtime._exact("CUDAExecutionProvider") == [
        ("CUDAExecutionProvider", {"use_tf32": 0}),
        "CPUExecutionProvider",
    ]
    assert runtime._exact("CPUExecutionProvider") == ["CPUExecutionProvider"]
