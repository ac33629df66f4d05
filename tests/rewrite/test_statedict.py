"""State dicts of training code: the same elements go, whatever exporters did to the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphprune
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.relation import Values
from graphprune.rewrite.plan import Plan
from graphprune.rewrite.rewrite import rewrite
from graphprune.rewrite.statedict import Narrowed, narrow
from models.small import Net
from tests.helpers import command

State = dict[str, Values]


def weights(model: onnx.ModelProto) -> State:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def slices(plan: Plan, source: str) -> dict[int, list[int]]:
    (found,) = {json.dumps(s.removed, sort_keys=True) for s in plan.slices if s.source == source}
    return {int(a): e for a, e in json.loads(found).items()}


def mlp() -> onnx.ModelProto:
    net = Net()
    x = net.input("x", ["batch", 6])
    for i, o in ((6, 16), (16, 16), (16, 4)):
        x = net.op("Relu", net.op("Add", net.op("MatMul", x, net.weight(i, o)), net.weight(o)))
    return net.model(x)


@pytest.fixture(scope="module")
def pruned() -> tuple[onnx.ModelProto, Plan, list[str]]:
    model = mlp()
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    return model, plan, [t.name for t in model.graph.initializer]


def narrowed(pruned: tuple[onnx.ModelProto, Plan, list[str]], state: State) -> Narrowed:
    return narrow(load(pruned[0]), pruned[1], state)


def test_renamed_and_transposed(pruned: Any) -> None:
    model, plan, names = pruned
    held = weights(model)
    state = {f"net.{k}.{'bias' if held[n].ndim == 1 else 'weight'}": held[n].T for k, n in enumerate(names)}
    found = narrowed(pruned, state)
    assert not found.unmatched and not found.missing
    for k, name in enumerate(names):
        own = found.tensors[f"net.{k}.{'bias' if held[name].ndim == 1 else 'weight'}"]
        wanted = held[name]
        for axis, gone in slices(plan, name).items() if any(s.source == name for s in plan.slices) else ():
            wanted = np.delete(wanted, gone, axis)
        assert np.array_equal(own, wanted.T)
    assert len(found.shapes) == 5


def test_an_order_changes_nothing_for_the_training_code(pruned: Any) -> None:
    """Channels that changed places compute what they did: only what was removed goes."""
    model, plan, names = pruned
    analysis = graphprune.analyze(model)
    orders = {g.id: sorted(set(range(g.size)) - set(g.removed), reverse=True) for g in plan.groups}
    ordered = rewrite(analysis, plan.selection, orders).plan
    state = {n: weights(model)[n] for n in names}
    both = [narrow(load(model), p, state).tensors for p in (plan, ordered)]
    for name in names:
        np.testing.assert_array_equal(both[0][name], both[1][name])


def test_joined_in_the_state_dict() -> None:
    net = Net()
    x = net.input("x", ["batch", 6])
    first, second = net.weight(6, 8), net.weight(6, 12)
    parts = [net.linear(net.op("Relu", net.op("MatMul", x, w)), n, 3) for w, n in ((first, 8), (second, 12))]
    model = net.model(net.op("Add", *parts))
    plan = graphprune.prune(model, ratio=0.5, align=1).plan
    held = weights(model)
    joined = np.concatenate([held[first].T, held[second].T])
    found = narrow(load(model), plan, {"in_proj": joined})
    gone = [*slices(plan, first)[1], *(8 + e for e in slices(plan, second)[1])]
    assert len(gone) == 10 and np.array_equal(found.tensors["in_proj"], np.delete(joined, gone, 0))


def test_split_in_the_state_dict() -> None:
    net = Net()
    x = net.input("x", ["batch", 6])
    wide = net.op("Relu", net.linear(x, 6, 12))
    parts = net.op("Split", wide, net.constant(np.array([4, 8])), axis=1, outputs=2)
    y = net.op("Concat", *(net.linear(p, n, 3) for p, n in zip(parts, (4, 8), strict=True)), axis=1)
    model = net.model(y)
    plan = graphprune.prune(model, ratio=0.5, align=1).plan
    fused = next(v for v in weights(model).values() if v.shape == (6, 12))
    found = narrow(load(model), plan, {"q.weight": fused.T[:4], "v.weight": fused.T[4:]})
    gone = next(s.removed["1"] for s in plan.slices if s.removed.get("1") and s.input == 1)
    assert np.array_equal(found.tensors["q.weight"], np.delete(fused.T[:4], [e for e in gone if e < 4], 0))
    assert np.array_equal(found.tensors["v.weight"], np.delete(fused.T[4:], [e - 4 for e in gone if e >= 4], 0))


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_folded_normalisation(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    norm = {k: rng.uniform(0.5, 2, 8).astype(np.float32) for k in ("weight", "bias", "running_mean", "running_var")}
    scale = norm["weight"] / np.sqrt(norm["running_var"] + epsilon)
    net = Net()
    x = net.input("x", ["batch", 3, 8, 8])
    shift = norm["bias"] - norm["running_mean"] * scale
    y = net.op("Conv", x, net.constant(raw * scale[:, None, None, None]), net.constant(shift))
    model = net.model(net.conv(net.op("Relu", y), 8, 2))
    plan = graphprune.prune(model, ratio=0.5, align=1).plan
    gone = plan.groups[0].removed
    state = {"conv.weight": raw, **{f"bn.{k}": v for k, v in norm.items()}, "bn.num_batches_tracked": np.array(3)}
    found = narrow(load(model), plan, state)
    assert np.array_equal(found.tensors["conv.weight"], np.delete(raw, gone, 0))
    for key, value in norm.items():
        assert np.array_equal(found.tensors[f"bn.{key}"], np.delete(value, gone))
    assert not found.unmatched and found.missing == [next(s.source for s in plan.slices if s.removed.get("1"))]


def test_equal_biases_follow_the_weight_beside_them() -> None:
    """Random initialisation leaves all biases zero, and exporters share them."""
    net = Net()
    zero, x = net.constant(np.zeros(16, np.float32)), net.input("x", ["batch", 6])
    first, second = net.weight(6, 16), net.weight(16, 16)
    y = net.op("Relu", net.op("Add", net.op("MatMul", x, first), zero))
    y = net.op("Relu", net.op("Add", net.op("MatMul", y, second), zero))
    model = net.model(net.linear(y, 16, 2))
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    held = weights(model)
    state = {f"{m}.weight": held[n].T for m, n in (("a", first), ("b", second))}
    state |= {f"{m}.bias": np.zeros(16, np.float32) for m in "ab"}
    found = narrow(load(model), plan, state)
    for module, name in (("a", first), ("b", second)):
        assert found.removed[f"{module}.bias"][0].tolist() == slices(plan, name)[1]


def test_axes_of_one_that_exporters_add_to_broadcast_along() -> None:
    net = Net()
    slope = net.constant(np.random.default_rng(0).random((16, 1, 1), np.float32))
    y = net.op("PRelu", net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 16), slope)
    model = net.model(net.conv(y, 16, 2))
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    found = narrow(load(model), plan, {"act.weight": weights(model)[slope].reshape(-1)})
    assert found.removed["act.weight"][0].tolist() == slices(plan, slope)[0] and len(found.tensors["act.weight"]) == 12


def test_what_a_layer_that_stays_shares_is_not_cut() -> None:
    """One zero bias for two layers, of which one is left alone: each follows the weight beside it."""
    net = Net()
    zero, x = net.constant(np.zeros(16, np.float32)), net.input("x", ["batch", 6])
    first, second = net.weight(6, 16), net.weight(16, 16)
    y = net.op("Relu", net.op("Gemm", x, first, zero))
    model = net.model(net.op("Softmax", net.op("Gemm", y, second, zero)))
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    held = weights(model)
    state = {f"{m}.weight": held[n].T for m, n in (("a", first), ("b", second))}
    found = narrow(load(model), plan, state | {f"{m}.bias": np.zeros(16, np.float32) for m in "ab"})
    assert found.tensors["a.bias"].shape == (12,) and found.tensors["b.bias"].shape == (16,)
    assert found.tensors["b.weight"].shape == (16, 12)


def test_gates_in_another_order() -> None:
    """ONNX holds the gates of an LSTM as i, o, f, c, and its biases in one; PyTorch as i, f, c, o, and in two."""
    net, rng = Net(), np.random.default_rng(0)
    shapes = (1, 32, 12), (1, 32, 8), (1, 64)
    inputs, states, biases = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    x = net.op("Tanh", net.linear(net.input("x", [5, "batch", 6]), 6, 12))
    y = net.op("LSTM", x, *(net.constant(v) for v in (inputs, states, biases)), hidden_size=8)
    model = net.model(net.linear(net.op("Squeeze", y, net.ints(1)), 8, 2))
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    order = np.arange(32).reshape(4, 8)[[0, 2, 3, 1]].reshape(-1)
    state = {"weight_ih_l0": inputs[0][order], "weight_hh_l0": states[0][order], "bias_ih_l0": biases[0, :32][order]}
    found = narrow(load(model), plan, state | {"bias_hh_l0": biases[0, 32:][order]})
    shapes_found = {n: v.shape for n, v in found.tensors.items()}
    assert shapes_found == {
        "weight_ih_l0": (24, 9), "weight_hh_l0": (24, 6), "bias_ih_l0": (24,), "bias_hh_l0": (24,),
    }  # fmt: skip
    (gone,) = (g.removed for g in plan.groups if g.size == 8)
    rows = np.concatenate([8 * gate + np.array(gone) for gate in range(4)])
    assert sorted(found.removed["bias_ih_l0"][0]) == sorted(rows) == sorted(found.removed["weight_hh_l0"][0])


def test_weights_that_cannot_be_told_apart_are_refused() -> None:
    same = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    net = Net()
    x = net.input("x", ["batch", 8])
    rise = net.constant(np.arange(8, dtype=np.float32))
    y = net.op("Relu", net.op("MatMul", x, net.constant(same)))
    y = net.op("Relu", net.op("MatMul", net.op("Mul", y, rise), net.constant(same.copy())))
    model = net.model(net.linear(y, 8, 2))
    plan = graphprune.prune(model, ratio=0.25, align=1).plan
    with pytest.raises(InputError, match="'w' equals constants of the model that lose different elements"):
        narrow(load(model), plan, {"w": same.T})


def test_what_is_not_in_the_model_stays_and_is_named(pruned: Any) -> None:
    model, _, names = pruned
    extra, first = np.arange(12, dtype=np.float32), weights(model)[names[0]].T
    found = narrowed(pruned, {"extra": extra, "a.weight": first})
    assert found.unmatched == ["extra"] and found.tensors["extra"] is extra
    assert names[2] in found.missing and names[0] not in found.missing
    with pytest.raises(InputError, match="no tensor of the state dict equals a weight of the model"):
        narrowed(pruned, {"extra": extra})


def test_rounded_weights_are_found_and_keep_their_type(pruned: Any) -> None:
    model, plan, names = pruned
    state = {"w": weights(model)[names[0]].T.astype(np.float16)}
    found = narrowed(pruned, state).tensors["w"]
    assert found.dtype == np.float16
    assert np.array_equal(found, np.delete(state["w"], slices(plan, names[0])[1], 0))


def test_the_command_writes_both_files(tmp_path: Path, pruned: Any, capsys: pytest.CaptureFixture[str]) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    model, _, names = pruned
    onnx.save(model, tmp_path / "m.onnx")
    assert (
        command(capsys, "prune", tmp_path / "m.onnx", "--ratio", "0.25", "--align", "1", "-o", tmp_path / "p.onnx")[0]
        == 0
    )
    numpy.save_file({"a.weight": np.ascontiguousarray(weights(model)[names[0]].T)}, tmp_path / "w.safetensors")
    out = tmp_path / "n.safetensors"
    done = command(capsys, "state-dict", tmp_path / "p.plan.json", tmp_path / "w.safetensors", "-o", out)
    assert done[0] == 0 and "a.weight: 16x6, now 12x6" in done[1]
    assert numpy.load_file(out)["a.weight"].shape == (12, 6)
    table = json.loads((tmp_path / "n.safetensors.widths.json").read_text())
    assert table["layers"]["a"]["weight"]["to"] == [12, 6] and table["groups"][0]["to"] == 12
    (tmp_path / "m.onnx").unlink()
    lost = command(capsys, "state-dict", tmp_path / "p.plan.json", tmp_path / "w.safetensors", "-o", out, "--force")
    assert lost[0] == 2 and "give it by --model" in lost[2]
    bad = command(
        capsys,
        "state-dict",
        tmp_path / "p.plan.json",
        tmp_path / "p.plan.json",
        "-o",
        out,
        "--model",
        tmp_path / "p.onnx",
        "--force",
    )
    assert bad[0] == 2 and "not a safetensors file" in bad[2]


@pytest.mark.torch
def test_the_torch_model_with_new_widths_gives_what_the_pruned_model_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from models.make_digits import Transformer, export

    torch.manual_seed(1)
    module = Transformer(depth=3).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    export(module, "t", tmp_path)
    torch.save(module.state_dict(), tmp_path / "t.pt")
    pruned = tmp_path / "p.onnx"
    assert command(capsys, "prune", tmp_path / "t.onnx", "--ratio", "0.4", "--align", "1", "-o", pruned)[0] == 0
    assert command(capsys, "state-dict", tmp_path / "p.plan.json", tmp_path / "t.pt", "-o", tmp_path / "n.pt")[0] == 0
    state = torch.load(tmp_path / "n.pt", weights_only=True)
    table = json.loads((tmp_path / "n.pt.widths.json").read_text())
    heads = [g["to"] for g in table["groups"] if g["kind"] == "head"]
    assert len(heads) == 3 and max(heads) < 4
    for layer, count in zip(module.layers, heads, strict=True):
        layer.heads = count
    for name, part in list(module.named_modules()):
        if isinstance(part, torch.nn.Linear):
            rows, columns = state[f"{name}.weight"].shape
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], torch.nn.Linear(columns, rows))
    module.load_state_dict(state)
    x = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    import onnxruntime as ort

    (wanted,) = ort.InferenceSession(pruned, providers=["CPUExecutionProvider"]).run(None, {"image": x})
    found = module(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
