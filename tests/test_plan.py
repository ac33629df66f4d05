import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune import plan as plans
from graphprune.errors import InputError
from models.small import chain, residual
from tests import helpers


def test_the_file_says_what_was_done(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "m.onnx")
    graphprune.prune(tmp_path / "m.onnx", tmp_path / "out.onnx", ratio=0.5)
    data = json.loads((tmp_path / "out.plan.json").read_text())
    assert data["format"] == "graphprune-plan/1"
    assert data["model"]["file"] == "m.onnx" and len(data["model"]["sha256"]) == 64
    (group,) = data["groups"]
    assert group["size"] == 8 and len(group["removed"]) == 4 and len(group["score"]) == 8
    kept = [s for i, s in enumerate(group["score"]) if i not in group["removed"]]
    assert max(group["score"][i] for i in group["removed"]) <= min(kept)
    first, second = (n for n in chain().graph.node if n.op_type == "Conv")
    assert data["slices"] == [
        {
            "consumer": n.output[0],
            "input": i,
            "source": n.input[i],
            "result": n.input[i],
            "removed": {a: group["removed"]},
        }
        for n, i, a in ((first, 1, "0"), (first, 2, "0"), (second, 1, "1"))
    ]
    assert {k: data[k] for k in ("blocks", "compensated", "sparsity")} == {
        "blocks": [],
        "compensated": [],
        "sparsity": [],
    }


def test_reading_gives_back_what_was_written() -> None:
    plan = graphprune.prune(residual(), ratio=0.5).plan
    assert plans.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_several_groups_on_one_tensor_name_original_indices() -> None:
    result = graphprune.prune(models.export("llama-gqa-dynamo"), ratio=0.3, prove=False)
    original = helpers.constants(models.export("llama-gqa-dynamo"))
    pruned = helpers.constants(result.model.proto)
    for entry in result.plan.slices:
        value = original[entry.source]
        for axis, gone in entry.removed.items():
            value = np.delete(value, gone, int(axis))
        assert np.array_equal(value * np.float32(entry.scaled or 1), pruned[entry.result])
    both = [s for s in result.plan.slices if len(s.removed) == 2 and original[s.source].shape == (512, 512)]
    assert both, "projections lose heads and head dims along one axis"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other/1"), "at format"),
        (lambda d: d.pop("slices"), "'slices' is a required"),
        (lambda d: d["groups"][0].update(removed=[-1]), "at groups/0/removed/0"),
        (lambda d: d["groups"][0].pop("id"), "at groups/0"),
    ],
)
def test_files_that_are_no_plans(tmp_path: Path, change: object, message: str) -> None:
    data = graphprune.prune(chain(), ratio=0.5).plan.to_json()
    change(data)  # type: ignore[operator]
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        plans.load(tmp_path / "p.json")


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        plans.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("text")
    with pytest.raises(InputError, match="not a JSON file"):
        plans.load(tmp_path / "text.json")


@pytest.mark.parametrize("name", ["ppocr-v5-cls", "magika", "ppocr-v4-rec"])
def test_a_replay_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    path = models.packaged(name)
    graphprune.prune(path, tmp_path / "a.onnx", ratio=0.3)
    again = graphprune.apply(tmp_path / "a.plan.json", path, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert again.plan.slices == plans.load(tmp_path / "a.plan.json").slices
    assert again.plan.groups == plans.load(tmp_path / "a.plan.json").groups


def test_a_plan_can_be_edited_and_replayed(tmp_path: Path) -> None:
    """Groups alone say what goes; without its slices a plan is checked against the model's own."""
    plan = graphprune.prune(chain(), ratio=0.5).plan
    plan.groups[0].removed = [0]
    plan.slices = []
    result = graphprune.apply(plan, chain())
    assert [len(s.removed) for s in result.plan.slices] == [1, 1, 1]
    assert result.plan.groups[0].removed == [0]


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model in float16."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_a_plan_of_one_precision_fits_another() -> None:
    plan = graphprune.prune(residual(), ratio=0.5).plan
    result = graphprune.apply(plan, half(residual()))
    assert result.plan.slices == plan.slices
    assert {t.data_type for t in result.model.graph.initializer} == {TensorProto.FLOAT16}
    assert result.proof is not None and result.proof.worst < 1e-2


def test_a_plan_for_another_model_is_refused() -> None:
    plan = graphprune.prune(residual(), ratio=0.5).plan
    with pytest.raises(InputError, match=r"does not fit: group .* is not in the model"):
        graphprune.apply(plan, chain())
    plan = graphprune.prune(chain(), ratio=0.5).plan
    plan.slices[0].removed["0"] = [0]
    with pytest.raises(InputError, match="does not fit: it cuts input 1"):
        graphprune.apply(plan, chain())
    other = chain()
    other.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 16]))
    assert graphprune.apply(graphprune.prune(chain(), ratio=0.5).plan, chain()).proof is not None
    with pytest.raises(InputError, match="does not fit"):
        graphprune.apply(graphprune.prune(chain(), ratio=0.5).plan, other)
