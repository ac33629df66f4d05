"""Validation: a good model passes every level, and a broken one fails at the right one, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
import models
from graphprune import trt
from graphprune.cli import main
from graphprune.verdict import Limits, metrics, validate
from models.small import Net, chain, residual

SUBSET = ["vgg-dynamo18s", "resnext-ts9", "yolo-dynamo18", "vit-ts16", "bert-classifier-ts17", "llama-dynamo18"]
SUBSET += ["diffusion-unet-dynamo21", "lstm-tagger-ts9"]


def statuses(verdict: graphprune.Verdict) -> dict[str, str]:
    return {level.name: level.status for level in verdict.levels}


def failure(model: ModelProto, name: str, **settings: object) -> str:
    verdict = validate(model, **settings)  # type: ignore[arg-type]
    (level,) = (level for level in verdict.levels if level.status == "failed")
    assert level.name == name and not verdict.passed
    return level.message


def test_a_pruned_model_passes_and_its_outputs_are_compared() -> None:
    model = models.export("vit-ts16")
    verdict = validate(graphprune.prune(model, ratio=0.3).model, model)
    assert statuses(verdict) == dict.fromkeys(("checker", "runtime", "comparison"), "passed")
    (values,) = verdict.levels[2].details["outputs"].values()
    assert 0.5 < values["cosine"] < 1 and values["max_abs"] > 0
    same = validate(model, model, limits=Limits(max_abs=1e-6, min_cosine=0.9999))
    assert same.passed
    assert "has cosine" in failure(graphprune.prune(model, ratio=0.3).model, "comparison", against=model,
                                   limits=Limits(min_cosine=0.9999))  # fmt: skip


def one_slice_too_far() -> ModelProto:
    model = residual()
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [16, 12, 3, 3])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:, :-1], tensor.name))
    return model


def wrong_reshape() -> ModelProto:
    net = Net()
    y = net.op("Reshape", net.conv(net.input("x", [2, 3, 4, 4]), 3, 8), net.ints(2, 7, 16))
    return net.model(net.op("Relu", y), rank=3)


def unknown_operator() -> ModelProto:
    net = Net()
    y = net.op("Strange", net.linear(net.input("x", [2, 4]), 4, 6), domain="com.example")
    return net.model(net.linear(y, 6, 2), domains=["com.example"], rank=2)


def not_a_number() -> ModelProto:
    model = chain()
    tensor = model.graph.initializer[0]
    value = np.array(numpy_helper.to_array(tensor))
    value[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def root_of_a_negative() -> ModelProto:
    net = Net()
    y = net.op("Sqrt", net.op("Neg", net.op("Exp", net.linear(net.input("x", [2, 4]), 4, 6))))
    return net.model(net.linear(y, 6, 2), rank=2)


@pytest.mark.parametrize(
    ("make", "level", "words"),
    [
        (one_slice_too_far, "runtime", "node_Conv"),
        (wrong_reshape, "runtime", "node_Reshape"),
        (unknown_operator, "runtime", "com.example"),
        (not_a_number, "runtime", "weight 'conv_1'"),
        (root_of_a_negative, "runtime", "(Sqrt)"),
    ],
)
def test_a_broken_model_fails_at_its_level(make: Callable[[], ModelProto], level: str, words: str) -> None:
    verdict = validate(make(), chain())
    first = next(found for found in verdict.levels if found.status == "failed")
    assert first.name == level and words in first.message and "\n" not in first.message
    assert statuses(verdict)["comparison"] == "skipped"


def test_another_interface_cannot_be_compared() -> None:
    net = Net()
    model = net.model(net.conv(net.input("y", ["batch", 3, 8, 8]), 3, 4))
    assert "inputs are not those" in failure(model, "comparison", against=chain())
    wider = Net()
    model = wider.model(wider.conv(wider.input("x", ["batch", 3, 8, 8]), 3, 5))
    assert "has shape" in failure(model, "comparison", against=chain())


def test_metrics() -> None:
    a = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, -1.0]], np.float32)
    found = metrics(a, a + np.float32(0.5))
    assert found["max_abs"] == pytest.approx(0.5) and found["mean_abs"] == pytest.approx(0.5)
    assert found["psnr"] == pytest.approx(10 * np.log10(25 / 0.25))
    assert found["top1"] == 1 and metrics(a, -a)["top1"] == 0 and metrics(a, -a)["cosine"] == pytest.approx(-1)
    assert metrics(a, a)["psnr"] == float("inf") and metrics(a, a)["max_rel"] == 0


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(done.value.code or 0), shown.out, shown.err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(residual(), tmp_path / "a.onnx")
    graphprune.prune(tmp_path / "a.onnx", tmp_path / "b.onnx", ratio=0.5)
    pair = (str(tmp_path / "b.onnx"), "--against", str(tmp_path / "a.onnx"))
    status, out, _ = run(capsys, "validate", *pair)
    assert status == 0 and "cosine at least" in out
    status, out, _ = run(capsys, "validate", *pair, "--max-abs", "1e-9")
    assert status == 1 and "differs by" in out
    status, out, _ = run(capsys, "validate", *pair, "--json")
    assert status == 0 and [level["status"] for level in json.loads(out)["levels"]] == ["passed"] * 3
    (tmp_path / "c.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:300])
    status, _, err = run(capsys, "validate", str(tmp_path / "c.onnx"))
    assert status == 2 and err.count("\n") == 1
    status, _, err = run(capsys, "validate", str(tmp_path / "b.onnx"), "--max-abs", "1")
    assert status == 2 and "--against" in err
    status, _, err = run(capsys, "validate", str(tmp_path / "b.onnx"), "--sm", "eighty")
    assert status == 2 and "86,89" in err


def test_tensorrt_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                            tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr(trt, "find_spec", lambda _: None)
    onnx.save(chain(), tmp_path / "a.onnx")
    status, _, err = run(capsys, "validate", str(tmp_path / "a.onnx"), "--trt")
    assert status == 3 and "pip install graphprune[trt]" in err


@pytest.mark.parametrize("name", SUBSET)
def test_tensorrt_builds_what_it_built_before(name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = models.export(name)
    verdict = validate(graphprune.prune(model, ratio=0.3).model, model, tensorrt=True, capabilities=[(8, 6)])
    level = verdict.levels[-1]
    assert level.name == "tensorrt" and level.status == "passed", level.message
    assert all(level.details[k]["engine_bytes"] > 0 for k in ("pruned", "original"))


def test_what_tensorrt_refuses_is_named_and_so_is_who_is_to_blame() -> None:
    pytest.importorskip("tensorrt_rtx")
    net = Net()
    y = net.op("Reshape", net.linear(net.input("x", [2, 4]), 4, 9), net.ints(2, 3, 3))
    refused = net.model(net.op("Det", y), rank=1)
    fine = Net()
    other = fine.model(fine.op("ReduceMax", fine.linear(fine.input("x", [2, 4]), 4, 9), axes=[1], keepdims=0), rank=1)
    settings = {"tensorrt": True, "capabilities": [(8, 6)]}
    assert "pruning is to blame" in failure(refused, "tensorrt", against=other, **settings)
    message = failure(refused, "tensorrt", against=refused, **settings)
    assert "the original fails too" in message and "Det" in message


def test_a_builder_that_hangs_or_falls_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(chain(), tmp_path / "a.onnx")
    monkeypatch.setattr(trt, "backend", lambda: "tensorrt-rtx")
    profile = {"x": ((1, 3, 8, 8),) * 3}
    slow = trt.build(tmp_path / "a.onnx", profile, timeout=0.01)
    assert not slow.built and "stopped after" in slow.message
    poor = trt.build(tmp_path / "a.onnx", profile, memory=1 << 20)
    assert not poor.built and poor.message


def test_a_custom_domain_needs_no_schema() -> None:
    """The checker does not know it; whether it runs is the runtime's to say."""
    net = Net()
    y = net.op("BiasGelu", net.linear(net.input("x", [2, 4]), 4, 6), net.weight(6), domain="com.microsoft")
    assert validate(net.model(net.linear(y, 6, 2), domains=["com.microsoft"], rank=2)).passed


def test_a_failure_at_a_later_level_of_optimisation_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs as it is must run when it is optimised as well."""
    calls = []

    def run_once(active: object, feeds: object, *_: object) -> list[np.ndarray]:
        calls.append(feeds)
        if len(calls) > 4:
            raise graphprune.InputError("ONNX Runtime fails on inputs")
        return [np.zeros((1, 4, 8, 8), np.float32)]

    monkeypatch.setattr("graphprune.verdict.run", run_once)
    assert "at ENABLE_" in failure(chain(), "runtime")
