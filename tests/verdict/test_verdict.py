"""Validation: a good model passes every level, and a broken one fails at the right one, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
import models
from graphprune.cli import main
from graphprune.model.files import plain
from graphprune.schema import schema
from graphprune.verdict import trt
from graphprune.verdict.checks import Checks
from graphprune.verdict.verdict import validate
from models.small import Net, chain, residual
from tests import rotation

SUBSET = ["vgg-dynamo18s", "resnext-ts9", "yolo-dynamo18", "vit-ts16", "bert-classifier-ts17", "llama-dynamo18"]
SUBSET += ["diffusion-unet-dynamo21", "lstm-tagger-ts9"]


def statuses(verdict: graphprune.Verdict) -> dict[str, str]:
    return {level.name: level.status for level in verdict.levels}


def failure(model: ModelProto, name: str, against: ModelProto | None = None, checks: Checks | None = None) -> str:
    verdict = validate(model, against, checks)
    (level,) = (level for level in verdict.levels if level.status == "failed")
    assert level.name == name and not verdict.passed
    return level.message


def test_a_pruned_model_passes_and_its_outputs_are_compared() -> None:
    model = models.export("vit-ts16")
    verdict = validate(graphprune.prune(model, ratio=0.3).model, model)
    assert statuses(verdict) == dict.fromkeys(("checker", "runtime", "comparison"), "passed")
    (values,) = verdict.levels[2].details["outputs"].values()
    assert 0.5 < values["cosine"] < 1 and values["max_abs"] > 0
    same = validate(model, model, Checks(max_abs=1e-6, min_cosine=0.9999))
    assert same.passed
    pruned = graphprune.prune(model, ratio=0.3).model
    assert "has cosine" in failure(pruned, "comparison", model, Checks(min_cosine=0.9999))


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
    assert "inputs are not those" in failure(model, "comparison", chain())
    wider = Net()
    model = wider.model(wider.conv(wider.input("x", ["batch", 3, 8, 8]), 3, 5))
    assert "has shape" in failure(model, "comparison", chain())


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
    status, out, err = run(capsys, "validate", *pair, "--max-abs", "1e-9")
    assert status == 1 and "differs by" in out and err.count("\n") == 1
    status, out, quiet = run(capsys, "validate", *pair, "--max-abs", "1e-9", "-q")
    assert (status, out, quiet) == (1, "", err) and "error: b.onnx: fails at comparison: output" in err
    status, out, _ = run(capsys, "validate", *pair, "--json")
    assert status == 0 and [level["status"] for level in json.loads(out)["levels"]] == ["passed"] * 3
    jsonschema.validate(json.loads(out), schema("verdict"))
    assert "Infinity" not in run(capsys, "validate", pair[2], "--against", pair[2], "--json")[1]
    status, out, _ = run(capsys, "validate", *pair, "--min-speedup", "1e6", "-v")
    assert status == 1 and "times as fast" in out and "comparison:" in out
    (tmp_path / "c.onnx").write_bytes((tmp_path / "a.onnx").read_bytes()[:300])
    status, _, err = run(capsys, "validate", str(tmp_path / "c.onnx"))
    assert status == 2 and err.count("\n") == 1
    status, _, err = run(capsys, "validate", str(tmp_path / "b.onnx"), "--max-abs", "1")
    assert status == 2 and "--against" in err
    for wrong, words in (
        (("--sm", "eighty"), "86,89"),
        (("--shapes", "x=4:2:1"), "smallest first"),
        (("--shapes", "x=1x3"), "smallest first"),
        (("--inputs", "none.npz"), "no such file"),
    ):
        status, out, err = run(capsys, "validate", str(tmp_path / "b.onnx"), *wrong)
        assert status == 2 and words in err and not out and err.count("\n") == 1


def test_tensorrt_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                            tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr(trt, "find_spec", lambda _: None)
    onnx.save(chain(), tmp_path / "a.onnx")
    status, _, err = run(capsys, "validate", str(tmp_path / "a.onnx"), "--trt")
    assert status == 3 and "pip install graphprune[trt]" in err


@pytest.mark.parametrize("name", rotation.some(SUBSET))
def test_tensorrt_builds_what_it_built_before(name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = models.export(name)
    checks = Checks(tensorrt=True, capabilities=[(8, 6)])
    verdict = validate(graphprune.prune(model, ratio=0.3).model, model, checks)
    level = verdict.levels[-1]
    assert level.name == "tensorrt" and level.status == "passed", level.message
    for found in (level.details["pruned"], level.details["original"]):
        assert found["engine_bytes"] > 0 and found["weights_bytes"] > 0 and sum(found["kernels"].values()) > 0
    assert level.details["pruned"]["weights_bytes"] < level.details["original"]["weights_bytes"]
    assert level.details["fusion"]["groups"] > 0 and level.details["eligible"]
    jsonschema.validate(plain(verdict.to_json()), schema("verdict"))


def test_what_tensorrt_refuses_is_named_and_so_is_who_is_to_blame() -> None:
    pytest.importorskip("tensorrt_rtx")
    net = Net()
    y = net.op("Reshape", net.linear(net.input("x", [2, 4]), 4, 9), net.ints(2, 3, 3))
    refused = net.model(net.op("Det", y), rank=1)
    fine = Net()
    other = fine.model(fine.op("ReduceMax", fine.linear(fine.input("x", [2, 4]), 4, 9), axes=[1], keepdims=0), rank=1)
    checks = Checks(tensorrt=True, capabilities=[(8, 6)])
    assert "pruning is to blame" in failure(refused, "tensorrt", other, checks)
    message = failure(refused, "tensorrt", refused, checks)
    assert "the original fails too" in message and "Det" in message


def test_a_builder_that_hangs_or_falls_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(chain(), tmp_path / "a.onnx")
    monkeypatch.setattr(trt, "backend", lambda: "tensorrt-rtx")
    profile = {"x": ((1, 3, 8, 8),) * 3}
    slow = trt.build(tmp_path / "a.onnx", trt.Job(profile, timeout=0.01))
    assert not slow.built and "stopped after" in slow.message
    poor = trt.build(tmp_path / "a.onnx", trt.Job(profile, memory=1 << 20))
    assert not poor.built and poor.message


def test_a_builder_that_aborts_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies in the middle of its work, as native code does; its last words name the node."""
    onnx.save(chain(), tmp_path / "a.onnx")
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho '[X] Parsing node: node_Conv_3 [Conv]'\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(trt, "backend", lambda: "tensorrt-rtx")
    monkeypatch.setattr(trt.sys, "executable", str(dying))
    found = trt.build(tmp_path / "a.onnx", trt.Job({"x": ((1, 3, 8, 8),) * 3}))
    assert not found.built and "crashed (SIGSEGV)" in found.message and found.node == "node_Conv_3"
    level = validate(tmp_path / "a.onnx", tmp_path / "a.onnx", Checks(tensorrt=True)).levels[-1]
    assert level.status == "failed" and "at node 'node_Conv_3'" in level.message
    assert "the original fails too" in level.message


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

    monkeypatch.setattr("graphprune.verdict.verdict.run", run_once)
    assert "at ENABLE_" in failure(chain(), "runtime")


