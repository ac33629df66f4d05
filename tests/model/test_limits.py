"""What a few bytes ask for is told before anything is allocated for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

import graphprune
from graphprune.analysis import shapes
from graphprune.analysis.inputs import check_room
from graphprune.errors import InputError
from graphprune.model import limits
from graphprune.proof import runs
from tests.helpers import command

F, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
make = helper.make_node


def info(name: str, kind: int = F, shape: Sequence[int | str] | None = (1, 4)) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*nodes: NodeProto, inputs: Sequence[ValueInfoProto] = (), **constants: Any) -> ModelProto:
    held = [
        v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()
    ]
    graph = helper.make_graph(list(nodes), "g", [info("x"), *inputs], [info(nodes[-1].output[0], F, None)], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def summed(name: str) -> list[NodeProto]:
    """What makes a tensor of any size a single number: nothing behind it shows how large it was."""
    return [make("ReduceSum", [name], ["q"], keepdims=0), make("Add", ["x", "q"], ["y"])]


def looped(trips: Any, inner: Sequence[NodeProto] = (), ends: NodeProto | None = None, scanned: str = "") -> ModelProto:
    """A loop that runs as often as it says; empty is for ever."""
    out = [info("on2", BOOL, []), info("v2"), *([info(scanned, F, None)] if scanned else [])]
    nodes = [ends or make("Identity", ["on"], ["on2"]), make("Relu", ["v"], ["v2"]), *inner]
    body = helper.make_graph(nodes, "body", [info("i", INT, []), info("on", BOOL, []), info("v")], out)
    loop = make(
        "Loop", ["trips" if trips is not None else "", "true", "x"], ["l", *(["s"] if scanned else [])], body=body
    )
    constants = {"trips": np.int64(trips)} if trips is not None else {}
    last = [make("ReduceSum", ["s"], ["q"], keepdims=0)] if scanned else [make("ReduceSum", ["l"], ["q"], keepdims=0)]
    return model(loop, *last, make("Add", ["l", "q"], ["y"]), true=np.bool_(True), **constants)


def nested() -> ModelProto:
    inner = looped(1 << 18).graph.node[0]
    for one in (*inner.attribute[0].g.input, *inner.attribute[0].g.output):
        one.name += "_"
    for node in inner.attribute[0].g.node:
        node.input[:], node.output[:] = ([f"{name}_" for name in side] for side in (node.input, node.output))
    inner.input[:] = ["trips", "on", "v"]
    inner.output[:] = ["n"]
    return looped(1 << 18, [inner])


def sparse(*dims: int, count: int = 1) -> ModelProto:
    found = model(*summed("s0"))
    for k in range(count):
        value, place = helper.make_tensor(f"s{k}", F, [1], [1.0]), helper.make_tensor("p", INT, [1], [3])
        found.graph.sparse_initializer.append(helper.make_sparse_tensor(value, place, dims))
    return found


def alive() -> ModelProto:
    """Each tensor has room, and all of them together do not."""
    names = [f"t{k}" for k in range(40)]
    return model(
        *(make("Tile", ["x", "s"], [n]) for n in names), make("Sum", names, ["z"]), *summed("z"), s=[1 << 14, 1 << 12]
    )


def folded() -> ModelProto:
    """Constants that nodes make are there all the time, however soon each of them is read."""
    nodes = []
    for k in range(40):
        nodes += [
            make("ConstantOfShape", ["s"], [f"w{k}"]),
            make("Add", [f"a{k - 1}" if k else "u", f"w{k}"], [f"a{k}"]),
        ]
    return model(*nodes, *summed("a39"), inputs=[info("u", F, [1 << 14, 1 << 14])], s=[1 << 14, 1 << 14])


DOUBLED = [make("Concat", [f"c{k - 1}" if k else "x"] * 2, [f"c{k}"], axis=0) for k in range(60)]
CONSTANT = [make("Concat", [f"c{k - 1}" if k else "w"] * 2, [f"c{k}"], axis=0) for k in range(45)]
WRAPPED = TensorProto(name="w", data_type=F, dims=[1 << 32, 1 << 32], raw_data=b"")
CASES = {
    "a constant that is filled": (
        model(make("ConstantOfShape", ["s"], ["w"]), make("MatMul", ["x", "w"], ["y"]), s=[4, 1 << 40]),
        "(MatMul) makes 1x1099511627776, 4 TiB",
    ),
    "one that is summed": (model(make("ConstantOfShape", ["s"], ["w"]), *summed("w"), s=[1 << 20] * 2), "4 TiB"),
    "a shape that is filled": (
        model(make("ConstantOfShape", ["s"], ["w"], value=helper.make_tensor("v", INT, [1], [1])),
              make("ConstantOfShape", ["w"], ["z"]), *summed("z"), s=[1 << 29]),
        "asks for a tensor of 536870912 axes; at most 64 are known",
    ),
    "a tile": (model(make("Tile", ["x", "s"], ["y"]), s=[1 << 30, 1 << 20]), "(Tile) makes"),
    "a broadcast": (model(make("Expand", ["x", "s"], ["y"]), s=[1 << 40, 4]), "(Expand) makes 1099511627776x4, 16 TiB"),
    "a pad": (model(make("Pad", ["x", "s"], ["y"]), s=[0, 0, 1 << 40, 0]), "(Pad) makes"),
    "a range": (model(make("Range", ["a", "b", "c"], ["z"]), *summed("z"), a=np.float32(0), b=np.float32(1e13),
                      c=np.float32(1e-3)), "(Range) makes"),
    "one-hot": (model(make("ArgMax", ["x"], ["i"]), make("OneHot", ["i", "d", "v"], ["y"]), d=[1 << 45],
                      v=np.float32([0, 1])), "(OneHot) makes"),
    "an upsampling": (
        model(make("Reshape", ["x", "s"], ["r"]), make("Resize", ["r", "", "f"], ["y"]), s=[1, 1, 2, 2],
              f=np.float32([1, 1, 1e7, 1e7])),
        "(Resize) makes",
    ),
    "a stride": (
        model(make("Reshape", ["x", "s"], ["r"]), make("ConvTranspose", ["r", "w"], ["y"], strides=[1 << 30] * 2),
              s=[1, 1, 2, 2], w=np.ones((1, 1, 1, 1), np.float32)),
        "(ConvTranspose) makes",
    ),
    "what doubles": (model(*DOUBLED), "(Concat) makes"),
    "a constant that doubles": (model(*CONSTANT, *summed("c44"), w=np.ones(4, np.float32)), "(Concat) makes"),
    "sizes that double": (model(*CONSTANT, make("Cast", ["c44"], ["z"], to=F), *summed("z"), w=[1]), "(Concat) makes"),
    "what broadcasts three ways": (
        model(make("Range", ["a", "b", "c"], ["z"]), make("Reshape", ["z", "s"], ["z1"]),
              make("Reshape", ["z", "t"], ["z2"]), make("Greater", ["z", "z"], ["g"]),
              make("Where", ["g", "z1", "z2"], ["w"]), make("Cast", ["w"], ["f"], to=F), *summed("f"),
              a=np.int64(0), b=np.int64(4096), c=np.int64(1), s=[4096, 1, 1], t=[4096, 1]),
        "(Where) makes 4096x4096x4096, 512 GiB",
    ),
    "what is alive at once": (alive(), "(Tile) runs while tensors are alive that take"),
    "constants that are alive": (folded(), "is one of 42 tensors that are alive all the time, in 41 GiB"),
    "a long axis": (model(make("ConstantOfShape", ["s"], ["w"]), *summed("w"), s=[1 << 29]), "an axis take 16 GiB"),
    "an input": (model(*summed("u"), inputs=[info("u", F, [1 << 62, 1 << 62])]), "input 'u' is"),
    "a loop": (looped(1 << 40), "runs its body 1,099,511,627,776 times, more than the 16,777,216"),
    "a loop without end": (looped(None), "runs its body for ever"),
    "a loop that goes on by a constant": (
        looped((1 << 63) - 1, ends=make("Constant", [], ["on2"], value=numpy_helper.from_array(np.bool_(True)))),
        "(Loop) runs its body",
    ),
    "a loop in a loop": (nested(), "runs its body 68,719,476,736 times"),
    "what a loop gathers": (
        looped(1 << 20, [make("Constant", [], ["r"], value=numpy_helper.from_array(np.int64([1 << 10, 1]))),
                         make("Tile", ["v", "r"], ["o"])], scanned="o"),
        "(Loop) makes 1048576x1024x4, 16 GiB",
    ),
    "a sparse tensor": (sparse(1 << 20, 1 << 20), "is laid out as 1048576x1048576, 4 TiB"),
    "one whose size wraps round": (sparse(1 << 32, 1 << 32), "which no sparse tensor can have"),
    "one below zero": (sparse(-4, -4), "which no sparse tensor can have"),
    "sparse tensors together": (sparse(1 << 14, 1 << 14, count=9), "are laid out, up to 's8' in 9 GiB"),
    "a size that wraps round": (model(*summed("w"), w=WRAPPED), "which no tensor can have"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_room_is_told(case: str) -> None:
    proto, said = CASES[case]
    with pytest.raises(InputError) as told, limits.memory(8 << 30):
        graphprune.analyze(proto)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_what_has_room_runs() -> None:
    """Of a chain one tensor is alive at a time; what is read twice by what is read twice is not copied without end."""
    chain = [make("Tile", ["x", "s"], ["r0"]), *(make("Relu", [f"r{k}"], [f"r{k + 1}"]) for k in range(50))]
    proto = model(*chain, make("ReduceMax", ["r50"], ["y"]), s=[1 << 18, 1])
    with limits.memory(9 << 20):
        graphprune.analyze(proto)
    with pytest.raises(InputError, match="more than the 2 MiB"), limits.memory(2 << 20):
        graphprune.analyze(proto)
    added = [make("Add", [f"c{k - 1}" if k else "w"] * 2, [f"c{k}"]) for k in range(45)]
    graphprune.analyze(model(*added, make("Add", ["x", "c44"], ["y"]), w=np.ones(4, np.float32)))


def test_sizes_are_looked_for_in_few_tries() -> None:
    """A model with many free sizes of which one is none is run a few times, not once for each."""
    names = [f"u{k}" for k in range(300)]
    nodes = [make("ReduceSum", [n], [f"r{n}"], keepdims=0) for n in names]
    nodes += [make("Add", ["u7", "w"], ["z"]), *summed("z"), make("Sum", [*(f"r{n}" for n in names), "y"], ["o"])]
    proto = model(*nodes, inputs=[info(n, F, [f"N{n}"]) for n in names], w=np.ones(11, np.float32))
    witness = shapes.find_witness(graphprune.model.load(proto))
    changed = [n for n in names if witness.first.inputs[n] != witness.second.inputs[n]]
    assert "u7" not in changed and len(changed) > 250


def test_branches_are_taken_in_few_runs() -> None:
    assert runs.turned([f"c{k}" for k in range(3)]) == [("c0",), ("c1",), ("c2",)]
    many = runs.turned([f"c{k}" for k in range(100)])
    assert len(many) == 16 and sorted(n for own in many for n in own) == sorted(f"c{k}" for k in range(100))


def test_inputs_are_seen_to_have_room() -> None:
    """What calibration inputs ask for, before the model runs on them; the witness is small."""
    first = info("u", F, ["N", 4])
    proto = model(make("Transpose", ["u"], ["t"]), make("MatMul", ["u", "t"], ["z"]), *summed("z"), inputs=[first])
    loaded = graphprune.model.load(proto)
    witness = shapes.find_witness(loaded)
    with limits.memory(1 << 26):
        check_room(loaded, witness, {"u": (1 << 10, 4)})
        with pytest.raises(InputError, match=r"on inputs of u=100000x4: node 'z' \(MatMul\) makes 100000x100000"):
            check_room(loaded, witness, {"u": (100_000, 4)})


def test_the_limit_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(model(*DOUBLED[:20]), tmp_path / "m.onnx")
    assert command(capsys, "inspect", tmp_path / "m.onnx", "-q")[0] == 0
    status, _, error = command(capsys, "inspect", tmp_path / "m.onnx", "--memory", "1M")
    assert status == 2 and "2 MiB, more than the 1 MiB that are allowed" in error
    assert command(capsys, "inspect", tmp_path / "m.onnx", "--memory", "much")[0] == 2
    with limits.memory(100):
        assert limits.too_large((5, 5), TensorProto.FLOAT) is None
        assert limits.too_large((1 << 40, 1 << 40, 1 << 40), TensorProto.INT8) is not None
