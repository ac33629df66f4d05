"""Sparse weights without their zeros, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from safetensors import safe_open

import graphprune
import models
from graphprune.analysis.patterns import OfEvery
from graphprune.errors import InputError
from graphprune.rewrite import packed
from tests.helpers_sparse import weights
from tests.passes.test_sparsify import FORMS


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2), st.sampled_from([(2, 4), (1, 4), (4, 8)]),
    st.sampled_from([np.float32, np.float16, np.int8]), st.integers(0, 9),
)  # fmt: skip
def test_what_is_packed_comes_back(shape: list[int], axis: int, nm: tuple[int, int], dtype: type, seed: int) -> None:
    axis, pattern, rng = axis % len(shape), OfEvery(*nm), np.random.default_rng(seed)
    value = rng.integers(-3, 4, shape).astype(dtype)  # with zeros of its own
    value = value * pattern.kept(np.abs(value.astype(np.float32)), axis).astype(dtype)
    values, indices = packed.pack(value, axis, pattern)
    blocks = -(-shape[axis] // pattern.m)
    assert values.size == value.size // shape[axis] * blocks * pattern.n
    assert indices.size == -(-values.size * (pattern.m - 1).bit_length() // 8)
    back = packed.unpack(values, indices, tuple(shape), axis, pattern)
    assert back.dtype == value.dtype
    np.testing.assert_array_equal(back, value)


def test_the_layout_is_the_one_that_is_written_down() -> None:
    value = np.array([[0, 5, 0, 7, 1, 2, 0, 0]], np.float32)
    values, indices = packed.pack(value, 1, OfEvery(2, 4))
    assert values.tolist() == [[5, 7, 1, 2]] and indices.tolist() == [0b01_00_11_01]


@pytest.mark.parametrize("name", FORMS)
def test_files_hold_what_nodes_read(name: str, tmp_path: Path) -> None:
    result = graphprune.sparsify(FORMS[name], packed=tmp_path / "p.safetensors")
    found, read = packed.read(tmp_path / "p.safetensors"), weights(result.model.proto)
    assert list(found) == [t.target.weight for t in result.sparse.thinned]
    for one in result.sparse.thinned:
        held = result.model.initializers.get(one.target.weight)
        if held is None or held.data_type == TensorProto.FLOAT:
            plain = "fake" not in name
            value = read[one.target.nodes[0]][0] if plain else np.asarray(result.model.array(one.target.weight))
            np.testing.assert_array_equal(found[one.target.weight], value)
        else:  # as it is stored, before it is dequantised
            np.testing.assert_array_equal(found[one.target.weight], result.model.array(one.target.weight))


def test_half_the_bytes_and_an_eighth_for_places(tmp_path: Path) -> None:
    result = graphprune.sparsify(models.export("vit-ts16"), packed=tmp_path / "p.safetensors")
    dense = sum(np.asarray(result.model.array(t.target.weight)).nbytes for t in result.sparse.thinned)
    with safe_open(tmp_path / "p.safetensors", "np") as file:
        sizes = {n: file.get_tensor(n).nbytes for n in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(file.metadata()[result.sparse.thinned[0].target.weight])
    assert sum(v for n, v in sizes.items() if n.endswith(".values")) == dense / 2
    assert sum(v for n, v in sizes.items() if n.endswith(".indices")) == dense / 32
    assert about["pattern"] == "2:4" and about["node"] == result.sparse.thinned[0].target.nodes[0]


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not a graphprune-packed/1 file"):
        packed.read(tmp_path / "w.safetensors")


def test_packed_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Of many weights, whose metadata the library writes in an order of chance."""
    files = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for path in files:
        graphprune.sparsify(models.trained("digits-transformer"), packed=path)
    assert len({path.read_bytes() for path in files}) == 1
