"""Models that are in training mode, or draw at random: proven all the same, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import graphprune
from graphprune.analysis import chance
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.passes.depth.depth import Request
from models.small import Net, residual
from tests.helpers import command


def dropped(training: bool = True, given: bool = False) -> ModelProto:
    """Half of the outputs dropped: ONNX Runtime takes other dropouts out, whatever their mode."""
    net = Net(0)
    y = net.linear(net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 24)), 24, 60)
    mode = net.input("training", [], TensorProto.BOOL) if given else net.constant(np.asarray(training))
    return net.model(net.op("Dropout", y, net.constant(np.float32(0.5)), mode))


def noisy(op: str, **attributes: object) -> ModelProto:
    """A sample from what a hidden layer says of its mean and spread."""
    net = Net(0)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 24))
    mean, spread = (net.linear(y, 24, 16) for _ in range(2))
    drawn = net.op(op, mean, **attributes) if op != "Bernoulli" else net.op(op, net.op("Sigmoid", mean))
    z = net.op("Add", mean, net.op("Mul", net.op("Exp", spread), drawn))
    return net.model(net.linear(net.op("Relu", net.linear(z, 16, 12)), 12, 3))


MODELS = {
    "Dropout": dropped(),
    "Dropout as an input says": dropped(given=True),
    "RandomNormalLike": noisy("RandomNormalLike", scale=0.5),
    "RandomUniformLike": noisy("RandomUniformLike", low=-1.0),
    "Bernoulli": noisy("Bernoulli"),
}


@pytest.mark.parametrize("form", MODELS)
def test_chance_has_no_say_in_the_proof(form: str) -> None:
    result = graphprune.prune(MODELS[form], ratio=0.3)
    assert result.proof is not None and len(result.proof.drawn) == 1
    assert result.proof.worst < 1e-5
    assert [(o.compared_at, o.constant) for o in result.proof.outputs] == [(None, None)]
    assert result.proof.to_json()["drawn"] == result.proof.drawn
    assert {n.op_type for n in result.model.graph.node} == {n.op_type for n in MODELS[form].graph.node}
    (note,) = result.notes
    assert form.split()[0] in note and result.proof.drawn[0] in note


def test_a_model_out_of_training_is_left_alone() -> None:
    result = graphprune.prune(dropped(training=False), ratio=0.3)
    assert result.proof is not None and not result.proof.drawn and not result.notes


def test_blocks_go_from_a_model_in_training() -> None:
    net = Net(0)
    y = net.linear(net.input("x", ["batch", 8]), 8, 8)
    for _ in range(2):
        inner = net.op("Relu", net.linear(y, 8, 16))
        inner = net.op("Dropout", inner, net.constant(np.float32(0.5)), net.constant(np.asarray(True)))
        y = net.op("Add", y, net.linear(inner, 16, 8))
    result = graphprune.prune(net.model(net.linear(y, 8, 3)), blocks=Request(count=1))
    assert result.without is not None and result.without.proof is not None
    assert result.without.proof.drawn and result.without.proof.worst < 1e-5


def test_what_cannot_be_replaced_is_named() -> None:
    """A branch stays as it is, and ONNX Runtime draws anew at each run."""
    net = Net(0)
    y = net.linear(net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 24)), 24, 60)
    branches = {}
    for name, ratio in (("then_branch", 0.5), ("else_branch", 0.1)):
        node = helper.make_node("Dropout", [y, net.constant(np.float32(ratio)), net.constant(np.asarray(True))], [name])
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [output])
    model = net.model(net.op("If", net.input("which", [], TensorProto.BOOL), **branches), rank=2)
    with pytest.raises(InputError, match=r"node 'node_If_\d+' \(If\) gives another .* --no-proof"):
        graphprune.prune(model, ratio=0.3)


def in_training() -> ModelProto:
    """Batch normalisation with the statistics of each batch, as a training export has it."""
    model = residual()
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_var"])
    return model


def test_batch_statistics_are_proven_and_noted() -> None:
    result = graphprune.prune(in_training(), ratio=0.3)
    usual = graphprune.prune(residual(), ratio=0.3)
    assert result.proof is not None and result.proof.worst < 1e-5
    assert [g.id for g in result.plan.groups] == [g.id for g in usual.plan.groups] != []
    (note,) = result.notes
    assert "training mode and uses the statistics of each batch" in note and "model.eval()" in note


def test_the_commands_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(dropped(), tmp_path / "m.onnx")
    status, printed, _ = command(capsys, "prune", tmp_path / "m.onnx", "--ratio", "0.3")
    flat = " ".join(printed.split())
    assert status == 0 and "Dropout is in training mode" in flat and "model.eval()" in flat and "vanish" not in flat
    status, printed, _ = command(capsys, "inspect", tmp_path / "m.onnx", "--json")
    assert status == 0 and any("training mode" in n["text"] for n in json.loads(printed)["notes"])


def test_every_random_operator_of_onnx_is_known() -> None:
    """All that ONNX itself calls random, but for what only holds graphs."""
    schemas = onnx.defs.get_all_schemas()
    random = onnx.defs.OpSchema.NodeDeterminism.NonDeterministic
    found = {s.name for s in schemas if s.node_determinism == random and not s.has_function}
    held = {"If", "Loop", "Scan", "SequenceMap"}
    assert "RandomNormal" in found and found - held <= {op for _, op in chance.RANDOM}
    assert chance.drawn(load(dropped())) and not chance.drawn(load(residual()))
