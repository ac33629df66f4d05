import os
from pathlib import Path

import pytest

from graphprune import files
from graphprune.errors import InputError
from graphprune.model import load
from models.small import chain


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
