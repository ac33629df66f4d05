"""Weights become products of two: exact where they have a low rank, and near where inputs do not see the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
from graphprune.analysis import analyze
from graphprune.analysis.factors import Site, find_sites
from graphprune.errors import TargetError
from graphprune.passes.rank import allocation, spectra
from tests.helpers import bare, command, relative, run

RANK = 8


def _low(rng: np.random.Generator, rows: int, columns: int, rank: int = RANK) -> np.ndarray:
    return (rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)) / rows).astype(np.float32)


def _model(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], kind: int, shape: list[int]) -> ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def products(rank: int = RANK) -> dict[str, tuple[ModelProto, np.ndarray]]:
    """Models of one weight each, with an input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 48)).astype(np.float32)
    picture = rng.standard_normal((2, 24, 9, 7)).astype(np.float32)
    bias = rng.standard_normal(64).astype(np.float32)
    weight, kernel = _low(rng, 48, 64, rank), _low(rng, 64, 24 * 9, rank).reshape(64, 24, 3, 3)
    made = helper.make_node
    matmul = [made("MatMul", ["x", "w"], ["h"]), made("Add", ["h", "b"], ["y"])]
    gemm = [made("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=1.0)]
    conv = [made("Conv", ["x", "w", "b"], ["y"], strides=[2, 1], pads=[1, 1, 1, 1])]
    lookup = [made("Gather", ["w", "x"], ["y"])]
    table = {"w": _low(rng, 100, 32, rank)}
    return {
        "MatMul": (_model(matmul, {"w": weight, "b": bias}, 1, [5, 48]), x),
        "Gemm": (_model(gemm, {"w": weight.T.copy(), "b": bias}, 1, [5, 48]), x),
        "Conv": (_model(conv, {"w": kernel, "b": bias}, 1, [2, 24, 9, 7]), picture),
        "Gather": (_model(lookup, table, 7, [4, 6]), rng.integers(0, 100, (4, 6))),
    }


@pytest.mark.parametrize("kind", ("MatMul", "Gemm", "Conv", "Gather"))
def test_a_weight_of_low_rank_is_found_and_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    model, x = products()[kind]
    source, result, again = (tmp_path / f"{name}.onnx" for name in ("a", "b", "c"))
    onnx.save(model, source)
    found = graphprune.prune(source, result, low_rank="auto")
    (entry,) = found.plan.factored
    assert (entry["rank"], entry["method"]) == (RANK, "svd")
    assert found.after.parameters < found.before.parameters
    assert relative(run(model, {"x": x})[0], run(str(result), {"x": x})[0]) < 1e-5
    graphprune.apply(tmp_path / "b.plan.json", source, again)
    assert bare(result) == bare(again)


@pytest.mark.parametrize("kind", ("MatMul", "Gemm", "Conv"))
def test_inputs_say_which_directions_matter(kind: str) -> None:
    """The weight has full rank; the inputs lie beside a mean in few directions, and a bias makes up for the mean."""
    model, x = products(rank=512)[kind]
    with pytest.raises(TargetError, match="none pays as a product of two: 'w'"):
        graphprune.prune(model, low_rank="auto")
    rng = np.random.default_rng(1)
    few = np.broadcast_to(rng.standard_normal((4, x.shape[1], *[1] * (x.ndim - 2))), (4, *x.shape[1:]))
    data = (3 + np.einsum("nk,k...->n...", rng.standard_normal((400, 4)), few)).astype(np.float32)
    batch = x.shape[0]
    found = graphprune.prune(model, low_rank="auto", calibration={"x": data[: 400 // batch * batch]})
    (entry,) = found.plan.factored
    assert entry["method"] == "data"
    assert entry["held_out"] < 0.02
    assert found.after.macs < found.before.macs
    seen = data[-batch:]
    assert relative(run(model, {"x": seen})[0], run(found.proto, {"x": seen})[0]) < 0.2


def test_what_cannot_be_met_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.onnx"
    onnx.save(products(rank=64)["MatMul"][0], source)
    status, _, error = command(capsys, "prune", source, "--low-rank", "0.95")
    assert status == 1
    assert "cannot be met" in error
    assert "of its params is the most that lower ranks save" in error
    status, _, error = command(capsys, "prune", source, "--low-rank", "much")
    assert status == 2
    assert "0.2 or macs=0.2, or auto" in error
    out = tmp_path / "b.onnx"
    status, told, _ = command(capsys, "prune", source, "-o", out, "--low-rank", "macs=0.3")
    assert status == 0
    assert "proof: weights as products of two, at full rank, give the same" in told


def test_a_weight_that_others_read_stays_whole() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="second"),
    ]
    sites, whole = find_sites(analyze(_model(nodes, {"w": _low(rng, 32, 32)}, 1, [5, 32])))
    assert not sites
    assert [(one.node, one.text) for one in whole] == [("first", "its weight is read elsewhere too")]


def test_what_is_lost_is_what_the_curve_says() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((48, 64), (64, 48)):
        site, weight = Site("w", rows, columns, 1), rng.standard_normal((rows, columns))
        root = rng.standard_normal((rows, rows))
        second = root @ root.T
        found = spectra.spectrum(site, weight, second, second)
        for rank in (1, 20, 48):
            made = found.factors(weight, rank)
            error = weight - made.left @ made.right
            lost = np.trace(error.T @ second @ error) / np.trace(weight.T @ second @ weight)
            assert found.held is not None
            assert found.held[rank] == pytest.approx(lost, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_ranks_save_what_is_asked_for_and_lose_no_more_than_equal_ranks_do(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(3):
        weight = rng.standard_normal((64, 96)) * np.geomspace(1, 10 ** -rng.uniform(0, 3), 96)
        found.append(spectra.spectrum(Site("w", 64, 96, 1), weight))

    def saved(number: int, rank: int) -> float:
        return found[number].site.elements - found[number].site.parameters(rank)

    wanted = share * 3 * 64 * 96
    chosen, total = allocation.cheapest(found, saved, None, wanted)
    assert total == pytest.approx(sum(saved(n, r) for n, r in chosen.items()))
    assert total >= wanted
    equal = [r for r in allocation.ranks(found[0]) if 3 * saved(0, int(r)) >= wanted]
    if equal:
        lost = sum(float(found[n].lost[r]) for n, r in chosen.items())
        step = max(float(one.lost[r - 8] - one.lost[r]) for one in found for r in (8, *chosen.values()))
        assert lost <= sum(float(one.lost[max(equal)]) for one in found) + step
