"""Sparse tensors of a file: read as what they hold, written as they were read, and as small as their form allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import files, load, storage
from tests.helpers import bare, command, run

KINDS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}
FORMS = ("linear", "by axis", "raw")


def weight(*shape: int, zeros: float = 0.8, dtype: Any = np.float32) -> np.ndarray:
    rng = np.random.default_rng(0)
    value = np.where(rng.random(shape) < zeros, 0, rng.integers(1, 100, shape))
    return np.asarray(value.astype(dtype))


def sparse_of(value: np.ndarray, form: str = "linear") -> SparseTensorProto:
    """A sparse tensor by ONNX's own helpers, in one of the forms that there are."""
    places = np.flatnonzero(value)
    values = numpy_helper.from_array(value.reshape(-1)[places], "w")
    if form == "by axis":
        indices = numpy_helper.from_array(np.argwhere(value))
    elif form == "raw":
        indices = numpy_helper.from_array(places)
    else:
        indices = helper.make_tensor("", TensorProto.INT64, places.shape, places.tolist())
    return helper.make_sparse_tensor(values, indices, value.shape)


def reading(sparse: SparseTensorProto, kind: str = "initializer", opset: int = 17, ir_version: int = 8) -> ModelProto:
    """A model that gives its only weight out, wherever that stands."""
    shape, dtype = list(sparse.dims), sparse.values.data_type
    body = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", dtype, shape)],
        sparse_initializer=[sparse] if kind == "body" else [],
    )
    nodes = [helper.make_node("Identity", ["w"], ["v"])]
    if kind in ("body", "captured"):
        nodes = [helper.make_node("If", ["yes"], ["v"], then_branch=body, else_branch=body)]
    if kind == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    graph = helper.make_graph(
        [*nodes, helper.make_node("Cast", ["v"], ["y"], to=TensorProto.FLOAT)],
        "reading",
        [helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        sparse_initializer=[sparse] if kind in ("initializer", "captured") else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


YES = {"yes": np.array(True)}


@pytest.mark.parametrize("dtype", KINDS.values(), ids=[TensorProto.DataType.Name(k) for k in KINDS])
def test_every_type_that_is_stored_sparse_is_read_by_the_runtime(dtype: Any) -> None:
    value = weight(8, 16, dtype=dtype)
    model = reading(storage.encode(numpy_helper.from_array(value, "w"), value), opset=19, ir_version=9)
    onnx.checker.check_model(model)
    assert np.array_equal(run(model, YES)[0], value.astype(np.float32))


def test_those_are_all_types() -> None:
    assert set(KINDS) == storage.TYPES


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 1000), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_what_is_read_back_is_the_same_bit_for_bit(shape: list[int], seed: int, zeros: float) -> None:
    rng = np.random.default_rng(seed)
    value = np.where(rng.random(shape) < zeros, 0, rng.standard_normal(shape)).astype(np.float32)
    value[rng.random(shape) < 0.1] = -0.0
    value[rng.random(shape) < 0.1] = np.nan
    tensor = numpy_helper.from_array(value, "w")
    sparse = storage.encode(tensor, value)
    assert storage.decode(sparse, numpy_helper.to_array).tobytes() == value.tobytes()
    assert storage.measure(tensor, value).size == sparse.ByteSize()


@pytest.mark.parametrize("start", [0, 127, 128, 16383, 16384, (1 << 21) - 1, 1 << 21])
def test_places_take_as_many_bytes_as_they_need(start: int) -> None:
    value = np.zeros(start + 3, np.float32)
    value[start:] = 1
    tensor = numpy_helper.from_array(value, "w")
    sparse = storage.encode(tensor, value)
    expected = helper.make_tensor("", TensorProto.INT64, [3], [start, start + 1, start + 2])
    expected.ClearField("name")
    assert sparse.indices.SerializeToString() == expected.SerializeToString()
    assert storage.measure(tensor, value).size == sparse.ByteSize()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_and_ours_is_the_smallest(form: str) -> None:
    value = weight(20, 30, 3)
    model = reading(sparse_of(value, form))
    loaded = load(model)
    assert loaded.stored == {"w"} and np.array_equal(loaded.array("w"), value)
    assert len(model.graph.sparse_initializer) == 1  # what was given is as it was
    own = storage.encode(numpy_helper.from_array(value, "w"), value)
    assert own.ByteSize() <= sparse_of(value, form).ByteSize() and own.dims == list(value.shape)


@pytest.mark.parametrize("kind", ["initializer", "constant", "captured", "body"])
@pytest.mark.parametrize("external", [False, True])
def test_a_model_is_written_as_it_was_read(tmp_path: Path, kind: str, external: bool) -> None:
    value = weight(40, 40)
    loaded = load(reading(sparse_of(value), kind))
    size = files.save(loaded, tmp_path / "a.onnx", external)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert external or size == files.size(loaded)
    again = load(tmp_path / "a.onnx")
    assert again.stored == loaded.stored == {"w"}
    files.save(again, tmp_path / "b.onnx")
    for name in ("a.onnx", "b.onnx"):
        onnx.checker.check_model(tmp_path / name)
        assert np.array_equal(run(str(tmp_path / name), YES)[0], value)
        held = [t for g in storage.parts(onnx.load(tmp_path / name, load_external_data=False)) for t in g.node]
        dense = [a for n in held for a in n.attribute if a.name == "value"]
        assert not dense and not onnx.load(tmp_path / name, load_external_data=False).graph.initializer
    assert (tmp_path / "a.onnx.data").exists() == external
    if external and kind in ("initializer", "captured"):
        assert (tmp_path / "a.onnx.data").stat().st_size >= 4 * np.count_nonzero(value)
        assert (tmp_path / "b.onnx.data").read_bytes() == (tmp_path / "a.onnx.data").read_bytes()


def test_external_values_are_never_written_over_their_source(tmp_path: Path) -> None:
    files.save(load(reading(sparse_of(weight(40, 40)))), tmp_path / "a.onnx", external=True)
    with pytest.raises(InputError, match="would overwrite"):
        files.save(load(tmp_path / "a.onnx"), tmp_path / "a.onnx")


def test_an_older_file_becomes_one_that_has_sparse_tensors(tmp_path: Path) -> None:
    files.save(load(reading(sparse_of(weight(9, 9)), opset=9, ir_version=4)), tmp_path / "a.onnx")
    assert onnx.load(tmp_path / "a.onnx").ir_version == storage.IR_VERSION


def turned(sparse: SparseTensorProto) -> None:
    places = numpy_helper.to_array(sparse.indices).copy()
    places[:2] = places[1::-1]
    sparse.indices.CopyFrom(numpy_helper.from_array(places))


def beyond(sparse: SparseTensorProto) -> None:
    places = numpy_helper.to_array(sparse.indices).copy()
    places[-1] = 9999
    sparse.indices.CopyFrom(numpy_helper.from_array(places))


def beyond_by_axis(sparse: SparseTensorProto) -> None:
    sparse.CopyFrom(sparse_of(weight(8, 8), "by axis"))
    places = numpy_helper.to_array(sparse.indices).copy()
    places[0] = 0, 8
    sparse.indices.CopyFrom(numpy_helper.from_array(places))


def short(sparse: SparseTensorProto) -> None:
    sparse.indices.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(sparse.indices)[1:]))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (turned, "do not ascend"),
        (beyond, "do not ascend"),
        (beyond_by_axis, "outside of"),
        (short, "values, and places"),
    ],
)
def test_a_sparse_tensor_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[SparseTensorProto], None], why: str
) -> None:
    sparse = sparse_of(weight(8, 8))
    spoil(sparse)
    (tmp_path / "m.onnx").write_bytes(reading(sparse).SerializeToString())
    status, _, err = command(capsys, "inspect", tmp_path / "m.onnx")
    assert status == 2 and "m.onnx: sparse tensor 'w' cannot be read" in err and why in err


