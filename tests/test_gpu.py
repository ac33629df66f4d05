"""What only a GPU can show: engines run, agree, are timed, and read 2:4 weights by sparse kernels.

With an RTX card and ``pip install 'graphprune[test]'``, or with any NVIDIA GPU and NVIDIA's own ``tensorrt`` package::

    pytest -m gpu -n 0 -s

Without a GPU every test here is skipped.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
import models
from graphprune import half, trt
from graphprune.checks import Checks
from graphprune.model import load
from graphprune.verdict import validate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not trt.gpu(), reason="needs a GPU")]


def resnet() -> ModelProto:
    return models.export("resnet50-ts")


def sparse(model: ModelProto) -> ModelProto:
    """The smaller half of every four weights along the axis that is summed over, zero; float16."""
    proto = half.converted(load(model)).proto
    for tensor in proto.graph.initializer:
        value = np.array(numpy_helper.to_array(tensor))
        if value.ndim == 4 and value.shape[1] % 4 == 0:
            blocks = np.moveaxis(value, 1, -1).reshape(-1, 4).copy()
            smallest = np.argsort(np.abs(blocks), axis=1)[:, :2]
            np.put_along_axis(blocks, smallest, 0, axis=1)
            o, i, *k = value.shape
            value = np.moveaxis(blocks.reshape(o, *k, i), -1, 1)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    return proto


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


def test_sparse_kernels_are_picked_and_reported() -> None:
    model = sparse(resnet())
    verdict = validate(model, None, Checks(tensorrt=True))
    level = next(v for v in verdict.levels if v.name == "tensorrt")
    follow = [e["node"] for e in level.details["eligible"] if e["sparse"] and e["eligible"]]
    print(len(follow), "eligible;", level.details["pruned"].get("sparsity"))
    assert len(follow) > 20 and level.details["pruned"]["sparsity"], "what TensorRT itself says of it"


def test_dense_beside_sparse() -> None:
    dense = half.converted(load(resnet())).proto
    shape = {i.name: (32, 3, 224, 224) for i in load(dense).inputs}
    found = graphprune.bench(dense, sparse(resnet()), tensorrt=True, input_shapes=shape, rounds=50)
    print(found)
    assert found.ratios[0].speedup > 0.9
