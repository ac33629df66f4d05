"""Fitting what is left: exact where it can be, better on held-out samples where it cannot, never worse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphprune
import models
from graphprune.model import load
from graphprune.passes.depth.depth import Request
from graphprune.passes.fit.compensation import Reference, compensate
from graphprune.passes.fit.paired import Task
from graphprune.passes.fit.reconstruct import Reconstructed, reconstruct
from graphprune.rewrite.rewrite import rewrite
from models.small import Net, residual
from tests import helpers


def identity(value: np.ndarray, _: str) -> np.ndarray:
    return np.asarray(value)


def batches(shape: tuple[int, ...], count: int = 8, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((8, *shape), dtype=np.float32)} for _ in range(count)]


def disturbed(model: ModelProto, seed: int = 1) -> ModelProto:
    """The model with noise on its weights."""
    found = ModelProto()
    found.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for tensor in found.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim > 1:
            noise = 0.3 * rng.standard_normal(value.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value + noise, tensor.name))
    return found


def fitted(original: ModelProto, other: ModelProto, data: list[dict[str, np.ndarray]]) -> Reconstructed:
    return reconstruct(Task(load(original), graphprune.analyze(original).rulings, lambda: data, identity), load(other))


def net(kind: str) -> tuple[ModelProto, tuple[int, ...]]:
    build = Net(5)
    if kind == "conv":
        x = build.input("x", ["batch", 3, 8, 8])
        y = build.op("Relu", build.conv(x, 3, 8))
        y = build.op("Relu", build.conv(y, 8, 8, group=8, bias=False))
        return build.model(build.conv(y, 8, 4, group=2)), (3, 8, 8)
    x = build.input("x", ["batch", 12])
    y = build.op("Tanh", build.linear(x, 12, 16))
    y = build.op("Tanh", build.op("Gemm", y, build.weight(10, 16), build.weight(10), transB=1))
    return build.model(build.linear(y, 10, 3, bias=False)), (12,)


@pytest.mark.parametrize("kind", ["conv", "matrices"])
def test_what_can_be_exact_becomes_exact(kind: str) -> None:
    """Nothing is missing, weights are only off: least squares finds them again, layer after layer."""
    model, shape = net(kind)
    found = fitted(model, disturbed(model), batches(shape, 24))
    assert all(f.kept and f.before > 0.01 and f.after < 1e-4 for f in found.fits) and len(found.fits) == 3
    feeds = batches(shape, 1, seed=9)[0]
    (expected,), (value,) = (helpers.run(m, feeds) for m in (model, found.model.proto))
    assert helpers.relative(expected, value) < 1e-2
    assert [t.name for t in found.model.proto.graph.initializer][:2] == [t.name for t in model.graph.initializer][:2]


def test_what_is_right_is_left_to_the_bit() -> None:
    model, shape = net("conv")
    found = fitted(model, model, batches(shape))
    assert not any(f.kept for f in found.fits)
    before = {t.name: t.SerializeToString() for t in model.graph.initializer}
    assert before == {t.name: t.SerializeToString() for t in found.model.proto.graph.initializer}


def test_a_bias_is_added_where_there_is_room_for_one() -> None:
    """The mean of what was removed goes into the bias; a convolution can take one."""
    build = Net()
    x = build.input("x", ["batch", 3, 6, 6])
    model = build.model(build.conv(build.op("Relu", build.conv(x, 3, 8)), 8, 4, bias=False))
    result = graphprune.prune(model, ratio=0.5, align=1)
    assert len(result.model.graph.node[-1].input) == 2
    data = batches((3, 6, 6))
    from graphprune.proof.proof import restrict
    from graphprune.rewrite.removal import Removal

    analysis = graphprune.analyze(model)
    removal = Removal(analysis, result.plan.selection)
    task = Task(load(model), analysis.rulings, lambda: data, lambda v, n: restrict(np.asarray(v), n, removal))
    found = reconstruct(task, result.model)
    assert len(found.model.graph.node[-1].input) == 3 and found.fits[-1].after < found.fits[-1].before
    assert result.model.graph.node[-1].input[:2] == found.model.graph.node[-1].input[:2]


def test_samples_that_are_held_out_decide() -> None:
    """Far fewer rows than unknowns: a fit that learns them by heart is dropped, or damped."""
    build = Net()
    model = build.model(build.linear(build.input("x", ["batch", 64]), 64, 8))
    noise = np.random.default_rng(3)
    data = [{"x": noise.standard_normal((1, 64), dtype=np.float32)} for _ in range(12)]
    for fit in fitted(model, disturbed(model), data).fits:
        assert fit.after <= fit.before
    nothing = fitted(model, disturbed(model), data[:2])
    assert not any(f.kept for f in nothing.fits), "nothing was held out"


@pytest.mark.parametrize(("name", "ratio", "least"), [("digits-cnn", 0.3, 0.98), ("digits-transformer", 0.3, 0.94)])
def test_trained_models_keep_their_score(name: str, ratio: float, least: float, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from models.digits import accuracy, images

    np.savez(tmp_path / "in.npz", image=images("train")[0][:64])
    plain = graphprune.prune(models.trained(name), ratio=ratio)
    result = graphprune.prune(models.trained(name), tmp_path / "b.onnx", ratio=ratio, calibration=tmp_path / "in.npz")
    assert accuracy(result.model.proto) > least > accuracy(plain.model.proto)
    assert result.after.macs <= plain.after.macs and result.proof is not None and result.proof.worst < 1e-4
    plan = json.loads((tmp_path / "b.plan.json").read_text())
    there = {t.name for t in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert plan["compensated"] and {e["weight"] for e in plan["compensated"]} <= there
    assert all(e["after"] <= e["before"] for e in plan["compensated"])
    again = graphprune.prune(models.trained(name), tmp_path / "c.onnx", ratio=ratio, calibration=tmp_path / "in.npz")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes() and again.fits == result.fits


@pytest.mark.parametrize("name", ["resnext-ts9", "bert-classifier-dynamo18", "gru-tagger-ts13"])
def test_any_export(name: str, tmp_path: Path) -> None:
    """Random weights: nothing to keep, but everything to go wrong."""
    model = models.export(name)
    sizes = dict.fromkeys(("batch", "sequence", "length"), 8)
    several = [helpers.random_feeds(model, sizes, seed, 20) for seed in range(8)]
    np.savez(tmp_path / "in.npz", **{n: np.concatenate([f[n] for f in several]) for n in several[0]})
    feeds = several[0]
    result = graphprune.prune(model, ratio=0.3, calibration=tmp_path / "in.npz")
    assert sum(f.after for f in result.fits if f.kept) < 0.9 * sum(f.before for f in result.fits if f.kept)
    assert all(np.isfinite(v).all() for v in helpers.run(result.model.proto, feeds))


def test_weights_in_constant_nodes_and_half_precision(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", x=rng.standard_normal((8, 3, 48, 96)).astype(np.float32))
    result = graphprune.prune(models.packaged("ppocr-v4-cls"), ratio=0.1, calibration=tmp_path / "in.npz")
    assert sum(f.kept for f in result.fits) > 10
    onnx.checker.check_model(result.model.proto)
    from graphprune.verdict.half import converted

    half = converted(load(residual())).proto
    np.savez(tmp_path / "in.npz", x=rng.standard_normal((16, 3, 8, 8)).astype(np.float32))
    fits = graphprune.prune(half, ratio=0.3, calibration=tmp_path / "in.npz").fits
    assert any(f.kept for f in fits)


def test_a_block_that_went_is_made_up_for(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from models.digits import accuracy, images

    np.savez(tmp_path / "in.npz", image=images("train")[0][:64])
    request = Request(count=3)
    path = models.trained("digits-transformer")
    plain = graphprune.prune(path, blocks=request, calibration=tmp_path / "in.npz", compensate="none")
    made_up = graphprune.prune(path, blocks=request, calibration=tmp_path / "in.npz")
    assert accuracy(made_up.model.proto) > accuracy(plain.model.proto)


def test_repair_brings_back_mean_and_variance(tmp_path: Path) -> None:
    """Each output of every linear operator has the original's mean and variance on the inputs it was repaired on."""
    build = Net(5)
    y = build.op("Relu", build.conv(build.input("x", ["batch", 3, 8, 8]), 3, 16))
    out = build.conv(y, 16, 4)
    model = build.model(out)
    data = np.random.default_rng(0).standard_normal((32, 3, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "in.npz", x=data)
    given = {"ratio": 0.5, "align": 1, "calibration": tmp_path / "in.npz", "criterion": "magnitude"}
    found = {c: graphprune.prune(model, compensate=c, **given) for c in ("none", "repair")}
    (wanted,) = helpers.run(model, {"x": data})
    off = {}
    for name, result in found.items():
        (value,) = helpers.run(result.model.proto, {"x": data})
        off[name] = [np.abs(f(value, (0, 2, 3)) / f(wanted, (0, 2, 3)) - 1).max() for f in (np.mean, np.std)]
    assert found["repair"].fits[-1].kept and max(off["repair"]) < 0.1 < max(off["none"])


def test_a_bias_is_added_where_it_pays() -> None:
    build = Net(5)
    x = build.op("Relu", build.linear(build.input("x", ["batch", 12]), 12, 16))
    model = build.model(build.op("Tanh", build.linear(x, 16, 8, bias=False)))
    other = ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if list(tensor.dims) == [16]:  # the mean of what comes in has moved
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 2, tensor.name))
    original, changed = load(model), load(other)
    task = Task(original, graphprune.analyze(model).rulings, lambda: batches((12,), 16), lambda v, _: v)
    found = reconstruct(task, changed)
    assert found.fits[-1].after < 0.1 * found.fits[-1].before
    found.model.proto.graph.node[0].ByteSize()
    onnx.checker.check_model(found.model.proto)


