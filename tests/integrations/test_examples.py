"""Every example of the room's page is run, in its order, on a small trained model."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from models.digits import images
from models.small import Net
from tests.helpers import run
from tests.integrations.readme import Reader, commands, sections

PAGE = Path(graphprune.__file__).parent / "integrations" / "README.md"
SECTIONS = sections(PAGE)
_TRTEXEC = """test -f "${{1#--onnx=}}" || exit 1
case "$*" in *--minShapes=image:1x1x8x8*--maxShapes=image:16x1x8x8*) touch "${{2#--saveEngine=}}";; *) exit 1;; esac"""
"""Stands for TensorRT's own program, which comes with no package: sees that the model is there, and the shapes."""


def _classifier() -> onnx.ModelProto:
    """Two convolutions and a product behind them: one image in, ten numbers out."""
    net = Net()
    x = net.input("image", ["batch", 1, 8, 8])
    x = net.op("Relu", net.conv(x, 1, 32))
    x = net.op("Relu", net.conv(x, 32, 32, strides=[2, 2]))
    return net.model(net.linear(net.op("Flatten", x), 512, 10))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Somebody with a model, 48 unlabelled inputs, and 128 held-out ones; their labels are what the model says."""
    model = _classifier()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", image=images("train")[0][:48])
    x = images("held out")[0][:128]
    (logits,) = run(model, {"image": x})
    np.savez(tmp_path / "held_out.npz", image=x, label=logits.argmax(1))
    monkeypatch.chdir(tmp_path)
    return Reader(tmp_path, {"trtexec": _TRTEXEC})


def _follow(reader: Reader, heading: str) -> Path:
    reader.follow(SECTIONS[heading])
    return reader.folder


def test_all_sections_are_run() -> None:
    with open(__file__) as own:
        text = own.read()
    assert [head for head in SECTIONS if f'"{head}"' not in text] == []


@pytest.mark.olive
@pytest.mark.slow
@pytest.mark.skipif(find_spec("olive") is None, reason="Olive is not installed: pip install 'graphprune[olive]'")
def test_olive(reader: Reader) -> None:
    """The model is pruned, quantised and judged, and the plan goes along."""
    out = _follow(reader, "How do I prune in an Olive workflow?") / "out"
    share = json.loads((out / "metrics.json").read_text())["share-accuracy_score"]["value"]
    assert share > 0.6
    model = onnx.load(out / "model.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    plan = json.loads((out / "model.plan.json").read_text())
    assert plan["model"]["file"] == "model.onnx" and any(group["removed"] for group in plan["groups"])
    told = json.loads((out / "model_config.json").read_text())["config"]["model_attributes"]["graphprune"]
    assert told["macs"][1] < 0.75 * told["macs"][0] and told["proof"] < 1e-4


def test_onnx_ir(reader: Reader) -> None:
    """A pass gives a smaller model and leaves the one given; the second one makes zeros."""
    folder = _follow(reader, "How do I prune between passes of onnx-ir?")
    result, given = reader.names["cut"].result, reader.names["model"]
    assert result.after.macs < 0.6 * result.before.macs and any(g["removed"] for g in reader.names["plan"]["groups"])
    assert sum(v.const_value.size for v in given.graph.initializers.values()) == result.before.parameters
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(folder / "small.onnx").graph.initializer]
    assert any((w == 0).mean() >= 0.5 for w in weights if w.size > 1000)


@pytest.mark.torch
def test_torch(reader: Reader) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    folder = _follow(reader, "How do I prune what PyTorch exports?")
    small = onnx.load(folder / "exported.onnx")
    assert [list(t.dims) for t in small.graph.initializer if len(t.dims) == 4] == [[12, 3, 3, 3], [32, 12, 3, 3]]


@pytest.mark.slow
def test_polygraphy(reader: Reader) -> None:
    plugins = entry_points(group="polygraphy.run.plugins").names
    assert "graphprune" in plugins, "installed before there was this entry point: pip install -e . again"
    _follow(reader, "How do I hold a pruned model against its original in Polygraphy?")
    masked, original = reader.printed[0], reader.printed[1]
    assert "graphprune-masked" in masked and "PASSED" in masked
    assert "graphprune-original" in original and "6/6 iterations" in original


@pytest.mark.slow
def test_trtexec(reader: Reader) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert (_follow(reader, "How do I build an engine by trtexec?") / "small.engine").is_file()


def test_quantisation(reader: Reader) -> None:
    """Before and behind; the quantised models hold whole numbers, and the second is the smaller one."""
    folder = _follow(reader, "How do I quantise what was pruned?")
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "small.onnx", "small-int8.onnx")]
    assert sizes[0] > sizes[1] > sizes[2]
    before, after = (onnx.load(folder / f"{name}-int8.onnx") for name in ("small", "smaller"))
    counts = [
        sum(int(np.prod(t.dims)) for t in m.graph.initializer if t.data_type == onnx.TensorProto.INT8)
        for m in (before, after)
    ]
    assert counts[0] > counts[1] > 0


@pytest.mark.slow
def test_ci(reader: Reader) -> None:
    """Every command of the workflow ends well, and the line says what was found; a gate that fails ends it."""
    heading = "How do I gate a model in CI?"
    folder = _follow(reader, heading)
    (workflow,) = (block.text for block in SECTIONS[heading] if block.language == "yaml")
    steps = commands(workflow)
    for step in steps:
        reader.shell(step)
    line = json.loads((folder / "line.json").read_text())
    cosines = [value for name, value in line.items() if name.startswith("cosine/")]
    assert line["passed"] and 0.5 < line["macs"] <= 0.6 and min(cosines) > 0.9 and line["proof"] < 1e-4
    (gate,) = (step for step in steps if "validate" in step)
    with pytest.raises(AssertionError, match="cosine"):
        reader.shell(gate.replace("--min-cosine 0.9", "--min-cosine 0.9999999"))
    assert not json.loads((folder / "validate.json").read_text())["passed"]