def test_inputs_that_are_given_are_those_that_it_runs_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((20, 3, 8, 8)))
    verdict = validate(chain(), chain(), Checks(inputs=tmp_path / "in.npz"))
    assert verdict.passed and verdict.levels[1].details["inputs"] == "given"
    assert verdict.levels[1].details["sizes"] == [{"x": [8, 3, 8, 8]}, {"x": [4, 3, 8, 8]}]


def test_what_was_pruned_in_memory_is_judged_and_not_its_file(tmp_path: Path) -> None:
    """A pruned model remembers the file that it came from, which says nothing about it."""
    onnx.save(residual(), tmp_path / "a.onnx")
    pruned = graphprune.prune(tmp_path / "a.onnx", ratio=0.5).model
    tensor = next(t for t in pruned.graph.initializer if len(t.dims) == 4)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:, :-1], tensor.name))
    assert not validate(pruned).passed


def overflowing(spread: float) -> ModelProto:
    """Squares of sums: finite in float32, beyond float16 where weights are large."""
    net = Net()
    y = net.op("Mul", net.linear(net.input("x", [2, 64]), 64, 64), net.constant(np.float32(spread)))
    return net.model(net.op("Sqrt", net.op("ReduceMean", net.op("Mul", y, y))), rank=2)


def test_float16_is_told_from_pruning() -> None:
    fine, large = overflowing(0.1), overflowing(400.0)
    verdict = validate(fine, fine, Checks(half=True))
    assert verdict.passed
    details = verdict.levels[-1].details
    (rounding,) = details["original in float16 against original"].values()
    (nothing,) = details["model against original"].values()
    assert 0 < rounding["max_rel"] < 1e-2 and nothing["max_abs"] == 0
    message = failure(large, "float16", large, Checks(half=True))
    assert "so does the original" in message and "(Mul)" in message
    assert "pruning is to blame" in failure(large, "float16", fine, Checks(half=True))