def test_every_command_reads_sparse_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.passes.test_store import digits

    model, path, out = digits(), tmp_path / "m.onnx", tmp_path / "o.onnx"
    stored = graphprune.sparsify(model, path, pattern="unstructured", amount=0.8, store="auto")
    assert load(path).stored and stored.output == path
    assert command(capsys, "inspect", path)[0] == 0
    status, printed, _ = command(capsys, "prune", path, "--ratio", "0.3", "-o", out)
    assert status == 0 and "5 weights stored sparse in m.onnx became dense; --store auto keeps them so" in printed
    assert not load(out).stored
    assert command(capsys, "apply", tmp_path / "o.plan.json", path, "-o", tmp_path / "again.onnx")[0] == 0
    assert bare(onnx.load(tmp_path / "again.onnx")) == bare(onnx.load(out))
    dense = graphprune.prune(graphprune.sparsify(model, pattern="unstructured", amount=0.8).proto, ratio=0.3)
    both = {t.name: numpy_helper.to_array(t) for t in dense.proto.graph.initializer}
    assert {n: v.tobytes() for n, v in both.items()} == {
        t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(out).graph.initializer
    }
    assert command(capsys, "validate", path, "--against", path, "--max-abs", "0")[0] == 0
    assert command(capsys, "bench", path, out, "--rounds", "2", "--threads", "1")[0] == 0
    assert graphprune.analyze(onnx.load(path)).groups
    assert ort.InferenceSession(str(path)).get_inputs()
