"""How weights are stored: by what is smaller, with a reason for what stays dense, and the same outputs bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import BackendError, InputError, ProofError
from graphprune.model import load, storage
from graphprune.passes import toml
from graphprune.passes.recipe import Recipe
from graphprune.passes.sparse import sparse, stored_proof
from graphprune.passes.sparse.passes import Sparsify
from graphprune.passes.sparse.store import STORES, Store
from graphprune.passes.state import Job
from graphprune.verdict import trt
from graphprune.verdict.checks import Checks
from models.small import Net
from tests.helpers import command, random_feeds, run

UNSTRUCTURED: dict[str, Any] = {"pattern": "unstructured", "amount": 0.8}


@pytest.fixture
def timed() -> None:
    """Asks for loading to be timed."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Loading is timed in processes of their own: once is enough."""
    if "timed" not in request.fixturenames:
        monkeypatch.setattr(stored_proof, "loading", lambda path: None)


def digits() -> ModelProto:
    return onnx.load(models.TRAINED / "digits-cnn.onnx")


def product(
    width: int = 64, zeros: float = 0.8, dtype: Any = np.float32, opset: int = 17, ir_version: int = 8
) -> ModelProto:
    net = Net(dtype=dtype, opset=opset, ir_version=ir_version)
    value = net.rng.standard_normal((width, width)).astype(dtype)
    value[net.rng.random(value.shape) < zeros] = 0
    x = net.op("MatMul", net.input("x", ["batch", width]), net.constant(value, "w"))
    return net.model(x)


def stored(model: Any, how: str = "auto", **options: Any) -> graphprune.Result:
    """What comes of a recipe that stores, and makes nothing sparse."""
    return graphprune.run_recipe(Recipe((Store(how),), Job(**options)), model)


def names(proto: ModelProto) -> set[str]:
    return {t.values.name for t in proto.graph.sparse_initializer}


def same_outputs(one: ModelProto, other: ModelProto, **sizes: int) -> bool:
    feeds = random_feeds(one, sizes)
    pairs = zip(run(one, feeds), run(other, feeds), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_what_is_written_is_smaller_and_the_same(tmp_path: Path, timed: None) -> None:
    dense = graphprune.sparsify(digits(), tmp_path / "dense.onnx", **UNSTRUCTURED)
    result = graphprune.sparsify(digits(), tmp_path / "m.onnx", **UNSTRUCTURED, store="auto")
    written = onnx.load(tmp_path / "m.onnx")
    assert dense.sparse is not None and result.stored is not None and result.stored.beside is not None
    assert names(written) == {t.target.weight for t in dense.sparse.thinned} == names(result.proto)
    assert same_outputs(onnx.load(tmp_path / "dense.onnx"), written, batch=3)
    sizes = result.stored.beside.bytes
    assert sizes[1] < 0.6 * sizes[0] and result.stored.beside.compared == 1
    assert result.after.bytes == (tmp_path / "m.onnx").stat().st_size < dense.after.bytes
    assert result.after.parameters == dense.after.parameters
    assert result.stored.beside.loads is not None and all(one.seconds > 0 for one in result.stored.beside.loads)
    for entry in result.stored.weights:
        tensor = next(t for t in written.graph.sparse_initializer if t.values.name == entry.name)
        assert tensor.ByteSize() == entry.sparse and tensor.values.dims[0] == entry.left


def test_what_is_smaller_is_found_by_computing() -> None:
    """At half of the weights a place of 2 bytes makes float32 smaller, float16 not; 3 of 10 are enough for that."""
    assert names(stored(product(64, 0.5)).proto)
    assert not names(stored(product(64, 0.5, np.float16)).proto)
    assert names(stored(product(64, 0.7, np.float16)).proto)
    assert names(graphprune.sparsify(digits(), store="auto").proto)  # 2:4


def test_sparse_takes_what_the_run_made_sparse_and_auto_what_is_smaller() -> None:
    model = product(64, 0.9)
    held = product(64, 0).graph
    model.graph.node.add(op_type="MatMul", input=[model.graph.output[0].name, "own"], output=["z"], name="second")
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(held.initializer[0]), "own"))
    model.graph.output[0].name = "z"
    options: dict[str, Any] = {"pattern": "unstructured", "amount": 0.1, "include": ["own"]}
    assert names(graphprune.sparsify(model, **options, store="sparse").proto) == {"own"}
    result = graphprune.sparsify(model, **options, store="auto")
    assert names(result.proto) == {model.graph.initializer[0].name} and result.stored is not None
    assert [(d.weight, str(d)) for d in result.stored.dense] == [("own", "as a sparse tensor it would be larger")]


