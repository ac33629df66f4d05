"""Uniform widths are those of a configuration: the library's own model takes the narrower state dict as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphprune
import models
from tests.helpers import command, constants, json_of

LLAMA = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": 32, "rms_norm_eps": 1e-3,
}  # fmt: skip
BERT = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32, "pad_token_id": None,
}  # fmt: skip


def export(module: Any, output: str, ids: np.ndarray, path: Path, **fixed: Any) -> None:
    """A model with random weights that are no trifle, as ONNX, and its state dict beside it."""
    torch = pytest.importorskip("torch")
    from models.make_exports import Wrapped

    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole = Wrapped(module.eval(), ("input_ids",), output, **fixed)
    torch.onnx.export(whole, (torch.from_numpy(ids),), path, input_names=["input_ids"], dynamo=True, verbose=False)
    torch.save(module.state_dict(), path.with_suffix(".pt"))


def fields(capsys: pytest.CaptureFixture[str], folder: Path, config: Any, weights: str) -> dict[str, Any]:
    """What ``torch-modules`` says of a configuration: the fields that change."""
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    given = folder / "s.plan.json", folder / weights, "--config", folder / "config.json"
    found = json.loads(json_of(capsys, folder / "t.json", "torch-modules", *given, "-o", folder / "cut.py"))
    assert not found["unexplained"]
    held: dict[str, Any] = {}
    exec(compile((folder / "cut.py").read_text(), "cut.py", "exec"), held)
    assert held["CONFIG"] == {name: one["to"] for name, one in found["config"].items()}
    return dict(held["CONFIG"])


def kept(path: Path, kind: str) -> list[str]:
    """Options by which all groups of a kind stay: one is named, and what keeps its width stays with it."""
    return ["--exclude", next(g.id for g in graphprune.analyze(path).groups if g.kind == kind)]


@pytest.mark.torch
def test_llama_loads_what_is_left_by_its_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    ids = np.random.default_rng(0).integers(3, 50, (2, 9))
    whole, small = tmp_path / "l.onnx", tmp_path / "s.onnx"
    export(hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)), "logits", ids, whole, use_cache=False)
    options = ["--ratio", "0.5", "--align", "1", "--uniform-widths", *kept(whole, "head_dim")]
    assert command(capsys, "prune", whole, "-o", small, *options)[0] == 0
    code, told, said = command(
        capsys, "state-dict", tmp_path / "s.plan.json", tmp_path / "l.pt", "-o", tmp_path / "s.pt"
    )
    assert code == 0, said
    assert "layers.*.mlp.gate_proj.weight: 48x32, now 24x16 (3 tensors)" in told
    assert "0.001 that the node that makes" in told and "is 0.002 now" in told  # a norm over half of what it ran over
    widths = json.loads((tmp_path / "s.pt.widths.json").read_text())["widths"]
    rows = {name.split(".")[-2]: one["to"][0] for name, one in widths.items()}
    sizes = {
        "hidden_size": rows["down_proj"], "intermediate_size": rows["up_proj"], "rms_norm_eps": 2e-3,
        "num_attention_heads": rows["q_proj"] // 8, "num_key_value_heads": rows["k_proj"] // 8,
    }  # fmt: skip
    assert sizes["num_attention_heads"] == sizes["num_key_value_heads"] == 2 and sizes["intermediate_size"] == 24
    assert fields(capsys, tmp_path, hf.LlamaConfig(**LLAMA), "l.pt") == sizes
    module = hf.LlamaForCausalLM(hf.LlamaConfig(**{**LLAMA, **sizes})).eval()
    module.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    found = module(input_ids=torch.from_numpy(ids)).logits.detach().numpy()
    (wanted,) = ort.InferenceSession(small, providers=["CPUExecutionProvider"]).run(None, {"input_ids": ids})
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.torch
def test_bert_whose_configuration_knows_no_head_dim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its heads are ``hidden_size`` over their number, so that they stay: only what is between two layers goes."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    ids = np.random.default_rng(0).integers(3, 50, (2, 9))
    whole, small = tmp_path / "b.onnx", tmp_path / "s.onnx"
    export(hf.BertModel(hf.BertConfig(**BERT)), "last_hidden_state", ids, whole)
    options = ["--target", "macs=0.8", "--calibration", "generated", "--no-compensate", "--no-rotate"]
    options += ["--uniform-widths", *kept(whole, "head"), *kept(whole, "head_dim")]
    assert command(capsys, "prune", whole, "-o", small, *options)[0] == 0
    given = tmp_path / "s.plan.json", tmp_path / "b.pt"
    code, _, said = command(capsys, "state-dict", *given, "-o", tmp_path / "s.pt")
    assert code == 0, said
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    left = len(state["encoder.layer.0.intermediate.dense.bias"])
    assert left < BERT["intermediate_size"]
    assert fields(capsys, tmp_path, hf.BertConfig(**BERT), "b.pt") == {"intermediate_size": left}
    module = hf.BertModel(hf.BertConfig(**{**BERT, "intermediate_size": left})).eval()
    module.load_state_dict(state)
    found = module(input_ids=torch.from_numpy(ids)).last_hidden_state.detach().numpy()
    (wanted,) = ort.InferenceSession(small, providers=["CPUExecutionProvider"]).run(None, {"input_ids": ids})
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_what_repeats_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    model = models.export("llama-dynamo18")
    onnx.save(model, tmp_path / "m.onnx")
    options = ["--ratio", "0.25", "--align", "1", "--no-proof", "-o", tmp_path / "s.onnx"]
    assert command(capsys, "prune", tmp_path / "m.onnx", *options)[0] == 0
    wide = [v for v in constants(model).values() if v.shape == (64, 128)]
    state = {f"layers.{k}.up.weight": np.ascontiguousarray(v.T) for k, v in enumerate(wide)}
    numpy.save_file(state, tmp_path / "w.safetensors")
    out = tmp_path / "n.safetensors"
    code, told, said = command(capsys, "state-dict", tmp_path / "s.plan.json", tmp_path / "w.safetensors", "-o", out)
    assert code == 0, said
    assert "layers.*.up.weight: 128x64, now 96x48 (4 tensors)" in told
    table = json.loads((tmp_path / "n.safetensors.widths.json").read_text())
    assert table["widths"] == {"layers.*.up.weight": {"from": [128, 64], "to": [96, 48], "tensors": 4}}
    assert [note for note in table["notes"] if note.startswith("1e-06 that the node") and "1.33333e-06 now" in note]