def test_engines_of_float16() -> None:
    pytest.importorskip("tensorrt_rtx")
    model = models.export("vit-ts16")
    verdict = validate(model, None, Checks(half=True, tensorrt=True, capabilities=[(8, 6)]))
    whole = validate(model, None, Checks(tensorrt=True, capabilities=[(8, 6)]))
    assert verdict.passed and whole.passed
    small, large = (v.levels[-1].details["pruned"]["weights_bytes"] for v in (verdict, whole))
    assert small < 0.7 * large
    assert any(e["eligible"] for e in verdict.levels[-1].details["eligible"])
    assert not any(e["eligible"] for e in whole.levels[-1].details["eligible"])


def test_profiles_are_what_was_asked_for_or_what_it_ran_at() -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}
    checks = Checks(tensorrt=True, capabilities=[(8, 6)], profile=asked)
    assert validate(chain(), None, checks).levels[-1].details["profile"] == {"x": [list(s) for s in asked["x"]]}
    level = validate(chain(), None, Checks(tensorrt=True, capabilities=[(8, 6)])).levels[-1]
    low, _, high = level.details["profile"]["x"]
    assert level.status == "passed" and low[0] < high[0]
    wrong = Checks(tensorrt=True, profile={"y": asked["x"]})
    assert "--shapes names 'y'" in failure(chain(), "tensorrt", None, wrong)


def test_prune_can_validate_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(residual(), tmp_path / "a.onnx")
    command = ["prune", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "b.onnx"), "--ratio", "0.5"]
    status, out, _ = run(capsys, *command, "--validate")
    assert status == 0 and "runs at" in out and "cosine" in out
    (tmp_path / "b.onnx").unlink()
    with pytest.raises(graphprune.VerdictError, match=r"has cosine .* Nothing was written"):
        graphprune.prune(tmp_path / "a.onnx", tmp_path / "b.onnx", ratio=0.5, checks=Checks(min_cosine=1.0))
    assert not (tmp_path / "b.onnx").exists()


def test_without_a_gate_what_is_far_from_the_original_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(chain(), tmp_path / "a.onnx")
    graphprune.prune(tmp_path / "a.onnx", tmp_path / "b.onnx", ratio=0.9, align=1)
    pair = (str(tmp_path / "b.onnx"), "--against", str(tmp_path / "a.onnx"))
    status, out, _ = run(capsys, "validate", *pair)
    assert status == 0 and "is far from the original's (cosine" in out and "--min-cosine 0.9 would" in out
    assert "wins" not in out  # it gives a map
    status, out, err = run(capsys, "validate", *pair, "--min-cosine", "0.9")
    assert status == 1 and "has cosine" in err and "is far" not in out
    status, out, _ = run(capsys, "validate", *pair, "--min-cosine", "-1")
    assert status == 0 and "is far" not in out  # who sets a gate knows


def test_gates_need_an_original() -> None:
    with pytest.raises(graphprune.InputError, match="compare with an original"):
        validate(chain(), None, Checks(min_cosine=0.5))


def test_a_fault_of_the_original_is_not_laid_to_pruning() -> None:
    """Exporters declare wrong ranks; what they wrote stays as it is, and is said once."""
    model = chain()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    assert failure(model, "checker")
    level = validate(graphprune.prune(model, ratio=0.5).model, model).levels[0]
    assert level.status == "passed" and "the original has the same fault" in level.message
