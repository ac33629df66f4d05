"""Every export: what is said to be sparse is so, by numpy and by Polygraphy, and TensorRT builds it."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from polygraphy.tools.sparse import SparsityPruner

import graphprune
import models
from graphprune import Checks
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.model.canonical import canonicalize
from graphprune.verdict import trt
from tests import rotation
from tests.helpers import bare, check, constants
from tests.helpers_sparse import follows, weights

PACKAGED = ("ppocr-v4-det", "ppocr-v4-rec", "ppocr-v4-cls", "ppocr-v5-det", "ppocr-v5-rec", "ppocr-v5-cls", "magika")


def untouched(before: ModelProto, after: ModelProto, names: set[str]) -> None:
    """Nothing differs but the values of some constants, and what the model says of how it was made."""
    after = ModelProto.FromString(bare(after))
    assert list(after.opset_import) == list(before.opset_import)
    assert list(after.metadata_props) == list(before.metadata_props)
    left = [copy.deepcopy(m) for m in (before, after)]
    for proto in left:
        for tensor in proto.graph.initializer:
            if tensor.name in names:
                for field in ("raw_data", "float_data", "int32_data", "int64_data"):
                    tensor.ClearField(field)
        for node in proto.graph.node:
            if node.output and node.output[0] in names:
                node.ClearField("attribute")
    assert left[0] == left[1]


@pytest.mark.parametrize("name", [*rotation.some(models.zoo(), 3), *PACKAGED])
def test_every_weight_that_is_eligible_is_sparse(name: str) -> None:
    source = models.packaged(name) if name in PACKAGED else models.export(name)
    before = load(source).proto
    try:
        result = graphprune.sparsify(source)
    except InputError as none:
        assert "nothing becomes 2:4" in str(none) or "no product with a weight" in str(none)
        return
    assert result.sparse is not None
    sparse = {n for t in result.sparse.thinned for n in t.target.nodes}
    dense = {s.node: str(s) for s in result.sparse.skipped}
    found = weights(result.model.proto)
    known = {n.name or n.output[0] for n in result.model.proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")}
    assert (sparse & known) <= set(found), "each has been looked at"
    assert all(follows(*found[n]) for n in sparse if n in found)
    for node, (value, axis) in found.items():  # what stays has a reason
        assert node in sparse or node in dense or value.shape[axis] == 1
    if canonicalize(load(source)).original is None:  # nothing was laid open
        untouched(before, result.model.proto, {t.target.weight for t in result.sparse.thinned})
    held = constants(result.model.proto)
    for one in result.sparse.thinned:
        if one.target.weight in held:
            assert np.isfinite(held[one.target.weight]).all()
    if checks(before):  # not all files of the wild do
        check(result.model.proto)


def checks(model: ModelProto) -> bool:
    try:
        check(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@pytest.mark.parametrize(
    "name",
    ["bert-classifier-ts17", "convnext-ts14", "efficientnet-ts12", "mobilenet-v2-ts10", "regnet-ts11", "vit-ts16"],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_polygraphy_says_so_too(name: str) -> None:
    result = graphprune.sparsify(models.export(name))
    proto = result.model.proto
    pruner = SparsityPruner(proto)
    with contextlib.redirect_stdout(io.StringIO()):
        pruner.check()
    assert result.sparse is not None
    direct = {t.target.weight for t in result.sparse.thinned} & {t.name for t in proto.graph.initializer}
    assert direct and direct <= pruner.sparse_tensors


@pytest.mark.parametrize("name", ["bert-ts11", "ppocr-v4-rec", "yolo-ts12"])
def test_tensorrt_builds_it_with_sparse_weights_on(name: str, tmp_path: Path) -> None:
    try:
        trt.backend()
    except graphprune.BackendError:
        pytest.skip("needs TensorRT")
    source = models.packaged(name) if name in PACKAGED else models.export(name)
    shapes = {"x": (1, 3, 48, 320)} if name == "ppocr-v4-rec" else None
    result = graphprune.sparsify(source, checks=Checks(tensorrt=True), input_shapes=shapes)
    assert result.verdict is not None and result.verdict.passed and result.sparse is not None
    level = next(v for v in result.verdict.levels if v.name == "tensorrt")
    sparse = {e["node"] for e in level.details["eligible"] if e["sparse"]}
    assert {n for t in result.sparse.thinned for n in t.target.nodes} <= sparse