def default(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def old(model: ModelProto) -> None:
    model.ir_version = 3


def in_a_node(model: ModelProto) -> None:
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    model.opset_import[0].version = 9


def four_bits(model: ModelProto) -> None:
    tensor = model.graph.initializer.pop()
    value = np.clip(numpy_helper.to_array(tensor), -1, 1).round().astype(np.int8)
    packed = helper.make_tensor("q", TensorProto.INT4, tensor.dims, value.reshape(-1).tolist())
    scale = numpy_helper.from_array(np.float32(0.5), "scale")
    model.graph.initializer.extend([packed, scale])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale"], [tensor.name], name="dq"))
    model.opset_import[0].version, model.ir_version = 21, 10


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (default, "default value of an input"),
        (old, "IR version 3"),
        (in_a_node, "from operator set 11 on"),
        (four_bits, "no sparse tensors of type INT4"),
    ],
)
def test_what_cannot_be_stored_sparse_says_why(change: Any, why: str) -> None:
    model = product(64, 0)
    change(model)
    result = graphprune.sparsify(model, **UNSTRUCTURED, also=["*"], store="sparse")
    assert result.stored is not None and not result.stored.weights and not result.model.stored
    assert [why in str(one) for one in result.stored.dense] == [True]


def test_the_value_of_a_constant_node_is_stored_there() -> None:
    model = product()
    in_a_node(model)
    model.opset_import[0].version = 13
    made = stored(model).proto
    assert [a.name for a in made.graph.node[0].attribute] == ["sparse_value"]
    onnx.checker.check_model(made, full_check=True)
    assert same_outputs(model, made, batch=3)


def branching(inner: ModelProto) -> ModelProto:
    """A model as the one branch of an If."""
    graph = inner.graph
    body = helper.make_graph(graph.node, "body", [], graph.output, graph.initializer)  # reads x from outside
    passed = helper.make_tensor_value_info("e", TensorProto.FLOAT, ["batch", 64])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "other", [], [passed])
    held = helper.make_graph(
        [helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=other)],
        "main",
        [*graph.input, helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64])],
    )
    return helper.make_model(held, opset_imports=inner.opset_import, ir_version=8)


@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_weights_in_bodies_are_stored_there(zeros: float) -> None:
    model = branching(product(zeros=zeros))
    if zeros:
        expected, made = model, stored(model).proto
    else:
        options: dict[str, Any] = {**UNSTRUCTURED, "include": ["*"]}
        expected = graphprune.sparsify(model, **options).proto
        made = graphprune.sparsify(model, **options, store="sparse").proto
    (body,) = (a.g for a in made.graph.node[0].attribute if a.name == "then_branch")
    assert len(body.sparse_initializer) == 1 and not body.initializer
    assert same_outputs(expected, made, batch=3)


@pytest.mark.parametrize("quantised", ["int8", "uint8"])
def test_quantised_weights_are_stored_by_their_bytes(quantised: str) -> None:
    """Zeros of a weight with a zero point are written as that, and are no zeros in the file."""
    model = product(64, 0.95)
    tensor = model.graph.initializer.pop()
    zero = 0 if quantised == "int8" else 128
    value = np.clip(numpy_helper.to_array(tensor) * 20 + zero, *((-127, 127) if zero == 0 else (1, 255))).astype(
        quantised
    )
    for name, one in (("q", value), ("scale", np.float32(0.1)), ("zero", np.array(zero, quantised))):
        model.graph.initializer.append(numpy_helper.from_array(one, name))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], [tensor.name], name="dq"))
    made = stored(model).proto
    assert names(made) == ({"q"} if zero == 0 else set())
    assert same_outputs(model, made, batch=3)


