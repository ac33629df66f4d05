import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphprune.errors import InputError
from graphprune.model import files, load
from models.small import Net, chain, residual


def test_a_file_that_fails_halfway_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.atomically(path, write)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_written_files_have_the_usual_rights(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {})
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        files.write_json(tmp_path / "no" / "a.json", {})


def test_external_data_is_never_written_over_its_source(tmp_path: Path) -> None:
    files.save(load(chain()), tmp_path / "a.onnx", external=True)
    os.link(tmp_path / "a.onnx.data", tmp_path / "keep")
    with pytest.raises(InputError, match="would overwrite"):
        files.save(load(tmp_path / "a.onnx"), tmp_path / "a.onnx")
    assert files.save(load(tmp_path / "a.onnx"), tmp_path / "b.onnx") > 0
    assert (tmp_path / "b.onnx.data").read_bytes() == (tmp_path / "a.onnx.data").read_bytes()


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.FLOAT4E2M1, TensorProto.BFLOAT16, TensorProto.STRING])
def test_whatever_a_tensor_holds_comes_back_when_it_is_moved_outside(kind: int, tmp_path: Path) -> None:
    values = [b"%d" % n for n in range(999)] if kind == TensorProto.STRING else np.arange(2047) % 5
    held = onnx.helper.make_tensor("w", kind, [len(values)], values)
    net = Net(opset=23, ir_version=11)
    net.initializers.append(held)
    net.op("Shape", "w")
    files.save(load(net.model(net.linear(net.input("x", [1, 4]), 4, 4))), tmp_path / "a.onnx", external=True)
    assert load(tmp_path / "a.onnx").array("w").tolist() == numpy_helper.to_array(held).tolist()


def test_a_model_is_written_in_pieces_that_read_as_one(tmp_path: Path) -> None:
    model = residual()
    model.metadata_props.add(key="author", value="somebody")
    model.graph.doc_string = "words"
    files.save(load(model), tmp_path / "a.onnx")
    assert onnx.load(tmp_path / "a.onnx") == model


def test_the_entries_of_a_list_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    data = {"a": 1, "b": [{"c": [1, 2]}, {"d": "x"}], "e": [], "f": {"g": [3]}}
    files.write_json(tmp_path / "a.json", data)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == data and text.count("\n") == 9


def test_what_one_file_cannot_hold_goes_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_INSIDE", 1 << 12)  # in place of 2 GiB
    small, large = chain(), residual()
    assert files.size(load(small)) < 1 << 12 < files.size(load(large))
    for name, model in (("small", small), ("large", large)):
        files.save(load(model), tmp_path / f"{name}.onnx")
        assert onnx.load(tmp_path / f"{name}.onnx") == model or name == "large"
    assert {p.name for p in tmp_path.iterdir()} == {"small.onnx", "large.onnx", "large.onnx.data"}
    written = onnx.load(tmp_path / "large.onnx").graph.initializer
    assert [t.raw_data for t in written] == [t.raw_data for t in large.graph.initializer]
    with pytest.raises(InputError, match="give a file"):
        files.save(load(large), Path("/dev/null"))
