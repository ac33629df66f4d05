import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import InputError
from graphprune.model import load
from graphprune.rewrite import plan as plans
from graphprune.rewrite.statedict import narrow
from models.small import chain, residual
from tests import helpers
from tests.helpers import bare


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
    assert bare(tmp_path / "a.onnx") == bare(tmp_path / "b.onnx")
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
    with pytest.raises(InputError, match=r"the plan: does not fit chain: at groups/0: group .* is not in the model"):
        graphprune.apply(plan, named(chain()))
    plan = graphprune.prune(chain(), ratio=0.5).plan
    plan.slices[0].removed["0"] = [0]
    with pytest.raises(InputError, match="at slices: it cuts input 1"):
        graphprune.apply(plan, chain())
    other = chain()
    other.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 16]))
    assert graphprune.apply(graphprune.prune(chain(), ratio=0.5).plan, chain()).proof is not None
    with pytest.raises(InputError, match="does not fit"):
        graphprune.apply(graphprune.prune(chain(), ratio=0.5).plan, other)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.name = "chain"
    return model


def _block(output: str, by: str, kind: str = "layer") -> dict[str, str]:
    return {"id": f"{kind}:{output}", "kind": kind, "output": output, "by": by, "exit": output}


HUGE = 10**12
UNFIT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a block for itself": (lambda d: d["blocks"].append(_block("relu_34", "relu_34")), "at blocks/0: .*'relu_34'"),
    "a branch for itself": (lambda d: d["blocks"].append(_block("add_32", "add_32", "branch")), "at blocks/0: "),
    "a block by what it makes": (
        lambda d: d["blocks"].append(_block("relu_10", "relu_34")),
        "at blocks/0: .*made",
    ),
    "blocks for each other": (
        lambda d: d.update(blocks=[_block("relu_34", "relu_10"), _block("relu_10", "relu_34")]),
        "at blocks/1: .*cannot stand for 'relu_10'",
    ),
    "side by side for each other": (
        lambda d: d.update(blocks=[_block("conv_left", "conv_right"), _block("conv_right", "conv_left")]),
        "at blocks/1: .*in the end",
    ),
    "a block twice": (lambda d: d.update(blocks=[_block("relu_34", "relu_10")] * 2), "at blocks/1: .*already"),
    "size": (lambda d: d["groups"][0].update(size=HUGE), "at groups/0/size: .* has 16 classes, not 1000000000000"),
    "class": (lambda d: d["groups"][1].update(removed=[HUGE]), "at groups/1/removed: .* 0 to 11, not 1000000000000"),
    "order": (lambda d: d["groups"][0].update(order=[HUGE]), "at groups/0/order: .* 0 to 15, not 1000000000000"),
    "class twice": (lambda d: d["groups"][0].update(removed=[1, 1]), "at groups/0/removed: .*twice"),
    "group twice": (lambda d: d["groups"].append(d["groups"][0]), "at groups/0: .*stands there 2 times"),
    "scores": (lambda d: d["groups"][0].update(score=[1.0]), "at groups/0/score: 1 scores for the 16"),
    "everything": (lambda d: d["groups"][0].update(removed=list(range(16))), "would leave nothing of"),
    "axis": (lambda d: d["slices"][0].update(removed={"9": [0]}), "at slices: it cuts input 1"),
    "huge witness": (lambda d: d["model"].update(witness={"x": [HUGE, 3, 8, 8]}), "at model/witness/x: .*too large"),
    "empty witness": (lambda d: d["model"].update(witness={"x": [0, 3, 8, 8]}), "at model/witness/x/0"),
    "rank of the witness": (lambda d: d["model"].update(witness={"x": [3, 8, 8]}), "at model/witness/x: 3x8x8 is no"),
    "name in the witness": (lambda d: d["model"].update(witness={"y": [3]}), "at model/witness/y: .*it has x"),
    "pattern": (lambda d: d.update(sparsity=[_thin("9:4")]), "--pattern 9:4: there is none like it"),
    "two patterns": (lambda d: d.update(sparsity=[_thin("2:4"), _thin("1:4")]), "at sparsity/1: all weights follow"),
    "amount": (lambda d: d.update(sparsity=[_thin("unstructured", amount=2)]), "at sparsity/0/amount"),
}


def _thin(pattern: str, **others: object) -> dict[str, object]:
    return {"name": "conv_2", "axis": 1, "pattern": pattern, "method": "magnitude", "kept_magnitude": 1, **others}


@pytest.fixture(scope="module")
def forked() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A residual net with two sigmoids side by side in it, and a plan for it."""
    model = residual()
    last = model.graph.node[-1]
    for side in ("left", "right"):
        model.graph.node.append(helper.make_node("Sigmoid", ["relu_34"], [f"conv_{side}"], name=f"node_{side}"))
        model.graph.output.append(helper.make_tensor_value_info(f"conv_{side}", 1, None))
    assert last.output[0] == model.graph.output[0].name
    plan = graphprune.prune(residual(), ratio=0.5).plan.to_json()
    return model, plan


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_named_by_file_and_entry(
    case: str, forked: tuple[onnx.ModelProto, dict[str, Any]], tmp_path: Path
) -> None:
    """Nothing runs without end or is allocated by a number that only the plan knows."""
    change, words = UNFIT[case]
    model, data = forked[0] if "side" in case else residual(), json.loads(json.dumps(forked[1]))
    change(data)
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"p\.json: .*{words}"):
        graphprune.apply(tmp_path / "p.json", model)


def test_classes_of_a_plan_made_in_python_are_checked_too() -> None:
    plan = graphprune.prune(chain(), ratio=0.5).plan
    plan.groups[0].removed = [0, -1]
    with pytest.raises(InputError, match=r"the plan: .* at groups/0/removed: .*has classes 0 to 7, not -1"):
        graphprune.apply(plan, chain())


def test_another_file_is_told_and_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, model in (("a.onnx", chain()), ("b.onnx", half(chain()))):
        onnx.save(model, tmp_path / name)
    graphprune.prune(tmp_path / "a.onnx", tmp_path / "out.onnx", ratio=0.5)
    plan = tmp_path / "out.plan.json"
    assert graphprune.apply(plan, tmp_path / "a.onnx").notes == []
    status, out, _ = helpers.command(capsys, "apply", plan, tmp_path / "b.onnx")
    assert status == 0 and "out.plan.json was made for another file (a.onnx, sha256 " in out


def test_state_dicts_check_the_plan_too() -> None:
    plan = graphprune.prune(chain(), ratio=0.5).plan
    state = {t.name: numpy_helper.to_array(t) for t in chain().graph.initializer}
    for removed, words in (
        ({"7": [0]}, "slices/0/removed/7: .*4 axes"),
        ({"0": [HUGE]}, "has 8 elements; no 10000"),
    ):
        plan.slices[0].removed = removed
        with pytest.raises(InputError, match=words):
            narrow(load(chain()), plan, state)