def test_weights_outside_the_file_stay_there(tmp_path: Path) -> None:
    onnx.save(product(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    result = graphprune.sparsify(tmp_path / "m.onnx", tmp_path / "o.onnx", **UNSTRUCTURED, also=["*"], store="auto")
    made = onnx.load(tmp_path / "o.onnx", load_external_data=False)
    (tensor,) = made.graph.sparse_initializer
    assert tensor.values.data_location == TensorProto.EXTERNAL and len(tensor.indices.int64_data)
    onnx.checker.check_model(tmp_path / "o.onnx")
    plain = graphprune.sparsify(tmp_path / "m.onnx", **UNSTRUCTURED, also=["*"])
    feeds = random_feeds(plain.proto, {"batch": 3})
    assert run(str(tmp_path / "o.onnx"), feeds)[0].tobytes() == run(plain.proto, feeds)[0].tobytes()
    assert result.after.bytes == sum((tmp_path / n).stat().st_size for n in ("o.onnx", "o.onnx.data"))
    assert (
        load(tmp_path / "o.onnx").array(tensor.values.name).tobytes() == plain.model.array(tensor.values.name).tobytes()
    )


def test_the_model_that_was_given_is_not_changed() -> None:
    model = product()
    before = model.SerializeToString()
    result = stored(model)
    assert model.SerializeToString() == before and names(result.proto)
    assert result.ir().graph.initializers and not names(result.graphsurgeon() and model)


def test_libraries_are_given_dense_weights() -> None:
    result = stored(product())
    assert len(result.ir().graph.initializers) == 1
    assert "Constant" in {type(t).__name__ for t in result.graphsurgeon().tensors().values()}


def test_a_model_that_is_stored_sparse_is_stored_dense_where_that_is_asked_for() -> None:
    made = stored(product()).proto
    assert not names(stored(made, "dense").proto) and len(stored(made, "dense").proto.graph.initializer) == 1


def test_what_comes_behind_is_refused_before_anything_is_computed() -> None:
    recipe = Recipe((Store(), Sparsify()), Job())
    with pytest.raises(InputError, match="'sparsify' is ahead, and works on dense weights"):
        graphprune.run_recipe(recipe, product())
    with pytest.raises(InputError, match="--store lean: there is none of this name; choose from dense, sparse, auto"):
        graphprune.sparsify(product(), store="lean")
    with pytest.raises(InputError, match="what the run made sparse, which is nothing here; choose auto"):
        stored(product(), "sparse")
    with pytest.raises(InputError, match="--store sparse is for weights that the run makes sparse"):
        graphprune.prune(digits(), ratio=0.3, store="sparse")
    with pytest.raises((InputError, BackendError), match="TensorRT"):
        graphprune.sparsify(digits(), store="auto", checks=Checks(tensorrt=True))


def test_where_nothing_is_smaller_that_is_said() -> None:
    result = stored(product(zeros=0))
    assert "no weight is smaller as a sparse tensor: all are stored dense" in result.notes and not names(result.proto)


def test_a_fault_in_what_is_stored_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = storage.encode

    def wrong(tensor: TensorProto, value: np.ndarray) -> Any:
        found = encode(tensor, value)
        values = numpy_helper.to_array(found.values) * np.float32(1.5)
        found.values.raw_data = values.tobytes()
        return found

    monkeypatch.setattr(storage, "encode", wrong)
    with pytest.raises(ProofError, match="reads back otherwise"):
        graphprune.sparsify(product(), tmp_path / "o.onnx", **UNSTRUCTURED, also=["*"], store="auto")
    assert not list(tmp_path.iterdir())


def test_the_command_line_tells_and_saves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], timed: None) -> None:
    path, out, recipe = tmp_path / "m.onnx", tmp_path / "o.onnx", tmp_path / "r.toml"
    onnx.save(digits(), path)
    given = ("--pattern", "unstructured", "--amount", "0.8", "--store", "auto")
    status, printed, _ = command(capsys, "sparsify", path, *given, "-o", out, "--save-recipe", recipe)
    assert status == 0 and "stored sparse: 5 weights; the file has 275 kB, dense 561 kB (-51.0 %)" in printed
    assert "outputs are the same bit for bit" in printed and "ONNX Runtime loads it in" in printed
    assert toml.load(recipe).passes[-1] == Store()
    status, printed, _ = command(capsys, "run", recipe, path, "-o", tmp_path / "again.onnx", "--json")
    told = json.loads(printed)["models"][0]["stored"]
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()
    assert told["how"] == "auto" and len(told["weights"]) == 5 and told["bytes"]["sparse"] < told["bytes"]["dense"]
    assert told["load"]["sparse"]["seconds"] > 0 and told["outputs_compared"] == 1


@pytest.mark.parametrize("how", STORES)
def test_pruned_and_sparse_in_one_run(how: str) -> None:
    made = graphprune.prune(digits(), ratio=0.3, sparsity=sparse.Request("1x4", amount=0.75), store=how)
    assert bool(names(made.proto)) == (how != "dense")
    assert made.after.parameters < made.before.parameters


@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_that_reads_no_sparse_tensors_does_not_blame_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    graphprune.sparsify(digits(), tmp_path / "m.onnx", **UNSTRUCTURED, store="auto")
    onnx.save(digits(), tmp_path / "dense.onnx")

    def build(path: Path, job: trt.Job) -> trt.Build:  # as its parser does
        return trt.Build("tensorrt-rtx", not names(onnx.load(path)), "no such weight")

    monkeypatch.setattr(trt, "backend", lambda: "tensorrt-rtx")
    monkeypatch.setattr(trt, "gpu", lambda: False)
    monkeypatch.setattr(trt, "build", build)
    verdict = graphprune.validate(tmp_path / "m.onnx", tmp_path / "dense.onnx", Checks(tensorrt=True, half=half))
    (level,) = (one for one in verdict.levels if one.name == "tensorrt")
    assert level.status == "failed" and level.message.endswith("TensorRT does not read: store them dense")
    assert "pruning is to blame" not in level.message