def test_a_branch_makes_up_for_what_the_stream_has_lost() -> None:
    """Targets follow the sum: the second branch is fitted to what the original's stream was, not to its own output."""
    build = Net(5)
    x = build.input("x", ["batch", 12])
    stream = build.op("Add", build.op("Tanh", build.linear(x, 12, 12)), x)
    out = build.op("Add", build.linear(x, 12, 12), stream)
    model = build.model(out)
    found = fitted(model, disturbed(model), batches((12,), 16))
    assert (
        found.fits
        and helpers.relative(
            *(helpers.run(m, {"x": batches((12,), 1, 9)[0]["x"]})[0] for m in (model, found.model.proto))
        )
        < 0.05
    )


def test_a_shared_weight_is_fitted_for_all_its_readers() -> None:
    build = Net(5)
    x = build.input("x", ["batch", 12])
    weight, biases = build.weight(12, 12), [build.weight(12) for _ in range(2)]
    for bias in biases:
        x = build.op("Tanh", build.op("Gemm", x, weight, bias))
    model = build.model(x)
    found = fitted(model, disturbed(model), batches((12,), 24))
    (fit,) = found.fits
    assert fit.kept and fit.weight == weight and ", " in fit.node and fit.after < 0.3 * fit.before
    names = [t.name for t in found.model.proto.graph.initializer]
    assert names == [t.name for t in model.graph.initializer], "it is still one weight"


