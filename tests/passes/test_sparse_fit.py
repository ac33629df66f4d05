"""Masks chosen on inputs, and what stays fitted to the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
import models
from graphprune.errors import InputError
from graphprune.passes.fit import reconstruct
from graphprune.passes.sparse import sparse
from graphprune.run import synthetic
from models.digits import accuracy, images
from models.small import Net
from tests.helpers import check, relative, run
from tests.helpers_sparse import follows, weights
from tests.passes.test_sparsify import FORMS

NAME = "digits-transformer"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "in.npz"
    np.savez(path, image=images("train")[0][:64])
    return path


def all_follow(result: graphprune.Result) -> bool:
    assert result.sparse is not None
    found = weights(result.model.proto)
    nodes = [n for t in result.sparse.thinned for n in t.target.nodes if n in found]
    return bool(nodes) and all(follows(*found[n]) for n in nodes)


def test_fitted_models_keep_their_score(inputs: Path) -> None:
    path = models.trained(NAME)
    plain = graphprune.sparsify(path)
    fitted = graphprune.sparsify(path, calibration=inputs)
    assert all_follow(plain) and all_follow(fitted)
    assert accuracy(plain.model.proto) < 0.85 < 0.96 < accuracy(fitted.model.proto)
    check(fitted.model.proto)
    assert {e["method"] for e in fitted.plan.sparsity} == {"sparsegpt"}
    assert [e["weight"] for e in fitted.plan.compensated] == [f.weight for f in fitted.fits if f.kept]


@pytest.mark.parametrize(("method", "least"), [("wanda", 0.75), ("sparsegpt", 0.92)])
def test_masks_without_a_fit(method: str, least: float, inputs: Path) -> None:
    result = graphprune.sparsify(models.trained(NAME), calibration=inputs, method=method, compensate="none")
    assert all_follow(result) and accuracy(result.model.proto) > least and not result.fits
    before = weights(onnx.load(models.trained(NAME)))
    for node, (value, _) in weights(result.model.proto).items():
        kept = value != 0
        if method == "wanda":  # what stays is as it was
            np.testing.assert_array_equal(value[kept], before[node][0][kept])


def test_all_steps_together(inputs: Path) -> None:
    result = graphprune.sparsify(models.trained(NAME), calibration=inputs, permute=True)
    assert all_follow(result) and accuracy(result.model.proto) > 0.96
    assert result.proof is not None and result.proof.worst < 1e-5


def test_little_memory_changes_nothing(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = graphprune.sparsify(models.trained(NAME), calibration=inputs)
    monkeypatch.setattr(reconstruct, "MOMENTS", 1)  # one operator at a time
    parts = graphprune.sparsify(models.trained(NAME), calibration=inputs)
    assert abs(accuracy(whole.model.proto) - accuracy(parts.model.proto)) < 0.01
    assert all_follow(parts) and len(parts.fits) == len(whole.fits)


def test_cut_sparse_and_fitted_in_one_run(inputs: Path) -> None:
    path = models.trained(NAME)
    result = graphprune.prune(path, ratio=0.3, calibration=inputs, sparsity=sparse.Request())
    assert all_follow(result) and result.after.macs < 0.9 * result.before.macs
    assert accuracy(result.model.proto) > 0.93
    cut = graphprune.prune(path, ratio=0.3, sparsity=sparse.Request())
    assert all_follow(cut) and accuracy(cut.model.proto) < accuracy(result.model.proto)


@pytest.mark.parametrize("name", ["llama-dynamo23", "resnext-ts9", "unet-ts10"])
def test_exports_are_fitted_on_made_up_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SAMPLES", 16)
    result = graphprune.sparsify(models.export(name), calibration="generated")
    assert all_follow(result) and result.fits and all(f.after <= f.before for f in result.fits)
    check(result.model.proto)


def test_shared_weights_stay_sparse_when_they_are_fitted() -> None:
    """ALBERT's layers share their weights: masked by what they multiply, and fitted for all readers."""
    result = graphprune.sparsify(models.export("albert-ts14"), calibration="generated")
    assert result.sparse is not None
    shared = {t.target.weight for t in result.sparse.thinned if len(t.target.nodes) > 1}
    assert shared and {f.weight for f in result.fits if f.kept} & shared and all_follow(result)
    methods = {e["name"]: e["method"] for e in result.plan.sparsity}
    assert {methods[w] for w in shared} == {"wanda"}  # SparseGPT changes weights, for one reader


@pytest.mark.parametrize(("form", "method"), [("quantised", "wanda"), ("left", "sparsegpt"), ("batched", "sparsegpt")])
def test_weights_are_chosen_by_what_they_multiply(form: str, method: str, tmp_path: Path) -> None:
    """Those that no fit comes by too, by Wanda's score."""
    model, rng = FORMS[form], np.random.default_rng(0)
    x = rng.standard_normal((64, 5, 64)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    plain = graphprune.sparsify(model)
    fitted = graphprune.sparsify(model, calibration=tmp_path / "in.npz", compensate="none")
    assert all_follow(fitted) and {e["method"] for e in fitted.plan.sparsity} == {method}
    error = [relative(*(run(m, {"x": x})[0] for m in (model, r.model.proto))) for r in (plain, fitted)]
    assert error[1] != error[0]
    assert fitted.sparse is not None and plain.sparse is not None
    assert fitted.sparse.thinned[0].kept_magnitude < plain.sparse.thinned[0].kept_magnitude


def test_inputs_that_do_not_fit_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", other=np.zeros((3, 1, 8, 8), np.float32))
    with pytest.raises(InputError, match="other"):
        graphprune.sparsify(models.trained(NAME), calibration=tmp_path / "in.npz")


def test_samples_are_held_out_whatever_stands_in_front_of_a_state() -> None:
    """A state of two layers beside inputs of one sample: every fourth sample is held out, not none."""
    net = Net()
    state = net.op("ReduceMax", net.input("state", [2, 1, 64]), axes=[0], keepdims=0)
    x = net.op("Add", net.linear(net.input("x", [1, 64]), 64, 64), state)
    for _ in range(2):
        x = net.linear(net.op("Relu", x), 64, 64)
    result = graphprune.sparsify(net.model(x), calibration="generated")
    assert all_follow(result) and any(f.kept for f in result.fits)
