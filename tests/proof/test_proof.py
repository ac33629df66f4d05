import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphprune
import models
from graphprune.errors import InputError, ProofError
from graphprune.model import Model, load
from graphprune.passes import cut
from graphprune.proof import proof, runs
from graphprune.rewrite.removal import Removal
from graphprune.rewrite.rewrite import Rewritten, rewrite
from models.small import Net, residual
from tests import helpers


def pruned(model: ModelProto, classes: int = 3) -> tuple[Model, Rewritten]:
    analysis = graphprune.analyze(model)
    return analysis.model, rewrite(analysis, {g.id: list(range(classes)) for g in analysis.groups})


def prove(original: Model, done: Rewritten) -> proof.Proof:
    return proof.prove(original, done.model, done.plan, done.removal, [done.removal.analysis.witness.inputs])


def test_the_masked_original_is_what_masking_by_hand_gives() -> None:
    model = residual()
    original, done = pruned(model)
    masked = proof.mask(original, done.plan)
    by_hand = helpers.mask_by_hand(model, done.plan.to_json())
    feeds = helpers.random_feeds(model, {"batch": 3})
    for a, b in zip(helpers.run(masked.proto, feeds), helpers.run(by_hand, feeds), strict=True):
        assert (a == b).all()
    assert list(original.initializers) == [t.name for t in model.graph.initializer]


def test_a_right_result_is_proven() -> None:
    original, done = pruned(residual())
    found = prove(original, done)
    assert found.worst < 1e-5 and not found.statistical
    assert found.inputs == [{"seed": 0, "shapes": {"x": list(done.removal.analysis.witness.inputs["x"])}}]


def broken_weight(done: Rewritten, which: int) -> str:
    """Swap two output channels of a weight: shapes are right, values are not."""
    tensor = [t for t in done.model.graph.initializer if len(t.dims) == 4][which]
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(value[::-1].copy(), tensor.name))
    return next(n.output[0] for n in done.model.graph.node if tensor.name in n.input)


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_wrong_weight_fails_at_its_tensor(which: int) -> None:
    original, done = pruned(residual())
    tensor = broken_weight(done, which)
    with pytest.raises(ProofError, match=f"first tensor that differs is '{tensor}', made by node 'node_Conv") as error:
        prove(original, done)
    assert "Nothing was written" in str(error.value) and error.value.exit_status == 1


def test_a_result_that_does_not_run_fails_too() -> None:
    original, done = pruned(residual())
    tensor = next(t for t in done.model.graph.initializer if len(t.dims) == 4)
    value = numpy_helper.to_array(tensor)[:-1]
    tensor.CopyFrom(numpy_helper.from_array(value.copy(), tensor.name))
    with pytest.raises(ProofError, match="this is the pruned model; the masked original runs"):
        prove(original, done)


def test_an_original_that_does_not_run_is_the_users_matter() -> None:
    net = Net()
    y = net.op("Strange", net.linear(net.input("x", [2, 4]), 4, 4), domain="com.example")
    original = load(net.model(y, domains=["com.example"]))
    with pytest.raises(InputError, match="ONNX Runtime cannot run it"):
        runs.run_masked(original, original, [{"x": (2, 4)}], 0)


def sharp(gain: float) -> ModelProto:
    """A net whose last operators amplify the rounding of the sum before them."""
    net = Net(3)
    y = net.op("Relu", net.linear(net.input("x", ["batch", 8]), 8, 500))
    y = net.op("Mul", net.linear(y, 500, 4, bias=False), net.constant(np.float32(gain)))
    return net.model(net.op("Sin", y))


def test_outputs_that_amplify_rounding_are_compared_before_their_untouched_tail() -> None:
    original, done = pruned(sharp(1e5), classes=20)
    found = prove(original, done)
    (output,) = found.outputs
    assert (
        output.compared_at
        == next(n for n in original.nodes if n.op_type == "MatMul" and n.input[0].startswith("relu")).output[0]
    )
    assert output.max_rel < 1e-5
    calm = prove(*pruned(sharp(0.1), classes=20)).outputs[0]
    assert calm.compared_at is None


def test_an_error_before_the_untouched_tail_is_still_an_error() -> None:
    original, done = pruned(sharp(1e5), classes=20)
    weight = next(t for t in done.model.graph.initializer if list(t.dims) == [480, 4])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    with pytest.raises(ProofError, match=r"before it is off by 0\.01"):
        prove(original, done)


