"""Rows of tables that no id reaches go: the original on old ids is the result on new ones, logits among those kept."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphprune
import models
from graphprune.errors import InputError
from graphprune.passes.vocabulary import ids
from graphprune.rewrite.renumber import mapped
from graphprune.schema import schema
from tests.helpers import bare, command

SIZE, WIDTH, PAD = 40, 16, 3
KEPT = [0, 5, 6, 11, 20, 39]


def language_model(tied: bool = True, valued: bool = False) -> ModelProto:
    """Ids with a pad, which is masked by comparison; logits by the table itself, or by another weight."""
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.standard_normal((SIZE, WIDTH)).astype(np.float32),
        "weight": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32),
        "head": rng.standard_normal((WIDTH, SIZE)).astype(np.float32),
        "pad": np.array(PAD, np.int64),
        "zero": np.zeros((), np.float32),
        "axis": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Equal", ["ids", "pad"], ["masked"], name="is_pad"),
        helper.make_node("Unsqueeze", ["masked", "axis"], ["where"]),
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="embed"),
        helper.make_node("Where", ["where", "zero", "rows"], ["seen"]),
        helper.make_node("MatMul", ["seen", "weight"], ["hidden"]),
        *([helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0])] if tied else []),
        helper.make_node("MatMul", ["hidden", "turned" if tied else "head"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", SIZE])]
    if valued:
        nodes.append(helper.make_node("Add", ["ids", "pad"], ["later"], name="arithmetic"))
        outputs.append(helper.make_tensor_value_info("later", TensorProto.INT64, ["b", "s"]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "lm", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "s"])], outputs,
        [numpy_helper.from_array(value, name) for name, value in arrays.items() if name in used],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _run(model: ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


@pytest.mark.parametrize("tied", (True, False))
def test_the_original_on_old_ids_is_the_result_on_new_ones(tmp_path: Path, tied: bool) -> None:
    original, source, result = language_model(tied), tmp_path / "lm.onnx", tmp_path / "small.onnx"
    onnx.save(original, source)
    found = graphprune.prune(source, result, vocabulary=KEPT)
    told = json.loads((tmp_path / "small.vocabulary.json").read_text())
    jsonschema.validate(told, schema("vocabulary"))
    kept = np.array(told["old_ids"])
    assert kept.tolist() == sorted([*KEPT, PAD])  # what the model compares with stays
    assert [told["new_ids"][old] for old in kept] == list(range(len(kept)))
    assert told["outputs"] == [{"name": "logits", "axis": 2}]
    new = np.random.default_rng(1).integers(0, len(kept), (3, 7))
    wanted, got = _run(original, ids=kept[new])[0][..., kept], _run(onnx.load(result), ids=new)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert found.after.parameters == found.before.parameters - (1 if tied else 2) * WIDTH * (SIZE - len(kept))
    assert found.after.macs < found.before.macs
    declared = onnx.load(result).graph.output[0].type.tensor_type.shape.dim
    assert declared[2].dim_value == len(kept)
    graphprune.apply(tmp_path / "small.plan.json", source, tmp_path / "again.onnx")
    assert bare(tmp_path / "again.onnx") == bare(result)


def test_ids_that_are_read_as_values_are_refused_with_the_node_and_stay_as_they_are_inside() -> None:
    original = language_model(tied=False, valued=True)
    with pytest.raises(InputError, match="'arithmetic' \\(Add\\) reads them as values; --vocabulary-inside"):
        graphprune.prune(original, vocabulary=KEPT)
    found = graphprune.prune(original, vocabulary=graphprune.Vocabulary([*KEPT, PAD], inside=True, unknown=5))
    rows = np.arange(SIZE)[None]
    known = np.where(np.isin(rows, [*KEPT, PAD]), rows, 5)
    np.testing.assert_allclose(_run(found.proto, ids=rows)[0], _run(original, ids=known)[0], atol=1e-5)
    np.testing.assert_array_equal(_run(found.proto, ids=rows)[1], rows + PAD)
    assert found.after.parameters == found.before.parameters - WIDTH * (SIZE - len(KEPT) - 1)


def test_inside_a_table_that_the_outputs_need_whole_is_refused() -> None:
    with pytest.raises(InputError, match="needs them all"):
        graphprune.prune(language_model(), vocabulary=graphprune.Vocabulary(KEPT, inside=True, unknown=5))


def test_the_most_used_ids_of_calibration_texts_stay() -> None:
    texts = np.array([[7, 7, 7, 9, 9, 8], [7, 9, 2, 30, 30, 30]])
    found = graphprune.prune(language_model(), vocabulary=[0], keep_tokens=3, calibration={"ids": texts})
    assert found.plan.vocabulary is not None
    assert found.plan.vocabulary["kept"] == [0, PAD, 7, 9, 30]
    assert not found.plan.compensated  # nothing was cut that a fit could make up for


def test_ids_whose_order_alone_is_read_may_be_numbered_anew() -> None:
    """CLIP takes the token with the largest id for the end of the text."""
    original = models.export("clip-text-dynamo18")
    found = graphprune.prune(original, vocabulary=range(0, 100, 3))
    assert found.plan.vocabulary is not None
    kept = np.array(found.plan.vocabulary["kept"])
    names = [i.name for i in original.graph.input]
    new = np.random.default_rng(0).integers(0, len(kept), (2, 9))
    feeds = {name: np.ones_like(new) for name in names}
    wanted = _run(original, **{**feeds, "input_ids": kept[new]})
    for a, b in zip(wanted, _run(found.proto, **{**feeds, "input_ids": new}), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_files_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("5\n\n3\n5\n")
    (tmp_path / "b.json").write_text("[3, 5]")
    (tmp_path / "c.json").write_text('{"old_ids": [3, 5]}')
    np.save(tmp_path / "d.npy", [5, 3])
    for name in ("a.txt", "b.json", "c.json", "d.npy"):
        assert ids.read(str(tmp_path / name)).tolist() == [3, 5]
    (tmp_path / "bad.txt").write_text("5\nthe\n")
    with pytest.raises(InputError, match="line 2 is 'the'"):
        ids.read(str(tmp_path / "bad.txt"))


def test_numbers_beside_the_ids_stay_beside_them() -> None:
    kept = np.array([2, 5, 9])
    assert mapped(np.array([-100, -1, 2, 5, 9, 10, 12]), kept, 10).tolist() == [-100, -1, 0, 1, 2, 3, 5]


def test_a_vocabulary_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, wanted = tmp_path / "lm.onnx", tmp_path / "ids.txt"
    onnx.save(language_model(), source)
    wanted.write_text("\n".join(map(str, KEPT)))
    out = tmp_path / "small.onnx"
    status, told, _ = command(capsys, "prune", source, "-o", out, "--vocabulary", wanted)
    assert status == 0
    assert f"7 of {SIZE} ids stay" in told
    assert "proof: the original gives the same on the old ids" in told
    wanted.write_text(f"1\n{SIZE}\n")
    status, _, error = command(capsys, "prune", source, "--vocabulary", wanted)
    assert status == 2
    assert f"its ids are 0 to {SIZE - 1}, and {SIZE} is to stay" in error
    status, _, error = command(capsys, "prune", source, "--keep-tokens", "4")
    assert status == 2
    assert "--calibration" in error


def test_the_result_is_validated_beside_the_original_with_the_same_ids() -> None:
    found = graphprune.prune(language_model(), vocabulary=KEPT, checks=graphprune.Checks(min_cosine=0.9999))
    assert found.verdict is not None
    assert found.verdict.passed