def test_a_weight_that_is_also_looked_up_in_is_left_alone() -> None:
    build = Net(5)
    ids, table = build.input("ids", ["batch", 4], 7), build.weight(10, 12)
    y = build.op("Gather", table, ids)
    model = build.model(build.op("Gemm", build.op("ReduceMean", y, axes=[1], keepdims=0), table, transB=1))
    data = [{"ids": np.random.default_rng(k).integers(0, 10, (8, 4))} for k in range(8)]
    assert fitted(model, disturbed(model), data).fits == []


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("directions", [1, 2])
def test_what_a_recurrent_operator_reads_is_fitted(kind: str, directions: int) -> None:
    build, gates = Net(5), {"LSTM": 4, "GRU": 3}[kind]
    x = build.op("Tanh", build.linear(build.input("x", ["batch", 5, 8]), 8, 16))
    shapes = [(directions, gates * 6, 16), (directions, gates * 6, 6), (directions, 2 * gates * 6)]
    direction = "bidirectional" if directions == 2 else "forward"
    given = build.op("Transpose", x, perm=[1, 0, 2]), *(build.weight(*s) for s in shapes)
    model = build.model(build.op(kind, *given, hidden_size=6, direction=direction))
    other = disturbed(model)
    for mine, theirs in zip(model.graph.initializer, other.graph.initializer, strict=True):
        if len(mine.dims) != 3 or mine.dims[2] != 16:  # of the recurrent operator the input weights alone are off
            theirs.CopyFrom(mine)
    found = fitted(model, other, batches((5, 8), 24))
    fit = found.fits[-1]
    assert fit.kept and fit.before > 0.01 and fit.after < 1e-4
    feeds = batches((5, 8), 1, seed=9)[0]
    (expected,), (value,) = (helpers.run(m, feeds) for m in (model, found.model.proto))
    assert helpers.relative(expected, value) < 1e-2


