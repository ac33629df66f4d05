"""The zoo: exports of many architectures by several exporters, pruned as they are and after other tools."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import onnxsim
import onnxslim
import pytest
from onnx import ModelProto

import graphprune
import models
from tests import helpers, rotation

SHORT_OF_A_FIFTH = {
    "segformer": "most weights lie between hidden sizes that layer norms run over: 49 % with --allow-statistical",
}
"""Models that lose less than 20 % of their parameters at --ratio 0.3, and why."""


def short(name: str) -> bool:
    return any(name.startswith(known) for known in SHORT_OF_A_FIFTH)


def test_the_zoo_is_what_it_is_said_to_be() -> None:
    names = {n.rpartition("-")[0] for n in models.zoo()}
    assert len(names) >= 55
    assert sum(map(short, names)) <= len(names) / 10
    for start in (*SHORT_OF_A_FIFTH, *models.FULL_SIZE):
        assert any(n.startswith(start) for n in models.exported()), start
    exporters = {models.export(n).producer_name for n in models.zoo()}
    assert len(exporters) >= 3
    opsets = {o.version for n in models.zoo() for o in models.export(n).opset_import if o.domain == ""}
    assert min(opsets) == 9 and max(opsets) >= 23


def test_a_name_that_no_export_has_is_an_error() -> None:
    assert models.known("swin-ts14", "vit-ts16") == ("swin-ts14", "vit-ts16")
    for look_up in (models.known, models.export):
        with pytest.raises(LookupError, match=r"no export is called 'swin-ts16' \(swin-ts14"):
            look_up("swin-ts16")


@pytest.mark.parametrize("name", models.zoo())
def test_pruned_by_three_tenths(name: str) -> None:
    result = graphprune.prune(models.export(name), ratio=0.3, align=1)
    assert result.proof is not None and result.proof.worst <= 1e-4
    share = 1 - result.after.parameters / result.before.parameters
    assert share >= (0.15 if short(name) else 0.195), share
    helpers.check(result.model.proto) if result.analysis.model.opsets[""] < 28 else None


@pytest.mark.parametrize("name", rotation.some(models.zoo(), 3))
def test_statistical_groups_too(name: str) -> None:
    """Where a mean is taken off, the proof holds as well, and the error that is left is reported."""
    result = graphprune.prune(models.export(name), ratio=0.3, allow_statistical=True)
    assert result.proof is not None and result.proof.worst <= 1e-4
    assert bool(result.proof.statistical) == bool(result.proof.plain)


def simplified(model: ModelProto, _: Path) -> ModelProto:
    found: ModelProto = onnxsim.simplify(model)[0]
    return found


def slimmed(model: ModelProto, _: Path) -> ModelProto:
    logging.disable(logging.CRITICAL)
    found: ModelProto = onnxslim.slim(model)
    return found


def optimised(model: ModelProto, folder: Path) -> ModelProto:
    """ONNX Runtime's offline optimisation, extended level."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def pruned(model: ModelProto, _: Path) -> ModelProto:
    return graphprune.prune(model, ratio=0.25, prove=False).model.proto


(_CLASSIFIER,) = models.known("sklearn-classifier-skl17")
REFUSED = {("slimmed", _CLASSIFIER): "its output of maps loses its type, so that nothing loads it"}
"""What other tools write that ONNX Runtime does not load, pruned or not."""
BOUND = {name: {"ids": (2, 12)} for name in models.known("lstm-wide-dynamo18", "gru-wide-dynamo18")}
"""Exports whose output is declared with the length that they were exported at, which onnxsim believes; and sizes."""


TOOLS = (simplified, slimmed, optimised, pruned)


@pytest.mark.parametrize(
    ("name", "tool"), rotation.pairs(rotation.some(models.zoo()), TOOLS), ids=lambda v: getattr(v, "__name__", v)
)
def test_after_other_tools(name: str, tool: Callable[[ModelProto, Path], ModelProto], tmp_path: Path) -> None:
    """What they fuse and fold loses as much as before, with the same proof; so does what was pruned already."""
    if (tool.__name__, name) in REFUSED:
        with pytest.raises(Exception, match="Invalid tensor data type"):
            helpers.run(tool(models.export(name), tmp_path), {})
        return
    ratio = 0.34 if tool is pruned else 0.3  # one of the three heads that are left
    before = graphprune.prune(models.export(name), ratio=0.3, prove=False)
    sizes = BOUND.get(name) if tool is simplified else None
    result = graphprune.prune(tool(models.export(name), tmp_path), ratio=ratio, input_shapes=sizes)
    assert result.proof is not None and result.proof.worst <= 1e-4
    share, usual = (1 - r.after.parameters / r.before.parameters for r in (result, before))
    assert share >= 0.8 * usual - 0.02, (share, usual)
