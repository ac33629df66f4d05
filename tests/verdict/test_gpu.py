"""What only a GPU can show: engines run, agree, are timed, and read 2:4 weights by sparse kernels.

With an RTX card and ``pip install 'graphprune[test]'``, or with any NVIDIA GPU and NVIDIA's own ``tensorrt`` package::

    pytest -m gpu -n 0 -s

Without a GPU every test here is skipped.
"""

from __future__ import annotations

import pytest
from onnx import ModelProto

import graphprune
import models
from graphprune.model import load
from graphprune.verdict import half, trt
from graphprune.verdict.checks import Checks
from graphprune.verdict.verdict import validate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not trt.gpu(), reason="needs a GPU")]


def resnet() -> ModelProto:
    return models.export("resnet50-ts")


def pair(name: str) -> tuple[ModelProto, ModelProto]:
    """A model in float16, dense and 2:4."""
    dense = half.converted(load(models.export(name))).proto
    return dense, graphprune.sparsify(dense).model.proto


@pytest.mark.parametrize("name", ["resnet50-ts", "vit-b16-dynamo", "llama-gqa-dynamo", "bert-base-ts"])
def test_engines_agree_with_onnx_runtime(name: str) -> None:
    model = models.export(name)
    verdict = validate(graphprune.prune(model, ratio=0.3, align=8).model, model, Checks(tensorrt=True))
    levels = {level.name: level for level in verdict.levels}
    assert levels["tensorrt"].status == "passed", levels["tensorrt"].message
    assert levels["engine"].status == "passed", levels["engine"].message
    print(name, levels["tensorrt"].details["fusion"], levels["engine"].details["outputs"])


def test_half_the_work_is_faster() -> None:
    model = resnet()
    pruned = graphprune.prune(model, ratio=0.3, align=8).model
    shape = {i.name: (8, 3, 224, 224) for i in load(model).inputs}
    found = graphprune.bench(model, pruned, tensorrt=True, input_shapes=shape, rounds=50)
    print(found)
    assert found.ratios[0].speedup > 1


@pytest.mark.parametrize("name", ["resnet50-ts", "bert-base-ts", "vit-b16-ts"])
def test_sparse_kernels_are_picked_and_reported(name: str) -> None:
    model = pair(name)[1]
    verdict = validate(model, None, Checks(tensorrt=True))
    level = next(v for v in verdict.levels if v.name == "tensorrt")
    follow = [e["node"] for e in level.details["eligible"] if e["sparse"] and e["eligible"]]
    print(name, len(follow), "eligible;", level.details["pruned"].get("sparsity"))
    assert len(follow) > 20 and level.details["pruned"]["sparsity"], "what TensorRT itself says of it"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("resnet50-ts", (32, 3, 224, 224)), ("vit-b16-ts", (32, 3, 224, 224)), ("bert-base-ts", (32, 128))],
)
def test_dense_beside_sparse(name: str, sizes: tuple[int, ...]) -> None:
    """Times of the same model with dense and with 2:4 weights; eligible is not faster: TensorRT picks by timing."""
    dense, sparse = pair(name)
    shape = {i.name: sizes for i in load(dense).inputs}
    found = graphprune.bench(dense, sparse, tensorrt=True, input_shapes=shape, rounds=50)
    print(name, found)
    assert found.ratios[0].speedup > 0.9
