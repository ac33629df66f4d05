"""Inputs that the user gives, in every form, and what is said of those that do not fit."""

from __future__ import annotations

import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from graphprune.errors import InputError
from graphprune.model import load as load_model
from graphprune.run.samples import load
from models.small import Net, chain, residual
from tests import helpers


def values(count: int = 5, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(dtype)


def fixed(batch: int) -> ModelProto:
    net = Net()
    return net.model(net.conv(net.input("x", [batch, 3, 8, 8]), 3, 4))


def feeds(source: object, model: ModelProto | None = None, batch: int = 2) -> list[np.ndarray]:
    return [f["x"] for f in load(source, load_model(model or chain()), batch)]  # type: ignore[arg-type]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_cut_along_the_first_axis(tmp_path: Path, save: object) -> None:
    save(tmp_path / "in.npz", x=values(), other=np.zeros(3))  # type: ignore[operator]
    found = feeds(tmp_path / "in.npz")
    assert [len(f) for f in found] == [2, 2, 1] and np.array_equal(np.concatenate(found), values())


def test_a_fixed_batch_is_kept_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=values())
    assert [len(f) for f in feeds(tmp_path / "in.npz", fixed(1))] == [1] * 5
    assert [len(f) for f in feeds(tmp_path / "in.npz", fixed(2))] == [2, 2]


def test_inputs_without_an_axis_for_samples_are_fed_one_at_a_time(tmp_path: Path) -> None:
    net = Net()
    x, n = net.input("x", ["batch", 4]), net.input("n", [], TensorProto.FLOAT)
    model = load_model(net.model(net.op("Mul", x, n)))
    np.savez(tmp_path / "in.npz", x=np.zeros((3, 4), np.float32), n=np.arange(3, dtype=np.float32))
    found = list(load(tmp_path / "in.npz", model))
    assert [float(f["n"]) for f in found] == [0, 1, 2] and found[0]["x"].shape == (1, 4)


def test_types_follow_the_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=values(dtype=np.float64))
    assert feeds(tmp_path / "in.npz")[0].dtype == np.float32


def test_folders(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", values(2))
    np.save(tmp_path / "a.npy", values(1)[0])
    np.savez(tmp_path / "c.npz", x=values(3))
    assert [len(f) for f in feeds(tmp_path)] == [1, 2, 2, 1]


def test_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given_by_tests.py").write_text(
        "import numpy as np\ndef some():\n    for n in (1, 4):\n        yield {'x': np.zeros((n, 3, 8, 8))}\n"
    )
    path = list(sys.path)
    assert [len(f) for f in feeds("given_by_tests:some")] == [1, 4] and sys.path == path
    with pytest.raises(InputError, match="has no attribute 'other'"):
        feeds("given_by_tests:other")
    with pytest.raises(InputError, match="No module named"):
        feeds("no_such_module:other")


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((5000, 3, 8, 8), np.float32))
    tracemalloc.start()
    try:
        assert sum(len(f["x"]) for f in load(tmp_path / "in.npz", load_model(chain()), 8)) == 5000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # the whole array has 3.8 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": values()}, "no array for input 'x'; it has y"),
        ({"x": values()[:, :, :, 0]}, "has shape 2x3x8, the model wants Nx3x8x8"),
        ({"x": values()[:, :2]}, "has shape 2x2x8x8, the model wants"),
        ({"x": values().astype(np.int64)}, "is of type int64, the model wants float32"),
        ({"x": np.asfortranarray(values())}, "in C order"),
        ({"x": values(0)}, "holds no samples"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(InputError, match=words):
        feeds(tmp_path / "in.npz")


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_what_is_not_finite_is_named(tmp_path: Path, value: float, words: str) -> None:
    given = values()
    given[3, 1, 2, 3] = value
    np.savez(tmp_path / "in.npz", x=given)
    with pytest.raises(InputError, match=rf"in\.npz: input 'x' holds {words}.* in sample 3;"):
        feeds(tmp_path / "in.npz")
    assert len(list(load(tmp_path / "in.npz", load_model(chain()), finite=False))) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", values())
    np.save(folder / "b.npy", given[2:])
    with pytest.raises(InputError, match=rf"b\.npy: input 'x' holds {words}.* in sample 1;"):
        feeds(folder)


def test_what_the_models_type_cannot_hold_is_not_finite(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=values(dtype=np.float64) * 1e300)
    with pytest.raises(InputError, match="holds infinite numbers in sample 0"):
        feeds(tmp_path / "in.npz")


def test_masks_of_zeros_and_minus_infinity_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.where(values() > 0, 0, -np.inf).astype(np.float32))
    assert sum(map(len, feeds(tmp_path / "in.npz"))) == 5


@pytest.mark.parametrize("how", [["prune", "--ratio", "0.3"], ["prune", "--blocks", "1"], ["sparsify", "--also", "*"]])
def test_every_command_refuses_them(how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(residual(), tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.full((4, 3, 8, 8), np.nan, np.float32))
    command = [how[0], tmp_path / "m.onnx", *how[1:], "-o", tmp_path / "o.onnx", "--calibration", tmp_path / "in.npz"]
    status, _, err = helpers.command(capsys, *command)
    assert status == 2 and "input 'x' holds NaN in sample 0" in err and err.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()


def test_no_such_source(tmp_path: Path) -> None:
    (tmp_path / "in.npz").write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="not a NumPy file"):
        feeds(tmp_path / "in.npz")
    with pytest.raises(InputError, match="no such file or folder"):
        feeds(tmp_path / "none.npz")
    net = Net()
    x, y = net.input("x", ["batch", 4]), net.input("y", ["batch", 4])
    (tmp_path / "in.npz").unlink()
    np.save(tmp_path / "one.npy", np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"has 2 inputs \(x, y\)"):
        list(load(tmp_path, load_model(net.model(net.op("Mul", x, y)))))


@pytest.mark.parametrize("name", ["in.npy", "in.npz"])
@pytest.mark.parametrize(
    "head", [b"{'descr': (", b"{'descr': '<f4', 'shape': (1, 4)", b"\xff" * 8, b"{'descr': 'O'}", b""]
)
def test_heads_that_are_none(name: str, head: bytes, tmp_path: Path) -> None:
    array = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    path = tmp_path / name
    if name == "in.npz":
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("x.npy", array)
    else:
        path.write_bytes(array)
    with pytest.raises(InputError, match=name):
        feeds(path)


def test_an_archive_that_is_called_an_array(tmp_path: Path) -> None:
    with open(tmp_path / "in.npy", "wb") as file:
        np.savez(file, x=np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match="npz"):
        feeds(tmp_path / "in.npy")
