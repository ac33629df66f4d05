"""What a few bytes ask for is told before anything is allocated for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import limits
from tests.helpers import command


def model(*nodes: onnx.NodeProto, **constants: list[int]) -> ModelProto:
    inits = [numpy_helper.from_array(np.asarray(v, np.int64), n) for n, v in constants.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    out = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "g", ends, out, inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


make = helper.make_node
DOUBLED = [make("Concat", [f"c{k - 1}" if k else "x"] * 2, [f"c{k}"], axis=0) for k in range(60)]
CASES = {
    "a constant that is filled": (
        model(make("ConstantOfShape", ["s"], ["w"]), make("MatMul", ["x", "w"], ["y"]), s=[4, 1 << 40]),
        "(MatMul) makes 1x1099511627776, 4 TiB",
    ),
    "a tile": (model(make("Tile", ["x", "s"], ["y"]), s=[1 << 30, 1 << 20]), "(Tile) makes"),
    "a broadcast": (model(make("Expand", ["x", "s"], ["y"]), s=[1 << 40, 4]), "(Expand) makes 1099511627776x4, 16 TiB"),
    "what doubles": (model(*DOUBLED), "(Concat) makes"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_room_is_told(case: str) -> None:
    proto, said = CASES[case]
    with pytest.raises(InputError) as told:
        graphprune.analyze(proto)
    assert said in str(told.value) and "--memory allows more" in str(told.value)


def test_the_limit_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model(*DOUBLED[:20]), tmp_path / "m.onnx")
    assert command(capsys, "inspect", tmp_path / "m.onnx", "-q")[0] == 0
    status, _, error = command(capsys, "inspect", tmp_path / "m.onnx", "--memory", "1M")
    assert status == 2 and "2 MiB, more than the 1 MiB that are allowed" in error
    assert command(capsys, "inspect", tmp_path / "m.onnx", "--memory", "much")[0] == 2
    with limits.memory(100):
        assert limits.too_large((5, 5), TensorProto.FLOAT) is None
        assert limits.too_large((1 << 40, 1 << 40, 1 << 40), TensorProto.INT8) is not None