def test_recurrent_states_may_shrink_and_be_fitted(tmp_path: Path) -> None:
    build = Net(5)
    x = build.op("Tanh", build.linear(build.input("x", ["batch", 5, 8]), 8, 32))
    given = build.op("Transpose", x, perm=[1, 0, 2]), build.weight(1, 64, 32), build.weight(1, 64, 16)
    y = build.op("LSTM", *given, build.weight(1, 128), hidden_size=16)
    model = build.model(build.linear(build.op("Squeeze", y, build.ints(1)), 16, 4))
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((48, 5, 8), dtype=np.float32))
    result = graphprune.prune(model, ratio=0.25, calibration=tmp_path / "in.npz", uniform=True)
    assert len(result.fits) == 3 and result.fits[1].kept and result.proof is not None and result.proof.worst < 1e-5
    assert sorted(g.size for g in result.plan.groups) == [16, 32]


@pytest.mark.parametrize("way", ["Transpose", "Cast"])
def test_weights_behind_other_nodes_are_fitted(way: str, tmp_path: Path) -> None:
    build = Net(5)
    y = build.op("Relu", build.linear(build.input("x", ["batch", 12]), 12, 16))
    if way == "Cast":
        weight = build.op("Cast", build.constant(build.rng.standard_normal((16, 6)).astype(np.float16)), to=1)
    else:
        weight = build.op("Transpose", build.weight(6, 16), perm=[1, 0])
    model = build.model(build.op("Tanh", build.op("MatMul", y, weight)))
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((48, 12), dtype=np.float32))
    result = graphprune.prune(model, ratio=0.5, align=1, calibration=tmp_path / "in.npz")
    assert result.fits[-1].kept and result.fits[-1].after < 0.8 * result.fits[-1].before
    held = {t.name: t.data_type for t in result.model.proto.graph.initializer}
    assert held[result.fits[-1].weight] == (10 if way == "Cast" else 1)
    helpers.check(result.model.proto)


def inside(kind: str) -> ModelProto:
    """Products of operators whose output is something else than the product, or with one weight for each head."""
    build, domain = Net(3), "com.microsoft"
    if kind == "convolution":
        x = build.op("Relu", build.conv(build.input("x", ["batch", 3, 10, 10]), 3, 16))
        x = build.op("FusedConv", x, build.weight(16, 16, 3, 3), build.weight(16), domain=domain, activation="Relu")
        return build.model(build.conv(x, 16, 4), domains=[domain], rank=4)
    x = build.op("Relu", build.linear(build.input("x", ["batch", 6, 24]), 24, 32))
    if kind == "scaled":
        x = build.op("FusedMatMul", x, build.weight(32, 24), domain=domain, alpha=0.5)
        return build.model(build.linear(build.op("Relu", x), 24, 8), domains=[domain], rank=3)
    x = build.op("Reshape", x, build.ints(0, 6, 4, 8))
    x = build.op("Relu", build.op("Einsum", x, build.weight(4, 8, 12), equation="bshi,hio->bsho"))
    return build.model(build.op("Einsum", x, build.weight(4, 12, 16), equation="bshd,hdo->bso"))


@pytest.mark.parametrize("kind, op", [("convolution", "FusedConv"), ("scaled", "FusedMatMul"), ("heads", "Einsum")])
def test_products_of_every_form_are_fitted(kind: str, op: str) -> None:
    shape = (3, 10, 10) if kind == "convolution" else (6, 24)
    model, data = inside(kind), batches(shape)
    analysis = graphprune.analyze(model)
    chosen = {g.id: list(range(0, g.size, 3)) for g in analysis.groups if g.prunable and not g.pinned.any()}
    done = rewrite(analysis, chosen)
    made = compensate("refit", Reference(analysis.model, analysis, lambda: data), done)
    assert any(f.kept and op in f.node and f.after < 0.8 * f.before for f in made.fits)
    feeds = batches(shape, 1, seed=9)[0]
    wanted, before, after = (helpers.run(m, feeds)[0] for m in (model, done.model.proto, made.model.proto))
    assert np.square(wanted - after).sum() < 0.8 * np.square(wanted - before).sum()
