"""Norms over a shrinking dim are corrected; what is left where a mean is taken off is reported."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto

import graphprune
import models
from graphprune.cli import report
from graphprune.rewrite import corrections
from graphprune.rewrite.corrections import apply as corrected
from models.small import Net
from tests import helpers


def stream(norm: Callable[[Net, str, int], str], opset: int = 23, width: int = 12) -> ModelProto:
    """A stream of two writers, a norm over it, and a reader."""
    net = Net(4, opset=opset, ir_version=10)
    x = net.input("x", ["batch", 5, 8])
    y = net.linear(x, 8, width)
    y = net.op("Add", y, net.linear(net.op("Relu", net.linear(y, width, 6)), 6, width))
    return net.model(net.linear(norm(net, y, width), width, 3))


def rms(net: Net, y: str, width: int) -> str:
    return net.op("RMSNormalization", y, net.weight(width), epsilon=0.25)


def rms_default(net: Net, y: str, width: int) -> str:
    return net.op("RMSNormalization", y, net.weight(width))


def rms_in_parts(net: Net, y: str, width: int) -> str:
    mean = net.op("ReduceMean", net.op("Pow", y, net.constant(np.float32(2))), net.ints(-1))
    root = net.op("Sqrt", net.op("Add", mean, net.constant(np.float32(0.25))))
    return net.op("Mul", net.op("Div", y, root), net.weight(width))


def computed_gain(net: Net, y: str, width: int) -> str:
    """The gain is an activation, so that there is no constant to scale."""
    gain = net.op("Sigmoid", net.op("ReduceMax", y, net.ints(0, 1), keepdims=0))
    return net.op("RMSNormalization", y, gain)


def lp(net: Net, y: str, width: int) -> str:
    return net.op("LpNormalization", y, axis=-1, p=2)


def layer(net: Net, y: str, width: int) -> str:
    return net.op("LayerNormalization", y, net.weight(width), net.weight(width), epsilon=0.25)


def hidden(result: graphprune.Result) -> list[graphprune.Group]:
    return [g for p in result.plan.groups if (g := result.analysis.group(p.id)) is not None and g.size == 12]


@pytest.mark.parametrize("norm", [rms, rms_default, rms_in_parts, computed_gain, lp], ids=lambda f: f.__name__)
def test_what_divides_by_a_norm_is_exact(norm: Callable[[Net, str, int], str]) -> None:
    model = stream(norm)
    helpers.check(model)
    result = graphprune.prune(model, ratio=0.5)
    assert hidden(result) and result.proof is not None and result.proof.worst < 1e-5
    helpers.check(result.model.proto)
    feeds = helpers.random_feeds(model, {"batch": 2})
    masked = helpers.mask_by_hand(model, result.plan.to_json())
    for expected, found in zip(helpers.run(masked, feeds), helpers.run(result.model.proto, feeds), strict=True):
        assert helpers.relative(expected, found) < 1e-5


def test_the_plan_says_what_was_corrected() -> None:
    result = graphprune.prune(stream(rms), ratio=0.5, include=["matmul_2:2"])
    (change,) = (a for a in result.plan.attributes if a.name == "epsilon")
    assert (change.before, change.after) == (0.25, 0.5)
    (scaled,) = (s for s in result.plan.slices if s.scaled)
    assert scaled.scaled == pytest.approx(2**0.5)
    graphprune.apply(result.plan, stream(rms))


def op_types(model: ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


def test_a_norm_in_parts_keeps_its_parts() -> None:
    """The factor goes through the root into the epsilon and the gain, so that runtimes can still fuse the parts."""
    model = stream(rms_in_parts)
    result = graphprune.prune(model, ratio=0.5)
    assert not result.plan.corrections and op_types(result.model.proto) == op_types(model)
    scaled = sorted(s.scaled for s in result.plan.slices if s.scaled)
    assert scaled == [pytest.approx(2**0.5), pytest.approx(2)]
    exported = models.export("t5-decoder-ts14")
    after, before = (optimised(m) for m in (graphprune.prune(exported, ratio=0.3).model.proto, exported))
    counts = [[op_types(m).count(op) for op in ("SimplifiedLayerNormalization", "ReduceMean")] for m in (before, after)]
    assert counts == [[12, 0], [12, 0]]


def optimised(model: ModelProto) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "o.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def test_where_the_factor_leads_elsewhere_a_product_is_put_in() -> None:
    """The mean is read twice: no constant behind it can make up for both."""

    def twice(net: Net, y: str, width: int) -> str:
        mean = net.op("ReduceMean", net.op("Pow", y, net.constant(np.float32(2))), net.ints(-1))
        return net.op("Mul", net.op("Div", y, net.op("Sqrt", net.op("Add", mean, mean))), net.weight(width))

    result = graphprune.prune(stream(twice), ratio=0.5)
    assert [c["factor"] for c in result.plan.corrections] == [0.5]
    assert result.proof is not None and result.proof.worst < 1e-5


def test_without_its_corrections_the_proof_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "apply", lambda *_: {})
    with pytest.raises(graphprune.ProofError):
        graphprune.prune(stream(rms), ratio=0.5)


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray, epsilon: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gain + shift


def test_a_pruned_layer_norm_is_the_smaller_architecture_with_sliced_weights() -> None:
    model = stream(layer)
    assert not hidden(graphprune.prune(model, ratio=0.5))
    result = graphprune.prune(model, ratio=0.5, allow_statistical=True)
    (group,) = hidden(result)
    stay = np.setdiff1d(np.arange(12), next(p.removed for p in result.plan.groups if p.id == group.id))
    inner = next(p.removed for p in result.plan.groups if p.id != group.id)
    middle = np.setdiff1d(np.arange(6), inner)
    w = list(helpers.constants(model).values())  # in the order in which they were made
    x = helpers.random_feeds(model, {"batch": 2})["x"]
    y = x @ w[0][:, stay] + w[1][stay]
    z = np.maximum(y @ w[2][np.ix_(stay, middle)] + w[3][middle], 0)
    y = y + z @ w[4][np.ix_(middle, stay)] + w[5][stay]
    y = layer_norm(y, w[6][stay] * np.sqrt(2), w[7][stay], 0.25 * 2)
    expected = y @ w[8][stay] + w[9]
    assert helpers.relative(expected, helpers.run(result.model.proto, {"x": x})[0]) < 1e-5


def plain_error(model: ModelProto, monkeypatch: pytest.MonkeyPatch | None = None) -> float:
    """What pruning 30 % of every group costs against the plainly masked original."""
    if monkeypatch is not None:  # norms over k elements as they come, as other tools leave them
        monkeypatch.setattr(corrections, "apply", lambda *_: {})
    pruned = graphprune.prune(model, ratio=0.3, allow_statistical=True, prove=monkeypatch is None)
    monkeypatch and monkeypatch.setattr(corrections, "apply", corrected)
    feeds = helpers.random_feeds(model, {"batch": 2, "sequence": 9})
    masked = helpers.run(helpers.mask_by_hand(model, pruned.plan.to_json()), feeds)[0]
    return helpers.relative(masked, helpers.run(pruned.model.proto, feeds)[0])


@pytest.mark.parametrize("name", ["bert-classifier-ts17", "vit-ts16", "diffusion-unet-dynamo21", "diffusion-unet-ts17"])
def test_the_correction_brings_statistical_groups_nearer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.export(name)
    corrected_error, bare = plain_error(model), plain_error(model, monkeypatch)
    assert corrected_error < 0.7 * bare


def test_the_root_that_a_norm_gives_out_is_corrected_too() -> None:
    net = Net(4, opset=17)
    y = net.linear(net.input("x", ["batch", 5, 8]), 8, 12)
    y, _, root = net.op("LayerNormalization", y, net.weight(12), net.weight(12), outputs=3)
    model = net.model(net.op("Add", net.linear(y, 12, 3), root))
    result = graphprune.prune(model, ratio=0.5, allow_statistical=True)
    assert result.plan.groups[0].statistical and result.proof is not None and result.proof.worst < 1e-5


def test_the_error_of_statistical_groups_is_reported() -> None:
    result = graphprune.prune(stream(layer), ratio=0.5, allow_statistical=True)
    assert result.proof is not None and result.proof.worst < 1e-5
    (group,) = hidden(result)
    assert result.proof.statistical == [group.id]
    (output,) = result.proof.plain
    assert output.max_rel > 1e-4
    data = report.result_data(result)
    assert data["proof"]["plain"][0]["max_rel"] == output.max_rel


def test_group_normalisation_keeps_its_groups() -> None:
    net = Net(3, opset=21, ir_version=10)
    y = net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 12)
    y = net.op("GroupNormalization", y, net.weight(12), net.weight(12), num_groups=4)
    model = net.model(net.conv(net.op("Mul", y, net.weight(12, 1, 1)), 12, 2), rank=4)
    result = graphprune.prune(model, ratio=0.34, allow_statistical=True)
    assert result.proof is not None and result.proof.worst < 1e-5
    onnx.checker.check_model(result.model.proto, full_check=True)