@pytest.mark.parametrize(
    ("expected", "found", "exceeds"),
    [
        ([1.0, 2.0], [1.0, 2.0001], False),
        ([1.0, 2.0], [1.0, 2.001], True),
        ([1.0, np.nan], [1.0, np.nan], False),
        ([1.0, np.nan], [1.0, 2.0], True),
        ([np.inf, 1.0], [-np.inf, 1.0], True),
        ([0.0, 0.0], [0.0, 1e-12], True),
    ],
)
def test_differences(expected: list[float], found: list[float], exceeds: bool) -> None:
    a, b = (np.array(v, np.float32) for v in (expected, found))
    assert proof.difference(a, b)[2] is exceeds


def test_strings_and_integers_must_be_equal() -> None:
    assert proof.difference(np.array(["a"]), np.array(["b"]))[2]
    assert proof.difference(np.array([1]), np.array([2]))[2]
    assert not proof.difference(np.array([1]), np.array([1]))[2]


def test_a_failed_proof_writes_nothing(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(analysis: graphprune.Analysis, *what: dict[str, list[int]]) -> Rewritten:
        done = rewrite(analysis, *what)
        broken_weight(done, 0)
        return done

    monkeypatch.setattr(cut, "rewrite", wrong)
    from pathlib import Path

    folder = Path(str(tmp_path))
    with pytest.raises(ProofError):
        graphprune.prune(residual(), folder / "out.onnx", ratio=0.3)
    assert not list(folder.iterdir())


def test_the_proof_is_in_the_plan() -> None:
    result = graphprune.prune(residual(), ratio=0.3)
    stored = result.plan.to_json()["proof"]
    assert [o["name"] for o in stored["outputs"]] == [o.name for o in residual().graph.output]
    assert len(stored["inputs"]) == 2, "at both witnesses"
    assert graphprune.prune(residual(), ratio=0.3, prove=False).plan.proof is None


def test_removal_names_what_is_gone() -> None:
    analysis = graphprune.analyze(residual())
    group = analysis.groups[0]
    removal = Removal(analysis, {group.id: [1]})
    name, axis = group.id.rsplit(":", 1)
    assert removal.of(name)[int(axis)].tolist() == [1]
    assert removal.shape(name)[int(axis)] == group.size - 1  # type: ignore[index]


def test_outputs_that_are_not_finite_prove_nothing() -> None:
    """NaN equals NaN in a comparison; so a model that makes nothing else would pass whatever was done to it."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 4, 4]), 3, 6))
    y = net.op("Mul", net.conv(y, 6, 2), net.constant(np.float32(np.nan)))
    with pytest.raises(InputError, match="proves nothing"):
        graphprune.prune(net.model(y), ratio=0.5)
    assert graphprune.prune(net.model(y), ratio=0.5, prove=False).plan.groups


def test_an_output_of_one_value_is_compared_before_it_became_one() -> None:
    """Zero beside zero says nothing: a wrong cut must not hide behind a sigmoid that has run out."""
    net = Net()
    y = net.op("Relu", net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 8))
    y = net.op("Sub", net.conv(y, 8, 4), net.constant(np.float32(1e4)))
    result = graphprune.prune(net.model(net.op("Sigmoid", y)), ratio=0.5)
    assert result.proof is not None
    (output,) = result.proof.outputs
    assert output.compared_at and output.constant is None and output.max_abs == 0


def test_what_is_one_value_all_the_way_is_said_to_be() -> None:
    """onnx's light models have weights of one value each: their proof is of shapes alone, and says so."""
    result = graphprune.prune(models.packaged("densenet121-light"), ratio=0.3)
    assert result.proof is not None and all(output.constant for output in result.proof.outputs)


def test_text_is_masked_by_none() -> None:
    net = Net(opset=19, ir_version=9)
    words = net.constant(np.array(["a", "b", "c", "d"], dtype=object))
    same = net.op("Cast", net.op("Equal", words, net.constant(np.array(["a"], dtype=object))), to=TensorProto.FLOAT)
    y = net.op("Mul", net.linear(net.input("x", ["batch", 3]), 3, 4), same)
    result = graphprune.prune(net.model(net.linear(y, 4, 2)), ratio=0.5)
    assert result.plan.groups and result.proof is not None and result.proof.worst < 1e-5


def test_what_is_written_out_in_bfloat16_is_rounded() -> None:
    """ONNX Runtime runs it as float32, which does not round the root that is computed, but the one that is written."""
    net = Net(dtype=ml_dtypes.bfloat16)
    y = net.linear(net.input("x", ["batch", 4]), 4, 6)
    root = net.op("Sqrt", net.op("Cast", net.op("Shape", y, start=1), to=TensorProto.BFLOAT16))
    result = graphprune.prune(net.model(net.linear(net.op("Div", y, root), 6, 2)), ratio=0.5)
    assert result.plan.groups and result.proof is not None and 1e-4 < result.proof.worst < 1e-2
